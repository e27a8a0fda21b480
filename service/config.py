"""The service's one configuration: built and checked once, then handed on in parts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import FP32, INT8

MEBIBYTE = 1024 * 1024


class ConfigInvalid(ValueError):
    """A setting that cannot be used; the message names it. Stops the start."""


@dataclass(frozen=True)
class Config:
    """address, http_address: HOST:PORT, port 0 for any free one.
    device: auto, cpu or cuda.
    precision: fp32, int8 (where a bundle has it, else fp32), entries NAME=PRECISION that a model
        must have, or a default and such entries: ``int8,g2p=fp32``.
    threads: that a large batch of one engine is computed on; small ones take one. 0 for two
        where the process may use two cores.
    max_streams: rows of a generating model, streams that decode at once.
    max_queue: requests (for Classify and Score: texts) that may wait for a model beyond those
        that run.
    max_batch: texts of one predict batch.
    batch_delay_share: of a predict batch's time that texts which came up during it may wait
        for more; a text that finds the engine idle never waits.
    max_message_bytes: the largest request.
    prime_share: of a decode step's time that reading prompts may take, while streams run.
    engine_share: of a step's time that its engine must have a core; with less, tokens are
        sent together.
    tokens_per_message: for requests that do not say; 0 for one, more under pressure.
    stall_seconds: how long a caller may leave its stream unread.
    resume_keys: file of keys for resume tokens, one a line in hexadecimal, the signing one
        first; none for a key of this process alone.
    resume_seconds: how long a resume token is good.
    grace_seconds: how long running streams may take after SIGTERM.
    max_sequences: sequences of one model whose state is kept between requests.
    sequence_idle_seconds: without a request, after which a sequence ends.
    model_control: explicit, where callers may load and unload models, or none.
    """

    models: Path = Path("models")
    address: str = "127.0.0.1:50051"
    http_address: str = "127.0.0.1:8002"
    device: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    max_streams: int = 256
    max_queue: int = 4096
    max_batch: int = 32
    batch_delay_share: float = 1.0
    max_message_bytes: int = MEBIBYTE
    prime_share: float = 0.5
    engine_share: float = 0.9
    tokens_per_message: int = 0
    stall_seconds: float = 300.0
    resume_keys: Path | None = None
    resume_seconds: float = 3600.0
    grace_seconds: float = 30.0
    max_sequences: int = 1024
    sequence_idle_seconds: float = 60.0
    model_control: str = "explicit"

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigInvalid(f"device is {self.device!r}; choose auto, cpu or cuda")
        if self.model_control not in ("explicit", "none"):
            raise ConfigInvalid(f"model_control is {self.model_control!r}; choose explicit or none")
        for name in ("max_streams", "max_batch", "max_message_bytes", "max_sequences"):
            if getattr(self, name) < 1:
                raise ConfigInvalid(f"{name} is {getattr(self, name)}; choose at least 1")
        for name in (
            "threads",
            "max_queue",
            "tokens_per_message",
            "batch_delay_share",
            "grace_seconds",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigInvalid(f"{name} is {value}; choose at least 0")
        for name in (
            "prime_share",
            "engine_share",
            "stall_seconds",
            "resume_seconds",
            "sequence_idle_seconds",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigInvalid(f"{name} is {value}; choose more than 0")
        if self.threads > usable_cores():
            raise ConfigInvalid(
                f"threads is {self.threads}, this process may use {usable_cores()} cores"
            )
        for name in ("address", "http_address"):
            split_address(getattr(self, name), name)
        split_precision(self.precision)


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
