"""Mutated messages to every method: no crash, no hang, no leak, no answer changed.

`make fuzz` sends ten times as many.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.drawing import Drawing
from tests.fuzz.inference_seeds import changing_seeds, inference_seeds
from tests.fuzz.loading import load_again, load_all
from tests.fuzz.sending import Sender
from tests.fuzz.unroll_seeds import state_seeds, unroll_seeds
from tests.fuzz.witnesses import call_all, seeds_from_answers
from tests.promise.processes import Watched

ROWS = 16
ROUNDS = 5
AT_ONCE = 24
SETTINGS = {
    "max_streams": ROWS, "max_queue": 400, "threads": 1, "max_sequences": 40,
    "sequence_idle_seconds": 0.5,
}  # fmt: skip
# What a log holds only when something went wrong inside the server.
FAULTS = re.compile("Traceback|failed|never retrieved|Exception")
# What a service may grow by after its first round, garbage and free pages not counted: grpc
# itself keeps some hundred bytes of a call that ends while it is read or written.
RESIDENT_BYTES = 30e6


class Fuzzing:
    """A service under mutated messages, and what was seen of it.

    witnesses: calls that must be answered alike whenever they are called.
    """

    def __init__(self, loop: asyncio.Runner, watched: Watched, log: Path, name: str) -> None:
        self.loop, self.watched, self.log = loop, watched, log
        self.witnesses = [*unroll_seeds(), *inference_seeds()]
        self.expected = self._call_witnesses()
        further = loop.run(seeds_from_answers(watched.target, self.witnesses))
        self.drawing = Drawing(name, [*self.witnesses, *further, *changing_seeds(), *state_seeds()])
        self.sender = Sender(watched.target, AT_ONCE, load_again)
        self.resident: list[int] = []

    def _call_witnesses(self) -> list[bytes]:
        return self.loop.run(call_all(self.watched.target, self.witnesses))

    def round(self, messages: int) -> None:
        """Send so many mutated messages; then everything must be as it was."""
        first = self.sender.calls
        self.loop.run(self.sender.send_all(self.drawing.calls(messages, first)))
        assert not self.sender.findings, self._finding_text(self.sender.findings)
        self._check_log(first)
        self.loop.run(load_all(self.watched.target))
        self.watched.check_all_is_released()
        self._check_witnesses()
        self.resident.append(self.watched.report("memory")["resident"])

    def _check_log(self, first: int) -> None:
        logged = self.log.read_text()
        since = f"calls {first} to {self.sender.calls - 1}"
        assert not FAULTS.search(logged), f"{since} had the server log:\n{logged[-20_000:]}"

    def _check_witnesses(self) -> None:
        answers = zip(self.witnesses, self.expected, self._call_witnesses(), strict=True)
        changed = [seed for seed, expected, found in answers if found != expected]
        assert not changed, f"answered otherwise than before: {changed}"

    def _finding_text(self, findings: list[str]) -> str:
        """The first few; all of them, however long, go into a file beside the log."""
        path = self.log.with_name("findings.txt")
        path.write_text("\n".join(findings))
        few = "\n".join(finding[:1000] for finding in findings[:5])
        return f"{len(findings)} calls of {self.drawing.name}, all in {path}:\n{few}"


def _counts_by_status(statuses: Counter[tuple[str, str]]) -> str:
    total: Counter[str] = Counter()
    for (_, status), count in statuses.items():
        total[status] += count
    return ", ".join(f"{count} {status}" for status, count in total.most_common())


@pytest.mark.timeout(3600)
def test_mutated_messages_break_nothing(fuzzed_models: Path, tmp_path: Path, fuzz: Any) -> None:
    """Every call ends in time with a status that says what to do, and leaves nothing behind."""
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    with (
        asyncio.Runner() as loop,
        Watched(log, models=fuzzed_models, resume_keys=keys, **SETTINGS) as watched,
    ):
        fuzzing = Fuzzing(loop, watched, log, fuzz.name)
        for _ in range(ROUNDS):
            fuzzing.round(fuzz.messages // ROUNDS)
        rows = watched.report()["models"]
    sender, resident = fuzzing.sender, fuzzing.resident
    grown = resident[-1] - resident[0]
    fuzz.report(
        f"fuzz: {sender.mutated} mutated messages in {sender.calls} calls, {sender.readable} "
        f"messages still; {_counts_by_status(sender.statuses)}; {grown / 1e6:+.1f} MB resident"
    )
    assert sender.mutated >= fuzz.messages
    assert sender.readable >= sender.mutated / 2
    for name, model in rows.items():
        assert model["allocated"] == model["freed"] > 0, name
        faults = [model[what] for what in ("dirty_rows", "canaries_read", "spoilt_rows")]
        assert not any(faults), (name, model)
    assert grown < RESIDENT_BYTES
