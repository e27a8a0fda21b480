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
    task_modules: str = _setting(
        "", "importable Python modules that register further tasks, separated by commas"
    )
    address: str = _setting("127.0.0.1:50051", "gRPC address, HOST:PORT (port 0 = any free one)")
    front_end: str = _setting(
        "auto",
        "server of the port: envoy (every protocol), grpcio (gRPC alone) or auto (envoy where it "
        "is installed)",
        among=("auto", "envoy", "grpcio"),
    )
    workers: str = _setting(
        "1",
        "worker processes behind the port, each with all models: a number, or auto (by cores and "
        "memory of the cgroup)",
    )
    cors_origins: str = _setting(
        "",
        "origins of pages whose scripts may call, SCHEME://HOST[:PORT], separated by commas (* = "
        "all, empty = none)",
    )
    http_address: str = _setting(
        "127.0.0.1:8002", "address of metrics and probes, HOST:PORT (port 0 = any free one)"
    )
    metrics_on_port: bool = _setting(
        False, "metrics and probes on the gRPC address as well (front end envoy)"
    )
    page: bool = _setting(
        True, "page at / of the gRPC address that shows and tries the models (front end envoy)"
    )
    allow_insecure: bool = _setting(False, "gRPC without TLS on addresses beyond this machine")
    tls_certificate: Path | None = _setting(
        None, "certificate chain, PEM file, reloaded when it changes"
    )
    tls_key: Path | None = _setting(None, "private key of the certificate, PEM file")
    tls_client_ca: Path | None = _setting(
        None, "authorities of client certificates, PEM file; with it callers must show one"
    )
    auth_tokens: Path | None = _setting(
        None, "bearer tokens and their roles, file; without it nobody needs a token"
    )
    device: str = _setting(
        "auto",
        "execution device: auto, cpu or cuda (cuda does not fall back)",
        among=("auto", "cpu", "cuda"),
    )
    precision: str = _setting(
        FP32,
        "weights and step precision: fp32, int8 (models that have it) or NAME=PRECISION,… such "
        "as int8,g2p=fp32",
    )
    threads: int = _setting(
        0, "intra-op threads per engine for large batches (0 = two where there are cores)",
        least=0,
    )  # fmt: skip
    max_streams: int = _setting(256, "decoding streams per model, the rows of its batch", least=1)
    max_queue: int = _setting(
        4096,
        "queued requests per model beyond the running ones (texts for Classify and Score)",
        least=0,
    )
    max_batch: int = _setting(32, "texts per predict batch", least=1)
    batch_delay_share: float = _setting(
        1.0,
        "longest wait for a fuller predict batch, as a share of a batch's run time",
        least=0,
    )
    max_message_bytes: int = _setting(MEBIBYTE, "largest request, bytes", least=1)
    max_metadata_bytes: int = _setting(16384, "largest metadata of a call, bytes", least=1024)
    max_connections: int = _setting(1024, "gRPC connections; further ones are closed", least=1)
    max_calls_per_connection: int = _setting(
        100, "open calls per connection (HTTP/2 streams); further ones wait at the client", least=1
    )
    max_calls_per_caller: int = _setting(
        4096,
        "concurrent requests per caller: per token name, or per connection",
        least=1,
    )
    handshake_seconds: float = _setting(
        10.0, "time limit of a new connection's handshake, seconds", above=0
    )
    body_seconds: float = _setting(
        10.0, "time limit of a request's body while many are on their way, seconds", above=0
    )
    idle_connection_seconds: float = _setting(
        1800.0, "time without a call after which a connection is closed, seconds", above=0
    )
    memory_budget_bytes: int = _setting(
        0,
        "memory budget of callers' requests, unread answers, sequences and words, bytes (0 = a "
        "quarter of the memory limit)",
        least=0,
    )
    prefix_cache_bytes: int = _setting(
        -1,
        "prefix cache of all models: states after prompts and their beginnings, encoded sources, "
        "bytes (-1 = a quarter of the memory budget, 0 = off)",
        least=-1,
    )
    prefix_cache_scope: str = _setting(
        "auto",
        "prefixes that a request finds: those of its own caller, everybody's (shared), or auto "
        "(caller where callers have names, which tokens give)",
        among=("auto", "caller", "shared"),
    )
    overload_share: float = _setting(
        0.85,
        "share of the memory limit from which new streams are refused; at a third and two "
        "thirds of the rest buffers shrink, then all new requests are refused",
        above=0,
    )
    prime_share: float = _setting(
        1.25,
        "prefill time per decode step while streams run, as a share of the step; more where steps "
        "are short",
        above=0,
    )
    engine_share: float = _setting(
        0.9, "processor share of a decode step below which tokens are coalesced into messages",
        above=0,
    )  # fmt: skip
    message_wait_seconds: float = _setting(
        0.005, "longest wait of a token for others in its message, seconds", least=0
    )
    tokens_per_message: int = _setting(
        0,
        "tokens per message unless a request says (0 = what is made while one may wait, more "
        "under pressure)",
        least=0,
    )
    stall_seconds: float = _setting(300.0, "time limit of an unread stream, seconds", above=0)
    resume_keys: Path | None = _setting(
        None,
        "keys of resume tokens, file, one a line in hexadecimal, the signing one first; shared "
        "by replicas that take over each other's streams",
    )
    resume_seconds: float = _setting(3600.0, "lifetime of a resume token, seconds", above=0)
    constraint_seconds: int = _setting(
        3,
        "processor time of compiling one constraint (regex, JSON schema or choices), seconds",
        least=1,
    )
    constraint_bytes: int = _setting(
        64 * MEBIBYTE,
        "memory of compiled constraints, those of running streams and those kept for later, bytes",
        least=MEBIBYTE,
    )
    state_store: Path | None = _setting(
        None,
        "folder of named states, which keeps them over a restart and shares them between workers; "
        "without it one process keeps them in memory",
    )
    max_states: int = _setting(256, "named states per caller", least=1)
    state_seconds: float = _setting(86_400.0, "longest life of a named state, seconds", above=0)
    presets: Path | None = _setting(
        None, "named sets of sampling parameters, TOML file, read again when it changes"
    )
    propagation_seconds: float = _setting(
        5.0,
        "time after SIGTERM during which health says no and calls are still taken, seconds "
        "(Ctrl-C has none)",
        least=0,
    )
    grace_seconds: float = _setting(
        30.0,
        "time limit of running calls after that, seconds; then streams are handed over",
        least=0,
    )
    liveness_seconds: float = _setting(
        30.0,
        "time limit of the event loop and of an engine's step for /livez, seconds; a third of "
        "it for /readyz",
        least=3,
    )
    max_sequences: int = _setting(1024, "stateful sequences per model", least=1)
    sequence_idle_seconds: float = _setting(
        60.0, "time without a request after which a sequence ends, seconds", above=0
    )
    max_live_versions: int = _setting(
        4,
        "versions per model in memory: the served one, and replaced ones with running calls",
        least=1,
    )
    max_waiting_loads: int = _setting(16, "queued loads and unloads", least=0)
    max_bundle_bytes: int = _setting(
        MOST_BUNDLE_BYTES, "largest bundle, all files together, bytes", least=1
    )
    model_control: str = _setting(
        "explicit",
        "model control: explicit (callers may load and unload) or none",
        among=("explicit", "none"),
    )
    log_level: str = _setting(
        "info", "lowest level of log lines", among=("debug", "info", "warning", "error")
    )
    log_format: str = _setting("console", "log format: console or json", among=("console", "json"))
    log_requests: bool = _setting(False, "log line per request, when it ends")
    log_texts: bool = _setting(False, "text of the request in that line; it may be private")
    log_queue_bytes: int = _setting(
        4 * MEBIBYTE,
        "queue of unwritten log lines, bytes; further lines are dropped and counted",
        least=65_536,
    )
    trace_endpoint: str = _setting("", "OTLP collector of spans, HOST:PORT or URL (empty = none)")
    trace_share: float = _setting(
        1.0, "share of traced requests where the caller's own trace does not decide", least=0
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
        if self.workers != "auto" and not (self.workers.isdecimal() and int(self.workers)):
            raise ConfigInvalid(f"workers is {self.workers!r}; write a number above 0, or auto")
        _check_origins(self.cors_origins)
        split_precision(self.precision)
        self._check_security()

    @property
    def knows_callers(self) -> bool:
        """Whether calls come with a name, which tokens alone give."""
        return self.auth_tokens is not None

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


def _check_origins(origins: str) -> None:
    """Raises ConfigInvalid."""
    for origin in origins.split(",") if origins else ():
        scheme, _, host = origin.partition("://")
        if origin != "*" and not (scheme.isalnum() and host and not set(host) & set("/ @?#*")):
            raise ConfigInvalid(
                f"cors_origins has {origin!r}; write SCHEME://HOST or SCHEME://HOST:PORT, with "
                "commas and no spaces between, or *"
            )


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
