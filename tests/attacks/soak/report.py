"""What a soak came to: a table for people, a line of JSON, and what did not hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.attacks.harness import MEBIBYTE, Seen
from tests.attacks.soak.catalogue import ATTACKS
from tests.attacks.soak.container import STOP_SECONDS
from tests.attacks.soak.sampling import Point
from tests.attacks.soak.schedule import never_run

# RSS at the end beyond that of the start.
GROWTH_BYTES = 200 * MEBIBYTE


@dataclass
class Tally:
    """What came of the runs of one attack. trouble: of the attack itself, not of the service."""

    runs: int = 0
    seconds: float = 0.0
    got: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)


@dataclass
class WitnessTally:
    """What the witness saw over all of its reports."""

    calls: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    lag: float = 0.0
    failed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        self.calls.update(seen.calls)
        for kind, seconds in seen.slowest.items():
            self.slowest[kind] = max(seconds, self.slowest.get(kind, 0.0))
        self.lag = max([self.lag, *seen.lags])
        self.failed += seen.failed
        self.differing += seen.differing


@dataclass
class Result:
    """minutes, seed, workers: as requested. not_back: what was not released; empty for nothing.

    grew: how much each counter did. ended_early: the end of its log, where it ended by itself;
    stop_seconds: None there. kills: by the kernel, for want of memory.
    """

    minutes: float
    seed: int
    workers: int
    rounds: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    witness: WitnessTally = field(default_factory=WitnessTally)
    points: Sequence[Point] = ()
    end: Point | None = None
    grew: dict[str, float] = field(default_factory=dict)
    not_back: str = ""
    ended_early: str = ""
    exit_code: int | None = None
    stop_seconds: float | None = None
    kills: int = 0

    def failures(self) -> list[str]:
        """What did not hold; empty for a soak that was passed."""
        found = self._of_the_process() + self._of_the_witness()
        for name, tally in self.tallies.items():
            found += [f"{name}: got {status}" for status in ATTACKS[name].unexpected(tally.got)]
            found += [f"{name}: {trouble}" for trouble in tally.trouble[:3]]
        runs = {name: tally.runs for name, tally in self.tallies.items()}
        return found + [f"{name}: was never run" for name in never_run(self.tallies, runs)]

    def _of_the_process(self) -> list[str]:
        found = []
        if self.kills:
            found.append(f"{self.kills} processes killed for want of memory")
        if self.ended_early:
            return [*found, f"it ended amid the attacks: {self.ended_early}"]
        if self.end and self.points and self._growth() > GROWTH_BYTES:
            found.append(f"RSS grew by {self._growth() / 1e6:.0f} MB")
        found += [self.not_back] if self.not_back else []
        if self.exit_code != 0:
            found.append(f"exit code {self.exit_code}")
        if self.stop_seconds is None or self.stop_seconds > STOP_SECONDS:
            found.append("it had to be killed")
        return found

    def _of_the_witness(self) -> list[str]:
        witness = self.witness
        found = [f"witness: other bits of {kind}" for kind in sorted(set(witness.differing))]
        if witness.failed:
            found.append(f"witness: {len(witness.failed)} failed, such as {witness.failed[0]}")
        if not witness.calls or not all(witness.calls.values()):
            found.append(f"witness: kinds without an answer among {dict(witness.calls)}")
        return found

    def floors(self) -> list[int]:
        """Of each minute, the least RSS in bytes: what only ever grows is seen here."""
        minutes: dict[int, int] = {}
        for point in self.points:
            minute, resident = int(point.seconds // 60), point.resident_bytes
            minutes[minute] = min(resident, minutes.get(minute, resident))
        return list(minutes.values())

    def _growth(self) -> int:
        assert self.end is not None, "the caller looks"
        return self.end.resident_bytes - self.points[0].resident_bytes

    # -- as text ----------------------------------------------------------------------------

    def table(self) -> str:
        lines = [*self._usage_lines(), "", *self._witness_lines(), "", *self._attack_lines(), ""]
        lines += [f"{name} grew by {amount:g}" for name, amount in sorted(self.grew.items())]
        stop = "did not stop" if self.stop_seconds is None else f"in {self.stop_seconds:.1f} s"
        lines.append(f"exit code {self.exit_code}, {stop}")
        lines += ["", *(f"FAILED  {failure}" for failure in self.failures())]
        return "\n".join(lines)

    def _usage_lines(self) -> list[str]:
        def line(name: str, of: Callable[[Point], float], unit: str = "") -> str:
            ends = [self.points[0], self.end or self.points[-1]]
            start, end = map(of, ends)
            return f"{name:<14}{start:>9.0f}{max(map(of, self.points)):>9.0f}{end:>9.0f} {unit}"

        if not self.points:
            return []
        return [
            f"{'':<14}{'start':>9}{'peak':>9}{'end':>9}",
            line("RSS", lambda p: p.resident_bytes / 1e6, "MB"),
            line("cgroup", lambda p: p.cgroup_bytes / 1e6, "MB"),
            line("files", lambda p: p.files),
            line("threads", lambda p: p.threads),
            line("CPU", lambda p: p.cpu, "s"),
            line("stage", lambda p: p.stage or 0),
            line("budget used", lambda p: (p.budget_bytes or 0) / 1e6, "MB"),
            "least RSS of each minute, MB: "
            + " ".join(f"{least / 1e6:.0f}" for least in self.floors()),
        ]

    def _witness_lines(self) -> list[str]:
        lines = [f"{'witness':<24}{'calls':>8}{'slowest':>9}"]
        for kind, calls in self.witness.calls.items():
            lines.append(f"{kind:<24}{calls:>8}{self.witness.slowest[kind]:>8.2f} s")
        return [*lines, f"{'event loop':<32}{self.witness.lag:>8.2f} s"]

    def _attack_lines(self) -> list[str]:
        lines = [f"{'attack':<36}{'runs':>5}{'s each':>8}  got"]
        for name, tally in sorted(self.tallies.items()):
            got = ", ".join(f"{count} {status}" for status, count in tally.got.most_common())
            each = tally.seconds / max(1, tally.runs)
            lines.append(f"{name:<36}{tally.runs:>5}{each:>8.1f}  {got}")
        return lines

    def to_json(self) -> str:
        peak = max((point.resident_bytes for point in self.points), default=0)
        start, end = (self.points[0] if self.points else None), self.end
        facts: dict[str, Any] = {
            "minutes": self.minutes,
            "seed": self.seed,
            "workers": self.workers,
            "rounds": self.rounds,
            "rss_bytes": {
                "start": start and start.resident_bytes,
                "peak": peak,
                "end": end and end.resident_bytes,
                "least_of_each_minute": self.floors(),
            },
            "witness": {
                "calls": dict(self.witness.calls),
                "slowest_seconds": self.witness.slowest,
                "event_loop_seconds": self.witness.lag,
                "failed": len(self.witness.failed),
                "differing": len(self.witness.differing),
            },
            "attacks": {
                name: {"runs": tally.runs, "got": dict(tally.got)}
                for name, tally in sorted(self.tallies.items())
            },
            "grew": self.grew,
            "not_back": self.not_back,
            "oom_kills": self.kills,
            "exit_code": self.exit_code,
            "stop_seconds": self.stop_seconds,
            "failures": self.failures(),
        }
        return json.dumps(facts)
