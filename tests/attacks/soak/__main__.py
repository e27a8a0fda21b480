"""An hour of all attacks in 15 minutes, in a container of 1 GiB with one witness beside it.

    make attacks-soak                          # as root, with podman and runc
    make attacks-soak ARGS="--minutes 3 --seed 2 --only 'unread tags' 'SIGSTOP'"

Four workers attack side by side without a pause, each a process of its own. Once they have ended,
everything must be released, and SIGTERM end the service with 0. The last line is JSON;
the exit code is 0 where everything held. What the service took is written by second, in
.out/soak/samples.jsonl.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.attacks.harness import Witness, wait_until
from tests.attacks.soak.catalogue import ATTACKS
from tests.attacks.soak.container import (
    ROOT,
    WITNESS,
    Contained,
    build,
    podman_in,
)
from tests.attacks.soak.report import Result, Tally
from tests.attacks.soak.sampling import Sampling
from tests.attacks.soak.schedule import Schedule
from tests.attacks.soak.worker import Worker
from unroll.prom_page import Page

WORKERS = 4
FOLDER = ROOT / ".out" / "soak"
# A line of JSON for each second.
SAMPLES = FOLDER / "samples.jsonl"
# For callers that were left to end, and for what waits for nobody to come back.
SETTLE_SECONDS = 90.0
_WITNESS_SECONDS = 10.0
_COUNTERS = (
    "unroll_requests_total", "unroll_rejected_total", "unroll_cancelled_total",
    "unroll_deadline_refusals_total", "unroll_log_lines_dropped_total",
    "unroll_unread_streams_given_up_total", "unroll_preempted_streams_total",
    "unroll_model_loads_total", "unroll_streams_finished_total",
)  # fmt: skip


class Soak:
    """One run against ``service``; run() returns what it came to, whatever becomes of it."""

    def __init__(self, service: Contained, names: Sequence[str], result: Result) -> None:
        self.service = service
        self.result = result
        self._schedule = Schedule({name: ATTACKS[name].group for name in names}, result.seed)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        result.tallies = {name: Tally() for name in names}

    def run(self) -> None:
        with ExitStack() as stack:
            witness = Witness(self.service, WITNESS)
            stack.callback(witness.close)
            self.result.witness.add(witness.report())
            sampling = Sampling(self.service)
            stack.callback(sampling.stop)
            self.result.points = sampling.points
            before = self.service.metrics()
            with self._workers():
                self._watch(witness)
            if not self.result.ended_early:
                self._settle(witness, sampling, before)
        self.result.rounds = self._schedule.rounds

    @contextmanager
    def _workers(self) -> Iterator[None]:
        """Workers that attack; at the end, each has ended the attack that it was at."""
        threads = [threading.Thread(target=self._attack) for _ in range(self.result.workers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _attack(self) -> None:
        worker = Worker(self.service.site())
        try:
            while self.service.is_alive and not self._ended.is_set():
                if drawn := self._schedule.begin():
                    self._run_one(worker, *drawn)
                else:
                    self._ended.wait(0.2)
        finally:
            worker.close()

    def _run_one(self, worker: Worker, name: str, seed: int) -> None:
        began = time.monotonic()
        ran = worker.run(name, seed)
        self._schedule.end(name)
        seconds = time.monotonic() - began
        with self._lock:
            tally = self.result.tallies[name]
            tally.runs += 1
            tally.seconds += seconds
            tally.got.update(ran.got)
            tally.trouble += [ran.trouble] if ran.trouble else []
            self._say(f"{name}, {seconds:.0f} s: {ran.got} {ran.trouble}")

    def _watch(self, witness: Witness) -> None:
        """Read the witness every so often, until the time is over or the service is."""
        deadline = time.monotonic() + 60 * self.result.minutes
        while time.monotonic() < deadline:
            due = min(deadline, time.monotonic() + _WITNESS_SECONDS)
            if wait_until(lambda: not self.service.is_alive, due - time.monotonic()):
                self.result.ended_early = self.service.log()[-1500:] or "without a word"
                return
            self._read(witness)

    def _read(self, witness: Witness) -> None:
        seen = witness.report()
        self.result.witness.add(seen)
        if seen.failed or seen.differing:
            self._say(f"WITNESS failed {seen.failed[:3]}, differing {seen.differing[:3]}")

    def _settle(self, witness: Witness, sampling: Sampling, before: Page) -> None:
        """Nobody attacks any more: everything comes back."""
        self._read(witness)
        witness.pause()
        try:
            self.service.check_at_rest(SETTLE_SECONDS)
        except AssertionError as error:
            self.result.not_back = str(error)
        grown = self.service.metrics().since(before)
        self.result.grew = {name: grown.sum(name) for name in _COUNTERS}
        self.result.end = sampling.look()

    def _say(self, line: str) -> None:
        now = self.result.points[-1] if self.result.points else None
        state = f"{now.seconds:5.0f} s {now.resident_bytes / 1e6:5.0f} MB " if now else ""
        print(f"{state} {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.soak", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="time of attacking, minutes (default: 15)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the order of attacks (default: 1)"
    )
    parser.add_argument(
        "--workers", type=int, default=WORKERS, help=f"attacks side by side (default: {WORKERS})"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=sorted(ATTACKS),
        metavar="ATTACK",
        help=f"names of attacks (default: all): {', '.join(map(repr, sorted(ATTACKS)))}",
    )
    parser.add_argument(
        "--no-build", action="store_true", help="image of the last run, not a new one"
    )
    args = parser.parse_args()

    # However it is ended, its container ends with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: sys.exit(f"ended by {signal.Signals(got).name}"))
    podman = podman_in(FOLDER)
    if not args.no_build:
        build(podman)
    result = Result(args.minutes, args.seed, args.workers)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        service = Contained(podman, Path(folder))
        stack.callback(service.close)
        try:
            Soak(service, args.only or sorted(ATTACKS), result).run()
        finally:
            result.kills = service.kills()
            if service.is_alive:
                result.stop_seconds = service.stop()
            result.exit_code = service.exit_code()
    SAMPLES.write_text("".join(f"{json.dumps(asdict(point))}\n" for point in result.points))
    print(result.table())
    print(result.to_json())
    return 1 if result.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
