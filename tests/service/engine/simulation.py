"""Many requests of many callers through the real Scheduler, on a clock of steps, without graphs.

    python -m tests.service.engine.simulation [--requests 1000000] [--seed 0]

Each mix of callers is checked: no stream is lost or served twice, rows are dense, whoever wants
more than its share gets its share, whoever wants less waits for a few steps, nobody starves.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.engine.fair_queue import LEAST_RUN, TURN
from service.engine.scheduler import Phase, PrefillPolicy, Prompt, ScheduledSequence, Scheduler
from service.engine.shares import Share

CAPACITY = 64
_SAMPLED_EVERY = 8  # steps
_SECONDS = 0.008  # that prefill may take between two steps
_TOKEN_SECONDS = 0.0001  # of prefill


@dataclass(frozen=True)
class Caller:
    """Keeps ``open`` requests open, and sends the next one so many steps after one has ended.

    tokens, prompt: the most of each request, from 1 and 0. priorities: one of them each.
    cancels: the share of its requests that it leaves while they run.
    """

    name: str
    open: int
    tokens: int
    weight: float = 1.0
    between: int = 0
    prompt: int = 0
    group: int = 1
    priorities: tuple[int, ...] = (0,)
    cancels: float = 0.0


@dataclass(eq=False, slots=True)
class Request(ScheduledSequence):
    """left: tokens to be made. ends: the step after which it has made them, while it runs."""

    caller: Caller = None  # type: ignore[assignment]
    left: int = 0
    ends: int = 0
    arrived: int = 0
    begun_at: int = -1
    leaves: int = 0


@dataclass
class Outcome:
    """What became of one caller's requests. waits: steps until each was begun. row_steps: rows
    times steps, sampled."""

    ended: int = 0
    waits: list[int] = field(default_factory=list)
    row_steps: int = 0
    by_priority: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def wait(self, share: float) -> int:
        ordered = sorted(self.waits) or [0]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Simulation:
    """One mix of callers until ``requests`` requests have ended."""

    def __init__(self, callers: Sequence[Caller], requests: int, seed: int = 0) -> None:
        self.callers, self.requests = callers, requests
        self.scheduler: Scheduler[Request] = Scheduler(CAPACITY, PrefillPolicy(whole=False))
        self.scheduler.cost.observe(1, 1, _TOKEN_SECONDS)
        self.outcomes = {caller.name: Outcome() for caller in callers}
        self.now = self.preemptions = self.ended = self.longest_wait = 0
        self._random = random.Random(seed)
        self._due: dict[int, list[Caller]] = defaultdict(list)  # by the step in which they send
        self._ends: dict[int, list[Request]] = defaultdict(list)
        self._leaves: dict[int, list[Request]] = defaultdict(list)
        self._sent: Counter[str] = Counter()
        self._groups: dict[Prompt, list[Request]] = {}

    def run(self) -> None:
        for caller in self.callers:
            self._due[0] += [caller] * caller.open
        while self.ended < self.requests:
            self._step()
        self._stop()

    def _step(self) -> None:
        for caller in self._due.pop(self.now, ()):
            self._send(caller)
        for request in self._leaves.pop(self.now, ()):
            if request.phase is not Phase.GONE:
                self._end(request)
        self._decode()
        if self.now % _SAMPLED_EVERY == 0:
            self._sample()
        self.now += 1

    def _decode(self) -> None:
        """What an engine does in a step."""
        scheduler = self.scheduler
        scheduler.begin_step()
        for request in scheduler.preemptions():
            assert request.group == 1
            assert request.phase is Phase.RUNNING
            assert self.now + 1 - request.since >= LEAST_RUN
            request.left = request.ends - self.now
            request.saved = {}
            scheduler.preempt(request)
            self.preemptions += 1
        plan = scheduler.schedule(_SECONDS)
        for request in plan.begins:
            assert request.begun_at < 0, "begun twice"
            request.begun_at = self.now
            outcome = self.outcomes[request.caller.name]
            outcome.waits.append(self.now - request.arrived)
            outcome.by_priority[request.share.priority].append(self.now - request.arrived)
        for chunk in plan.prefill:
            scheduler.prefilled(chunk)
        for request in plan.admits:
            assert request.prompt.left == 0
            scheduler.admit(request)
            request.saved = None
            request.ends = self.now + request.left
            self._ends[request.ends].append(request)
        for request in self._ends.pop(self.now + 1, ()):
            if request.phase is Phase.RUNNING and request.ends == self.now + 1:
                self._end(request)

    def _send(self, caller: Caller) -> None:
        choose = self._random
        share = Share(caller.name, caller.weight, choose.choice(caller.priorities))
        prompt = Prompt(range(choose.randint(0, caller.prompt)), caller.group)
        left = choose.randint(1, caller.tokens)
        group = [
            Request(prompt, caller.group, share=share, caller=caller, left=left, arrived=self.now)
            for _ in range(caller.group)
        ]
        self._sent[caller.name] += caller.group
        self._groups[prompt] = group
        for request in group:
            self.scheduler.arrive(request)
        if choose.random() < caller.cancels:
            self._leaves[self.now + choose.randint(1, 2 * caller.tokens)].append(group[0])

    def _end(self, request: Request) -> None:
        """All of its group leave."""
        group = self._groups.pop(request.prompt)
        for one in group:
            assert one.phase is not Phase.GONE, "ended twice"
            self.scheduler.leave(one)
        self.outcomes[request.caller.name].ended += len(group)
        self.ended += len(group)
        self._due[self.now + 1 + request.caller.between].append(request.caller)

    def _sample(self) -> None:
        scheduler = self.scheduler
        assert [r.row for r in scheduler.rows] == list(range(len(scheduler.rows))), "not dense"
        assert len(scheduler.rows) + len(scheduler.begun) <= CAPACITY
        for name, caller in scheduler._callers.items():
            self.outcomes[name].row_steps += caller.held * _SAMPLED_EVERY
            if caller.waiting and not caller.held:
                self.longest_wait = max(self.longest_wait, scheduler._now - caller.first.since)

    def _stop(self) -> None:
        """Nothing is lost: what has not ended is still there, once."""
        everyone = self.scheduler.everyone()
        left = Counter(request.caller.name for request in everyone)
        assert len(everyone) == len(set(everyone)), "in two places"
        for name, sent in self._sent.items():
            assert sent == self.outcomes[name].ended + left[name], f"{name} lost some"
        for request in everyone:
            self.scheduler.leave(request)
        assert self.scheduler.is_idle
        assert self.scheduler.free_rows == CAPACITY
        assert not self.scheduler._callers

    # -- what is promised -------------------------------------------------------------------------

    def assert_shares(self, names: Sequence[str], within: float) -> None:
        """The rows of these, for their weights, differ by this share at most."""
        weights = {caller.name: caller.weight for caller in self.callers}
        got = [self.outcomes[name].row_steps / weights[name] for name in names]
        assert max(got) <= (1 + within) * min(got), dict(zip(names, got, strict=True))

    def assert_waits(self, names: Sequence[str], share: float, steps: int) -> None:
        """So large a share of their requests began within so many steps."""
        for name in names:
            waited = self.outcomes[name].wait(share)
            assert waited <= steps, f"{name} waited for {waited} steps"


def greedy_and_polite(requests: int, seed: int) -> Simulation:
    polite = [Caller(f"polite{n}", 2, 12, between=9, prompt=20) for n in range(4)]
    simulation = Simulation([Caller("greedy", 900, 120), *polite], requests, seed)
    simulation.run()
    simulation.assert_waits([p.name for p in polite], 1.0, 2 * LEAST_RUN)
    return simulation


def weighted(requests: int, seed: int) -> Simulation:
    callers = [Caller(f"of{w}", 200, 80, weight=w, cancels=0.1) for w in (1.0, 2.0, 4.0)]
    simulation = Simulation(callers, requests, seed)
    simulation.run()
    simulation.assert_shares([caller.name for caller in callers], 0.1)
    return simulation


def priorities(requests: int, seed: int) -> Simulation:
    """The urgent of one caller's come first; another caller's share is none the less for it."""
    callers = [
        Caller("urgent", 400, 40, priorities=(0, 0, 0, 0, 0, 0, 0, 9)),
        Caller("other", 400, 40),
    ]
    simulation = Simulation(callers, requests, seed)
    simulation.run()
    simulation.assert_shares(["urgent", "other"], 0.1)
    waits = simulation.outcomes["urgent"].by_priority
    assert _mean(waits[9]) < 0.2 * _mean(waits[0])
    return simulation


def many_callers(requests: int, seed: int) -> Simulation:
    """More than there are rows, with streams longer than a turn: each has its turn."""
    callers = [Caller(f"one{n}", 1, 3 * TURN if n % 4 else 30) for n in range(4 * CAPACITY)]
    simulation = Simulation(callers, requests, seed)
    simulation.run()
    simulation.assert_waits([caller.name for caller in callers], 1.0, 6 * TURN)
    assert simulation.longest_wait <= 6 * TURN, f"one waited for {simulation.longest_wait} steps"
    return simulation


def groups(requests: int, seed: int) -> Simulation:
    """Streams that take rows together are neither split nor starved, and starve nobody."""
    callers = [
        Caller("beams", 40, 60, group=8),
        Caller("long prompts", 200, 60, prompt=800),
        *[Caller(f"some{n}", 30, 60) for n in range(20)],
        Caller("polite", 1, 12, between=9),
    ]
    simulation = Simulation(callers, requests, seed)
    simulation.run()
    simulation.assert_waits(["polite"], 0.9, 4 * LEAST_RUN)
    for name in ("beams", "long prompts"):
        assert simulation.outcomes[name].ended, f"{name} starved"
    return simulation


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


MIXES = (greedy_and_polite, weighted, priorities, many_callers, groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for mix in MIXES:
        started = time.perf_counter()
        simulation = mix(options.requests // len(MIXES), options.seed)
        seconds = time.perf_counter() - started
        print(
            f"{mix.__name__}: {simulation.ended} requests, {simulation.now} steps, "
            f"{simulation.preemptions} preemptions, longest wait without a row "
            f"{simulation.longest_wait} steps, {seconds:.1f} s"
        )
        for name, outcome in list(simulation.outcomes.items())[:5]:
            print(
                f"  {name}: {outcome.ended} ended, rows {outcome.row_steps / simulation.now:.1f}, "
                f"waited for {outcome.wait(0.5)} steps (p99 {outcome.wait(0.99)}, "
                f"most {outcome.wait(1.0)})"
            )


if __name__ == "__main__":
    main()
