"""Faults at named points, under random callers: every history is one that the promises allow.

`make robustness` draws many more of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import tiny
from tests.promise.processes import Watched
from tests.robustness import faults
from tests.robustness.callers import Caller, Way, all_of
from tests.robustness.checking import Model, not_released, violations
from tests.robustness.history import HANDED_OVER, History
from tests.robustness.requests import LETTERS, MOOD, SPELLER, TAGGER, VERSIONS, References

ROWS = 4  # fewer than callers
CALLERS = 8
IDLE_SECONDS = 1.0  # after which a sequence that was let be ends

# What meets each point, and is called until it has.
MEETS = {
    "engine.prefill": Caller.generate,
    "engine.decode": Caller.generate,
    "engine.predict": Caller.classify,
    "engine.deliver": Caller.classify,
    "resume.sign": Caller.generate,
    "resume.open": Caller.generate,
    "bundle.read": Caller.operate,
    "session.open": Caller.operate,
    "model.take_over": Caller.operate,
    "rpc.write": Caller.streamed_sequence,
}
# What meets each planted bug, and what is said of it.
FOUND: dict[str, tuple[Sequence[Way], str]] = {
    "drop_token": ([Caller.generate], "differs from token 7 on"),
    "keep_row": ([Caller.classify], "open work of"),
    "go_on_too_late": ([Caller.generate], "differs from token"),
    "stale_sequence": ([Caller.sequence], "no order of its requests"),
    "half_load": ([Caller.classify, Caller.tag], "found no model, and one was served throughout"),
}


class Build(Watched):
    """A test build of the service in a process of its own."""

    module = "tests.robustness.server"
    variables: ClassVar[dict[str, str]] = {"UNROLL_FAILPOINTS": "1"}

    def order(self, **what: Any) -> dict[str, Any]:
        return self.report(json.dumps(what))


@dataclass(frozen=True)
class Run:
    """What callers did. before: requests that the service had counted until then."""

    history: History
    before: float


@pytest.fixture(scope="module")
def models(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("robustness") / "models"
    for name in (LETTERS, SPELLER, TAGGER, MOOD):
        shutil.copytree(tiny_models / name, root / name)
    tiny.export(tiny.classifier(cell="gru"), root / MOOD / "2")
    return root


@pytest.fixture(scope="module")
def build(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Build]]:
    """Starts test builds that share their resume keys; all are stopped.

    step_seconds: that each decode step takes longer. idle_seconds: after which a sequence ends.
    """
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    with ExitStack() as stack:

        def start(step_seconds: float = 0.0005, idle_seconds: float = IDLE_SECONDS) -> Build:
            service = Build(
                tmp_path_factory.mktemp("build") / "log",
                models=models,
                resume_keys=keys,
                max_streams=ROWS,
                step_seconds=step_seconds,
                sequence_idle_seconds=idle_seconds,
                grace_seconds=0.2,
            )
            stack.enter_context(service)
            asyncio.run(_serve_all(service.target))
            return service

        yield start


async def _serve_all(target: str) -> None:
    async with Caller([target], "", History()) as caller:
        await caller.mend_all()


@pytest.fixture(scope="module")
def service(build: Callable[..., Build]) -> Build:
    return build()


@pytest.fixture(scope="module")
def spoilt(build: Callable[..., Build]) -> Build:
    """For bugs that are planted, some of which leave traces."""
    return build()


@pytest.fixture(scope="module")
def model(build: Callable[..., Build]) -> Iterator[Model]:
    references = References(build(idle_seconds=600.0).target, VERSIONS)
    yield Model(
        references.generated,
        references.tagged,
        references.classified,
        references.after,
        MOOD,
        frozenset(VERSIONS),
    )
    references.close()


async def disturb(service: Build, seed: str) -> None:
    """Arm one or two points after another until it is cancelled."""
    choose = random.Random(f"faults {seed}")
    while True:
        points = choose.sample(faults.WHILE_SERVING, choose.choice((1, 1, 2)))
        armed = {point: faults.draw(choose, point) for point in points}
        await asyncio.to_thread(service.order, arm=armed)
        await asyncio.sleep(choose.choice((0.05, 0.1, 0.2)))


async def run(
    service: Build, seed: str, count: int, ways: Sequence[Way] = (), with_faults: bool = True
) -> Run:
    """Some callers and an operator do ``count`` things each; then all is mended."""
    history, before = History(), service.order()["ended"]
    callers = [Caller([service.target], f"{seed} {number}", history) for number in range(CALLERS)]
    disturbing = asyncio.ensure_future(disturb(service, seed) if with_faults else asyncio.sleep(0))
    async with all_of(callers) as (operator, *others):
        try:
            await asyncio.gather(
                operator.operate(count), *(each.act(count, ways) for each in others)
            )
        finally:
            disturbing.cancel()
            await asyncio.wait((disturbing,))
            await asyncio.to_thread(service.order, arm={}, plant="")
        await operator.mend_all()
    return Run(history, before)


def found_wrong(service: Build, run: Run, model: Model, seconds: float = 20.0) -> list[str]:
    """seconds: in which the service is to have released everything."""
    most = len(run.history.calls)
    least = most - sum(call.may_be_unread for call in run.history.calls)
    seen = service.wait_until(
        lambda seen: seen["ended"] - run.before >= least and not not_released(seen), seconds
    )
    ended = int(seen["ended"] - run.before)
    is_counted = least <= ended <= most
    miscounted = [] if is_counted else [f"{least} to {most} requests were read, {ended} ended"]
    return [*violations(run.history, model), *not_released(seen), *miscounted]


@pytest.mark.timeout(3600)
def test_every_history_is_allowed(service, model, robustness):
    """Whatever fails wherever: tokens, states and loads are right or not there, and all ends."""
    counts: Counter[str] = Counter()
    for number in range(robustness.runs):
        seed = f"{robustness.name} {number}"
        done = asyncio.run(run(service, seed, robustness.things))
        counts.update(f"{call.kind} {call.status}" for call in done.history.calls)
        assert not (wrong := found_wrong(service, done, model)), (seed, wrong[:10])
    acted = service.order()["acted"]
    robustness.report(
        f"robustness: {', '.join(f'{counts[what]} {what}' for what in sorted(counts))}"
    )
    robustness.report(f"  faults: {', '.join(f'{acted[p]} {p}' for p in sorted(acted))}")
    assert acted


@pytest.mark.parametrize("point", MEETS)
def test_a_failure_at_a_point_is_reported_once_and_leaves_nothing(service, model, point):
    """The one who meets it gets an answer or an error, the model loads anew, all is released."""

    async def meet() -> Run:
        history, before = History(), service.order()["ended"]
        async with Caller([service.target], point, history) as caller:
            service.order(arm={point: {"after": 0, "seconds": 0.0, "raises": True}})
            while service.order()["armed"]:
                await MEETS[point](caller)
            service.order(arm={})
            await caller.mend_all()
        return Run(history, before)

    assert found_wrong(service, asyncio.run(meet()), model) == []


@pytest.mark.parametrize("raises", [True, False])
def test_streams_that_are_handed_over_under_faults_go_on_exactly(build, service, model, raises):
    """Also where the hand-over itself fails: then they go on from their last resume token."""
    stopping, history = build(step_seconds=0.004), History()
    fault = {"after": 0, "seconds": 0.0 if raises else 0.05, "raises": raises}
    stopping.order(arm={"engine.hand_over": fault})
    targets = [stopping.target, service.target]

    async def move() -> None:
        callers = [Caller(targets, f"move {number}", history) for number in range(CALLERS)]
        async with all_of(callers):
            acting = [
                asyncio.ensure_future(caller.act(4, [Caller.generate, Caller.tag]))
                for caller in callers
            ]
            await asyncio.to_thread(stopping.wait_until, all_rows_are_allocated, 20.0)
            await asyncio.to_thread(stopping.order, hand_over=True)
            await asyncio.gather(*acting)

    asyncio.run(move())
    seen = service.wait_until(lambda seen: not not_released(seen), 20.0)
    assert [*violations(history, model, while_stopping=True), *not_released(seen)] == []
    assert raises or any(call.status == HANDED_OVER for call in history.calls)


def all_rows_are_allocated(seen: dict[str, Any]) -> bool:
    return bool(seen["models"][LETTERS]["running"] == ROWS)


@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(spoilt, model, bug):
    """By what it does, within a few histories."""
    ways, said = FOUND[bug]
    for number in range(8):
        spoilt.order(plant=bug)
        done = asyncio.run(run(spoilt, f"{bug} {number}", 6, ways, with_faults=False))
        wrong = found_wrong(spoilt, done, model, 2 * IDLE_SECONDS)
        if any(said in line for line in wrong):
            return
    raise AssertionError(f"{bug} was not found; found were {wrong}")
