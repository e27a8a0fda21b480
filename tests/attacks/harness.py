"""The real service as a process of its own, what it uses, and the witness beside it.

    def test_attack(attacked):                        # a fixture, which makes every check below
        with attacked(callers=("ann",), caller="ann", max_queue=100) as (service, witness):
            ...                                       # the attack, on service.target

    with Service(tmp_path, models=("pos", "prose"), callers=("ann",), max_queue=100) as service:
        with Witness(service, "ann") as witness:      # its answers were recorded before this line
            ...                                       # the attack, on service.target
            seen = witness.report()                   # what it saw since its last report
        seen.check(10)                                # nothing failed, differed or took longer
        service.check_at_rest()                       # rows, work, requests, files, threads: back
        assert service.usage.grown() < 100 * MEBIBYTE # at the peak, beyond the start
        assert service.terminate() == 0               # SIGTERM, within the grace

``Service`` starts ``python -m service serve`` over bundled models (or any folder), with its
settings as keywords, on free ports and as if in a container of 1 GiB (as deploy/kubernetes/base
has it), and waits until it is ready. It kills only the process that it started: at the end of
the ``with``, or when its resident memory passes ``memory_bytes``, as a container's limit does
(``usage.out_of_memory``). ``Witness`` is another process
(tests/attacks/witness.py). ``Threat`` is what a class of attacks says of itself for the table in
docs/security.md (tests/attacks/table.py).
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from service.access.auth import new_token
from tests.attacks.contained import MEMORY_BYTES
from unroll.prom_page import Page

MEBIBYTE = 1024 * 1024
BUNDLES = Path(__file__).parents[2] / "models"
# What a witness calls: small, one of each kind of engine.
MODELS = ("nationality", "pos", "pos-online", "prose")
SAMPLE_SECONDS = 0.05

_READY = re.compile(rb"ready: gRPC on port (\d+), HTTP on port (\d+)")


@dataclass(frozen=True)
class Threat:
    """A row of the table in docs/security.md.

    attack: what a caller does. bound: what it costs at most, and what the caller gets. settings:
    names of Config that the bound can be moved with.
    """

    attack: str
    bound: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """at: monotonic seconds. cpu: seconds of processor time since the start.

    resident_bytes counts pages that programs share once for each.
    """

    at: float
    resident_bytes: int
    files: int
    threads: int
    cpu: float


class Usage:
    """What a process and its children use, looked at every SAMPLE_SECONDS on a thread of its own.

    memory_bytes: resident memory beyond which the process is killed.
    """

    def __init__(self, process: subprocess.Popen[bytes], memory_bytes: int) -> None:
        self.samples: list[Sample] = []
        self.out_of_memory = False
        self._process = process
        self._memory_bytes = memory_bytes
        self._ended = threading.Event()
        self._began = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """The memory of now is what grown() is measured from."""
        self.samples.append(_sample(self._process.pid))
        self._thread.start()

    def restart(self) -> None:
        """Measure from now on: what was before is the service's own."""
        self._began = len(self.samples)
        self.samples.append(_sample(self._process.pid))

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def peak(self) -> int:
        """Resident bytes."""
        return max(sample.resident_bytes for sample in self.samples[self._began :])

    def grown(self) -> int:
        """Resident bytes at the peak beyond those of the beginning."""
        return self.peak() - self.samples[self._began].resident_bytes

    def most(self, of: str) -> int:
        """Of files or threads."""
        return max(getattr(sample, of) for sample in self.samples[self._began :])

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                sample = _sample(self._process.pid)
            except (OSError, IndexError):  # it has ended
                return
            self.samples.append(sample)
            if sample.resident_bytes > self._memory_bytes:
                self.out_of_memory = True
                self._process.kill()
                return


def _sample(pid: int) -> Sample:
    """Of a process and its children together: the service, and Envoy where that is its front."""
    of_each, program = [_sample_of_one(pid)], _program_of(pid)
    for child in children_of(pid):
        with suppress(OSError, IndexError):  # it has ended
            # Until it runs a program of its own, a child has its parent's memory (vfork).
            if _program_of(child) != program:
                of_each.append(_sample_of_one(child))
    sums = {
        field.name: sum(getattr(one, field.name) for one in of_each)
        for field in fields(Sample)
        if field.name != "at"
    }
    return Sample(at=time.monotonic(), **sums)


def _program_of(pid: int) -> bytes:
    """The command line that it runs."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _sample_of_one(pid: int) -> Sample:
    root = Path(f"/proc/{pid}")
    stat = (root / "stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Sample(
        at=time.monotonic(),
        resident_bytes=int((root / "statm").read_text().split()[1]) * resource.getpagesize(),
        files=len(os.listdir(root / "fd")),
        threads=int(stat[17]),
        cpu=(int(stat[11]) + int(stat[12])) / ticks,
    )


def children_of(pid: int) -> list[int]:
    """Of every thread of the process."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            found += map(int, (thread / "children").read_text().split())
    return found


def copy_of(models: Iterable[str], folder: Path) -> Path:
    """``folder`` with a copy of each of these bundled models."""
    for name in models:
        shutil.copytree(BUNDLES / name, folder / name)
    return folder


class Service:
    """``python -m service serve`` as a process; ``with`` ends it, whatever state it is in.

    folder: an empty one for its log, its tokens and its models. models: names of bundled ones,
    or a folder of bundles. callers: names that get a token each, both roles; none: nobody is
    requested one. files: its limit of open files. unread_log: whether its log is a pipe that
    nobody reads once it is ready. module: what runs with its command line. settings: of Config.
    Raises AssertionError, with its log, when it does not become ready.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[str] | Path = MODELS,
        *,
        callers: Sequence[str] = (),
        files: int = 1024,
        memory_bytes: int = MEMORY_BYTES,
        unread_log: bool = False,
        module: str = "tests.attacks.contained",
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "log"
        self.tokens: dict[str, str] = {}
        if callers:
            settings["auth_tokens"] = self._write_tokens(folder / "tokens", callers)
        self.models = models if isinstance(models, Path) else linked(models, folder / "models")
        chosen = {
            "models": self.models,
            "address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "device": "cpu",
            "propagation_seconds": 0,
            "grace_seconds": 5,
            **settings,
        }
        self.grace_seconds = float(chosen["grace_seconds"])
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", *_flags(chosen)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if unread_log else log,
            )
        self.usage = Usage(self.process, memory_bytes)
        try:
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (files, files))
            self._wait_until_ready(unread_log)
            self.usage.start()
            self._at_start = self.resting()
        except BaseException:
            self.close()
            raise

    def _write_tokens(self, path: Path, callers: Sequence[str]) -> Path:
        made = {name: new_token(name, ["infer", "admin"]) for name in callers}
        self.tokens = {name: secret for name, (secret, _) in made.items()}
        path.write_text("".join(f"{line}\n" for _, line in made.values()))
        return path

    def _wait_until_ready(self, unread_log: bool, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        read = b""
        while time.monotonic() < deadline and self.process.poll() is None:
            if unread_log:
                assert self.process.stderr is not None, "it is a pipe"
                read += self.process.stderr.readline()
            else:
                read = self.log_path.read_bytes()
                time.sleep(0.01)
            if ready := _READY.search(read):
                self.port, self.http_port = map(int, ready.groups())
                return
        raise AssertionError(f"the service is not ready: {read.decode(errors='replace')}")

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def get(self, path: str, seconds: float = 5.0) -> tuple[int, bytes]:
        """Status and body of ``path`` over HTTP. Raises OSError where nobody answers."""
        request = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def metrics(self) -> Page:
        return Page.parse(self.get("/metrics", 20.0)[1].decode())

    def loop_lag(self, before: Page) -> float:
        """Seconds: the upper edge of the slowest look at the event loop since ``before``."""
        since = self.metrics().since(before)
        return since.quantile(1.0, "unroll_event_loop_lag_seconds") or 0.0

    # -- what is in use -------------------------------------------------------------------------

    def resting(self) -> dict[str, float]:
        """What is back where it was once nobody calls."""
        page = self.metrics()
        now = _sample(self.pid)
        return {
            "rows": page.sum("unroll_active_rows"),
            "work": page.sum("unroll_engine_work"),
            "requests": page.sum("unroll_open_requests"),
            "sequences": page.sum("unroll_open_sequences"),
            # The prefix cache keeps states after its callers, and gives way to whoever comes.
            "budget bytes": page.sum("unroll_memory_budget_used_bytes")
            - page.sum("unroll_prefix_cache_bytes"),
            "files": now.files,
            "threads": now.threads,
        }

    def check_at_rest(self, seconds: float = 10.0, *, files: int = 4, threads: int = 24) -> None:
        """Everything is released within ``seconds``.

        files, threads: more than at the start that may stay: pools that grow with their first
        work (asyncio's, grpc's) keep their threads.
        """
        allowed = {"files": files, "threads": threads}
        left: dict[str, float] = {}

        def is_at_rest() -> bool:
            now, start = self.resting(), self._at_start
            left.clear()
            left.update((w, n) for w, n in now.items() if n > start[w] + allowed.get(w, 0))
            return not left

        assert wait_until(is_at_rest, seconds), f"not released: {left}, was: {self._at_start}"

    def check_answers(self, seconds: float = 5.0) -> None:
        """It runs and its probes say so."""
        assert not self.usage.out_of_memory, f"out of memory at {self.usage.peak() / 1e6:.0f} MB"
        assert self.is_alive, f"it ended with {self.process.returncode}: {self.log()[-2000:]}"
        assert self.get("/livez", seconds)[0] == 200
        assert self.get("/readyz", seconds)[0] == 200

    # -- its end --------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self, seconds: float | None = None) -> int:
        """SIGTERM; its exit status, once it has ended within the grace and a little more.

        Raises AssertionError when it has not.
        """
        self.signal(signal.SIGTERM)
        limit = self.grace_seconds + 8.0 if seconds is None else seconds
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended {limit:g} s after SIGTERM") from None

    def close(self) -> None:
        self.usage.stop()
        if self.is_alive:
            self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def linked(models: Iterable[str], folder: Path) -> Path:
    """``folder`` with a link to each of these bundled models."""
    folder.mkdir(exist_ok=True)
    for name in models:
        (folder / name).symlink_to(BUNDLES / name)
    return folder


def _flags(settings: dict[str, Any]) -> Iterable[str]:
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", str(value))


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether ``holds`` came true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


@dataclass(frozen=True)
class Seen:
    """What a witness saw since its last report.

    calls: by kind. failed: of each call that failed, kind and why. differing: kinds whose answer
    was not the one from before the attack. slowest: seconds, by kind. lags: seconds that a call
    which needs nothing but the event loop took, sorted.
    """

    calls: dict[str, int]
    failed: list[str]
    differing: list[str]
    slowest: dict[str, float]
    lags: list[float]

    def check(self, seconds: float) -> None:
        """Every kind was answered, each call with its bits and within ``seconds``."""
        assert not self.differing, f"other bits than before: {self.differing}"
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:5]}"
        assert all(self.calls.values()), f"never answered: {self.calls}"
        assert max(self.slowest.values()) <= seconds, f"slower than {seconds} s: {self.slowest}"

    def lag(self, share: float) -> float:
        """Seconds that this share of the calls that need nothing but the event loop stayed in."""
        return self.lags[min(len(self.lags) - 1, int(share * len(self.lags)))]


class Witness:
    """A well-behaved caller in a process of its own, calling all the while; ``with`` ends it.

    It calls those of MODELS that are served again and again as before the attack, one
    call at a time, as a caller with the project's own client does: that one tries again what was
    refused for want of room, after the delay in the refusal.
    """

    def __init__(self, service: Service, caller: str = "", *, pause_seconds: float = 0.04) -> None:
        how = {"target": service.target, "models": MODELS, "pause_seconds": pause_seconds}
        if caller:
            how["token"] = service.tokens[caller]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.witness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self._say(json.dumps(how))
            assert self._read() == "ready", "it has recorded its answers"
        except BaseException:
            self.close()
            raise

    def report(self) -> Seen:
        """Of the time since the last report, once the calls under way have ended."""
        self._say("report")
        return Seen(**self._read())

    def pause(self) -> None:
        """Until resume(), with no call under way."""
        self._say("pause")
        self._read()

    def resume(self) -> None:
        self._say("resume")
        self._read()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        assert line, "the witness ended; its standard error says why"
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None, "it is a pipe"
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stages:
    """Services with witnesses beside them, each of which is attacked and checked; close() ends all.

    folder: an empty one. shares: whether a service that stood an attack stands the next one that
    needs the same, which saves its start.
    """

    def __init__(self, folder: Path, *, shares: bool = False) -> None:
        self._folder, self._shares = folder, shares
        self._begun = 0
        self._idle: dict[str, tuple[Service, Witness]] = {}

    @contextmanager
    def attacked(
        self,
        models: Sequence[str] | Path = MODELS,
        *,
        caller: str = "",
        seconds: float = 10.0,
        **how: Any,
    ) -> Iterator[tuple[Service, Witness]]:
        """A service, its witness, and every check of the two behind the attack.

        It runs and answers; the witness (of ``caller``) missed nothing and waited ``seconds`` at
        most; everything is released; SIGTERM ends it with 0. ``how`` goes to Service.
        """
        key = repr((models, caller, how))
        service, witness = self._idle.pop(key, None) or self._begin(models, caller, how)
        try:
            witness.resume()
            service.usage.restart()
            yield service, witness
            service.check_answers()
            witness.report().check(seconds)
            witness.pause()
            service.check_at_rest()
            if self._shares:
                self._idle[key] = service, witness
            else:
                _end(service, witness)
        finally:
            if key not in self._idle:
                witness.close()
                service.close()

    def _begin(
        self, models: Sequence[str] | Path, caller: str, how: dict[str, Any]
    ) -> tuple[Service, Witness]:
        self._begun += 1
        service = Service(self._folder / str(self._begun), models, **how)
        try:
            return service, Witness(service, caller)
        except BaseException:
            service.close()
            raise

    def close(self) -> None:
        """Raises AssertionError for a service that SIGTERM did not end with 0."""
        try:
            for service, witness in self._idle.values():
                _end(service, witness)
        finally:
            for service, witness in self._idle.values():
                witness.close()
                service.close()


def _end(service: Service, witness: Witness) -> None:
    witness.close()
    assert service.terminate() == 0, service.log()[-2000:]
