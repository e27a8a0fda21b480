"""The service's one configuration: built and checked once, then handed on in parts."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.manifest import FP32, INT8
from bundle.store import MOST_BUNDLE_BYTES

MEBIBYTE = 1024 * 1024


class ConfigInvalid(ValueError):
    """A setting that cannot be used; the message names it. Stops the start."""


def _setting(default: Any, text: str, *, least: float | None = None, above: float | None = None,
             among: tuple[str, ...] = ()) -> Any:  # fmt: skip
    """text: what it is, with its unit. least, above: what its number may not be below, must
    exceed. among: what it may be."""
    return field(
        default=default,
        metadata={"text": text, "least": least, "above": above, "among": among},
    )


@dataclass(frozen=True)
class Config:
    """Every setting with its default; ``settings.py`` reads them from file, environment, flags.

    Raises ConfigInvalid, which names the setting.
    """

    models: Path = _setting(Path("models"), "folder of bundles")
    address: str = _setting("127.0.0.1:50051", "HOST:PORT of gRPC, port 0 for any free one")
    http_address: str = _setting(
        "127.0.0.1:8002", "HOST:PORT of metrics and probes, port 0 for any free one"
    )
    allow_insecure: bool = _setting(
        False, "whether gRPC without TLS may listen on more than this machine"
    )
    tls_certificate: Path | None = _setting(
        None, "PEM file of the certificate chain; read again when it changes"
    )
    tls_key: Path | None = _setting(None, "PEM file of the certificate's private key")
    tls_client_ca: Path | None = _setting(
        None, "PEM file of authorities; callers must show a certificate that one of them signed"
    )
    auth_tokens: Path | None = _setting(
        None, "file of bearer tokens and their roles; without one nobody is asked for a token"
    )
    device: str = _setting(
        "auto",
        "auto, cpu or cuda; cuda refuses to start without CUDA",
        among=("auto", "cpu", "cuda"),
    )
    precision: str = _setting(
        FP32, "fp32, int8 (models that have it) or NAME=PRECISION,… such as int8,g2p=fp32"
    )
    threads: int = _setting(
        0, "of one engine for large batches, small ones take one; 0: two, if there are cores",
        least=0,
    )  # fmt: skip
    max_streams: int = _setting(256, "streams of one model that decode at once", least=1)
    max_queue: int = _setting(
        4096,
        "requests, or texts of Classify and Score, that may wait for a model beyond those that run",
        least=0,
    )
    max_batch: int = _setting(32, "texts of one predict batch", least=1)
    batch_delay_share: float = _setting(
        1.0,
        "of a predict batch's time that texts which came up during it may wait for company",
        least=0,
    )
    max_message_bytes: int = _setting(MEBIBYTE, "largest request, in bytes", least=1)
    max_metadata_bytes: int = _setting(16384, "largest metadata of a call, in bytes", least=1024)
    max_connections: int = _setting(
        1024, "gRPC connections at once; further ones are closed", least=1
    )
    max_calls_per_connection: int = _setting(
        100, "calls that one connection may have open; further ones wait at the caller's", least=1
    )
    max_calls_per_caller: int = _setting(
        4096,
        "requests that one caller may have under way: those of its tokens, or of its connection",
        least=1,
    )
    handshake_seconds: float = _setting(
        10.0, "seconds that a new connection may take until it speaks HTTP/2", above=0
    )
    body_seconds: float = _setting(
        10.0, "seconds that a request may take to arrive while many are on their way", above=0
    )
    idle_connection_seconds: float = _setting(
        1800.0, "seconds without a call, after which a connection is closed", above=0
    )
    memory_budget_bytes: int = _setting(
        0,
        "bytes that requests, unread answers, sequences and words of callers may take together; "
        "0: a quarter of the memory limit",
        least=0,
    )
    overload_share: float = _setting(
        0.85,
        "share of the memory limit from which new streams are refused; at a third and two thirds "
        "of the rest buffers shrink, then everything new is refused",
        above=0,
    )
    prime_share: float = _setting(
        0.5, "of a step's time that reading prompts may take while streams run", above=0
    )
    engine_share: float = _setting(
        0.9, "of a step's time that its engine must get a core; with less, tokens go together",
        above=0,
    )  # fmt: skip
    tokens_per_message: int = _setting(
        0, "for requests that do not say; 0: one, more under pressure", least=0
    )
    stall_seconds: float = _setting(
        300.0, "seconds that a caller may leave its stream unread", above=0
    )
    resume_keys: Path | None = _setting(
        None,
        "file of keys for resume tokens, one a line in hexadecimal, the signing one first; "
        "replicas that go on with each other's streams share it",
    )
    resume_seconds: float = _setting(3600.0, "seconds that a resume token is good", above=0)
    propagation_seconds: float = _setting(
        5.0,
        "seconds after SIGTERM in which health says no, and calls are still taken; Ctrl-C has none",
        least=0,
    )
    grace_seconds: float = _setting(
        30.0,
        "seconds that running calls may take after that; then streams are handed over",
        least=0,
    )
    liveness_seconds: float = _setting(
        30.0,
        "seconds that the event loop or an engine's step may take until /livez says no; /readyz "
        "does after a third of them",
        least=3,
    )
    max_sequences: int = _setting(
        1024, "sequences of one model whose state is kept between requests", least=1
    )
    sequence_idle_seconds: float = _setting(
        60.0, "seconds without a request, after which a sequence ends", above=0
    )
    max_live_versions: int = _setting(
        4,
        "versions of one model in memory: served, and replaced ones that calls still use",
        least=1,
    )
    max_waiting_loads: int = _setting(
        16, "loads and unloads of models that may wait for others", least=0
    )
    max_bundle_bytes: int = _setting(
        MOST_BUNDLE_BYTES, "largest bundle, all files together, in bytes", least=1
    )
    model_control: str = _setting(
        "explicit",
        "explicit: callers may load and unload models; none: they may not",
        among=("explicit", "none"),
    )
    log_level: str = _setting(
        "info", "least grave line that is logged", among=("debug", "info", "warning", "error")
    )
    log_format: str = _setting("console", "console or json, a line each", among=("console", "json"))
    log_requests: bool = _setting(False, "whether each request is logged when it ends")
    log_texts: bool = _setting(
        False, "whether that line holds the request's text; it may be private"
    )
    log_queue_bytes: int = _setting(
        4 * MEBIBYTE,
        "bytes of log lines that may wait for their reader; further ones are dropped and counted",
        least=65_536,
    )
    trace_endpoint: str = _setting(
        "", "HOST:PORT or URL of an OTLP collector that gets a span for each request; empty: none"
    )
    trace_share: float = _setting(
        1.0, "of the requests that are traced where the caller's own trace does not say", least=0
    )

    def __post_init__(self) -> None:
        for setting in self.__dataclass_fields__.values():
            _check(setting.name, getattr(self, setting.name), setting.metadata)
        if self.threads > usable_cores():
            raise ConfigInvalid(
                f"threads is {self.threads}, this process may use {usable_cores()} cores"
            )
        if self.trace_share > 1:
            raise ConfigInvalid(f"trace_share is {self.trace_share}; choose at most 1")
        if self.overload_share > 1:
            raise ConfigInvalid(f"overload_share is {self.overload_share}; choose at most 1")
        if self.log_texts and not self.log_requests:
            raise ConfigInvalid("log_texts is on and log_requests is not; turn both on, or none")
        split_address(self.http_address, "http_address")
        split_precision(self.precision)
        self._check_security()

    def _check_security(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            given = "tls_certificate" if self.tls_certificate else "tls_key"
            raise ConfigInvalid(f"{given} is given alone; TLS takes tls_certificate and tls_key")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigInvalid(
                "tls_client_ca is given without tls_certificate; mutual TLS takes both"
            )
        host, _ = split_address(self.address, "address")
        if not (self.tls_certificate or self.allow_insecure or is_loopback(host)):
            raise ConfigInvalid(
                f"address is {self.address!r}, which others can reach, and there is no TLS; "
                "give tls_certificate and tls_key, or set allow_insecure"
            )


def _check(name: str, value: Any, metadata: Any) -> None:
    least, above, among = (metadata[key] for key in ("least", "above", "among"))
    if among and value not in among:
        raise ConfigInvalid(f"{name} is {value!r}; choose {', '.join(among[:-1])} or {among[-1]}")
    if least is not None and not (math.isfinite(value) and value >= least):
        raise ConfigInvalid(f"{name} is {value}; choose at least {least}")
    if above is not None and not (math.isfinite(value) and value > above):
        raise ConfigInvalid(f"{name} is {value}; choose more than {above}")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_keys(path: Path | None) -> list[bytes]:
    """The keys of the file ``path``, none without one. Raises ConfigInvalid, showing no key."""
    if path is None:
        return []
    try:
        lines = path.read_text().split("\n")
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"resume_keys: {path} cannot be read ({error})") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        try:
            keys += [bytes.fromhex(line)] if line.strip() else []
        except ValueError as error:
            raise ConfigInvalid(f"resume_keys: {path}:{number} is not hexadecimal") from error
    if not keys or min(map(len, keys)) < 16:
        raise ConfigInvalid(f"resume_keys: {path} needs keys of 16 bytes (32 digits) or more")
    return keys


def split_address(address: str, name: str) -> tuple[str, int]:
    """HOST and PORT. Raises ConfigInvalid naming the setting ``name``."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise ConfigInvalid(f"{name} is {address!r}; write HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def split_precision(text: str) -> tuple[str, dict[str, str]]:
    """The default precision, and the precision of each model that ``text`` names.

    Raises ConfigInvalid.
    """
    defaults: list[str] = []
    named: dict[str, str] = {}
    for entry in text.split(","):
        name, equals, precision = (part.strip() for part in entry.rpartition("="))
        if precision not in (FP32, INT8) or bool(equals) != bool(name) or name in named:
            raise ConfigInvalid(
                f"precision is {text!r}; write {FP32}, {INT8} or NAME={INT8}, with commas between"
            )
        if name:
            named[name] = precision
        else:
            defaults.append(precision)
    if len(defaults) > 1:
        raise ConfigInvalid(f"precision is {text!r}; give one default, {FP32} or {INT8}")
    return (defaults or [FP32])[0], named


def default_threads() -> int:
    """More than two were not measured, and the other engines want cores too."""
    return min(2, usable_cores())


def usable_cores() -> int:
    """Cores this process may use: by affinity and by its cgroup's quota, not the host's."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(_cgroup_quota() or allowed)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPU time a second of wall time that the cgroup allows, None for no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
