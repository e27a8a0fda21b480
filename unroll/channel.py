"""How a client reaches servers: their addresses, TLS, who calls, and what is tried again."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from unroll.v1 import unroll_pb2 as pb

DEFAULT_TARGET = "127.0.0.1:50051"
# What listens on every address is called on this machine's.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
# What gRPC resolves by itself; anything else before a colon is a host.
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
# gRPC makes no more of one call, whatever its policy. With waits of a millisecond it lost half of
# the calls for good (grpc#41036), from five on none of them.
_MOST_UNARY_ATTEMPTS, _LEAST_UNARY_WAIT_SECONDS = 5, 0.05
# Methods that change what a server keeps.
_CHANGING = ("CreateState", "DeleteState")
# A peer that is gone without a word is noticed within the two together.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 30_000, 10_000
# A server that was restarted is to be found soon; gRPC would wait from one second to two minutes.
_FIRST_RECONNECT_MS, _LAST_RECONNECT_MS = 100, 2_000


class TargetInvalid(ValueError):
    """A target, a certificate or a token that cannot be used; the message shows no secret."""


@dataclass(frozen=True)
class Retries:
    """Attempts and backoff when servers cannot be reached, break or stop.

    attempts: calls in a row that may fail without bringing anything new; 1 for no second one.
    Calls of one message are tried at most 5 times. first_seconds, longest_seconds: longest wait
    before the second call, and before any; it doubles in between.
    """

    attempts: int = 10
    first_seconds: float = 0.1
    longest_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_seconds <= self.longest_seconds:
            raise ValueError(f"{self}: attempts from 1, 0 < first_seconds <= longest_seconds")

    def wait(self, failures: int, draw: Callable[[], float]) -> float:
        """Seconds before another call after so many failures; draw: uniform in 0 … 1.

        Half of it is left to chance, so that the callers of a server that broke do not come
        back as one.
        """
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        return longest * (1 + draw()) / 2

    def waits_for(self, retry_after_seconds: float | None) -> bool:
        """Whether a call that was refused before it began is worth trying again: the server said
        when, and that is soon."""
        return retry_after_seconds is not None and retry_after_seconds <= self.longest_seconds


RETRIES = Retries()
NO_RETRIES = Retries(attempts=1)


@dataclass(frozen=True)
class Tls:
    """ca_certificate: PEM of who signed the servers' certificates; None for gRPC's own roots.

    certificate, key: PEM of the client's own, for servers that ask for one. server_name: that
    the servers' certificates hold, where it is not the host of the target.
    """

    ca_certificate: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise TargetInvalid("a client's certificate and its key go together; give both")

    @classmethod
    def read(
        cls,
        ca_certificate: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        server_name: str = "",
    ) -> Tls:
        """From PEM files. Raises TargetInvalid for one that cannot be read."""
        return cls(_read(ca_certificate), _read(certificate), _read(key), server_name)


def _read(path: Path | str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise TargetInvalid(f"{path} cannot be read ({error.strerror})") from error


class Connection:
    """One channel's address, options and credentials, and the metadata of its calls.

    target: HOST:PORT, several with commas between, or a URI that gRPC resolves, such as
    dns:///NAME:PORT. Calls go to each address in turn. token: sent as a bearer token.

    Raises TargetInvalid.
    """

    def __init__(self, target: str, tls: Tls | None, token: str | None, retries: Retries) -> None:
        self.address, first = to_address(target)
        self.credentials = tls and grpc.ssl_channel_credentials(
            tls.ca_certificate, tls.key, tls.certificate
        )
        self.metadata = _authorization(token) if token else ()
        self.options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config(retries)),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            # This one is what closes the connection; without it, it takes a minute.
            ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _LAST_RECONNECT_MS),
        ]
        if first:
            self.options.append(("grpc.default_authority", first))
        if name := tls and (tls.server_name or (first and _split(first, target)[0])):
            self.options.append(("grpc.ssl_target_name_override", name))

    def open(self, module: Any) -> Any:
        """A channel of ``module``: grpc or grpc.aio."""
        if self.credentials is None:
            return module.insecure_channel(self.address, self.options)
        return module.secure_channel(self.address, self.credentials, self.options)


def _authorization(token: str) -> tuple[tuple[str, str], ...]:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise TargetInvalid("the token holds a space or what is no printable ASCII")
    return (("authorization", f"Bearer {token}"),)


def service_config(retries: Retries) -> str:
    """Calls go to each address in turn; those of one message are tried again.

    Not those that change a server's named states: done twice, they tell that a state exists
    already or is gone, though the first of them did what was asked and lost its answer. Streams
    are resumed by failover.py and push_failover.py, which know what has been delivered.
    """
    service = pb.DESCRIPTOR.services_by_name["UnrollService"]
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries.attempts > 1:
        unary = [
            {"service": service.full_name, "method": method.name}
            for method in service.methods
            if not method.server_streaming and method.name not in _CHANGING
        ]
        first, longest = (
            max(seconds, _LEAST_UNARY_WAIT_SECONDS)
            for seconds in (retries.first_seconds, retries.longest_seconds)
        )
        policy = {
            "maxAttempts": min(retries.attempts, _MOST_UNARY_ATTEMPTS),
            "initialBackoff": f"{first:.3f}s",
            "maxBackoff": f"{longest:.3f}s",
            "backoffMultiplier": 2,
            # The second one is tried again when the server says.
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        config["methodConfig"] = [{"name": unary, "retryPolicy": policy}]
    return json.dumps(config)


def to_address(target: str) -> tuple[str, str]:
    """What gRPC is to resolve, and of several addresses the first one as it was written.

    The first is the authority of them all: whom calls say that they are for. Names among several
    are looked up here, once. Raises TargetInvalid.
    """
    if "," not in target or target.partition(":")[0] in _SCHEMES:
        return target, ""
    written = [entry.strip() for entry in target.split(",")]
    entries = [_split(entry, target) for entry in written]
    found = [_look_up(host, port) for host, port in entries]
    if all(4 in by_family for by_family in found):
        addresses = [f"{a}:{p}" for f, (_, p) in zip(found, entries, strict=True) for a in f[4]]
        return "ipv4:" + ",".join(addresses), written[0]
    # One URI holds one family: an IPv4 address has a form of IPv6 too.
    addresses = [
        f"[{address}]:{port}"
        for by_family, (_, port) in zip(found, entries, strict=True)
        for address in by_family.get(6) or [f"::ffff:{address}" for address in by_family[4]]
    ]
    return "ipv6:" + ",".join(addresses), written[0]


def target_of(address: str) -> str:
    """Where this machine calls a server that listens at ``address``, HOST:PORT."""
    host, _, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def default_target(environment: Mapping[str, str]) -> str:
    """The target of a caller that names none.

    That is UNROLL_CLIENT_TARGET, or the server that listens at UNROLL_ADDRESS, or DEFAULT_TARGET.

    Raises TargetInvalid for an address that has no port to call.
    """
    if target := environment.get("UNROLL_CLIENT_TARGET"):
        return target
    address = environment.get("UNROLL_ADDRESS") or DEFAULT_TARGET
    _, port = _split(address, address)
    if not port:
        raise TargetInvalid(f"UNROLL_ADDRESS {address!r} has no port to call; give a target")
    return target_of(address)


def hosts_of(target: str) -> list[str]:
    """As they were written, IPv6 in brackets. Raises TargetInvalid for what gRPC resolves."""
    if target.partition(":")[0] in _SCHEMES:
        raise TargetInvalid(f"target {target!r} does not say where its metrics are; name them")
    hosts = [_split(entry.strip(), target)[0] for entry in target.split(",")]
    return [f"[{host}]" if ":" in host else host for host in hosts]


def _split(entry: str, target: str) -> tuple[str, int]:
    host, colon, port = entry.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise TargetInvalid(f"target {target!r}: {entry!r} is no HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _look_up(host: str, port: int) -> dict[int, list[str]]:
    """Addresses by the version of their protocol."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetInvalid(f"target: {host!r} has no address ({error})") from error
    by_family: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        versions = {socket.AF_INET: 4, socket.AF_INET6: 6}
        if family in versions:
            by_family.setdefault(versions[family], []).append(str(address[0]))
    return by_family
