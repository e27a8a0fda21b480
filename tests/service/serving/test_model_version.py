from types import SimpleNamespace

import pytest

from service.engine.errors import EngineFailed
from service.engine.step_engine import RequestState
from service.serving.model_version import ServedVersion
from service.serving.request_timing import ENGINE_TIMES
from service.serving.statistics import Duration
from tests.service.engine.fakes import card


class Ticking:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def answered(**times):
    return RequestState(None, None, 0.0, finished=0.0, **times)


def make_version(freed=None, threads=(), clock=None):
    model = SimpleNamespace(card=card("toy", "classify"))
    freed = [] if freed is None else freed
    return ServedVersion(model, threads=threads, on_free=freed.append, clock=clock or Ticking())


def test_a_retired_version_is_free_once_its_last_user_gives():
    freed = []
    version = make_version(freed)
    version.take()
    version.take()
    version.retire()
    version.give()
    assert freed == []
    version.give()
    assert (freed, version.is_retired) == ([version], True)


def test_a_version_that_nobody_uses_is_free_when_it_is_retired():
    freed = []
    version = make_version(freed)
    version.retire()
    version.retire()
    assert freed == [version]


def test_a_version_in_use_can_be_taken_again_after_it_was_retired():
    """A sequence holds it, and each of its requests takes it too."""
    freed = []
    version = make_version(freed)
    version.take()
    version.retire()
    with version.call():
        assert freed == []
    version.give()
    assert freed == [version]


def test_nobody_notices_a_takeover_and_everybody_of_an_unload_once():
    recorded = []
    version = make_version()
    version.when_withdrawn(lambda: recorded.append("a"))
    forget = version.when_withdrawn(lambda: recorded.append("b"))
    version.take()
    version.retire()
    assert recorded == []
    forget()
    version.withdraw()
    version.withdraw()
    assert recorded == ["a"]


def test_whoever_asks_after_the_unload_learns_at_once():
    recorded = []
    version = make_version()
    version.take()
    version.withdraw()
    forget = version.when_withdrawn(lambda: recorded.append("late"))
    forget()
    assert recorded == ["late"]


def test_who_gives_because_of_an_unload_frees_it_once():
    """A sequence ends when it learns of the unload, and its use with it."""
    freed = []
    version = make_version(freed)
    version.take()
    version.when_withdrawn(version.give)
    version.withdraw()
    assert freed == [version]


def test_a_call_counts_with_what_it_says_of_itself():
    clock = Ticking()
    version = make_version(clock=clock)
    with version.call() as call:
        assert (call.model, version.users) == (version.model, 1)
        call.inferences, call.input_seconds, call.output_seconds = 5, 0.25, 0.5
        ENGINE_TIMES.get().add_stream(answered(queue_seconds=0.125, compute_seconds=1.0))
        clock.now += 2.0
    seen = version.statistics.snapshot()
    assert (seen.success, seen.inference_count) == (Duration(1, 2 * 10**9), 5)
    assert (seen.compute_input.nanoseconds, seen.compute_output.nanoseconds) == (
        250_000_000,
        500_000_000,
    )
    assert seen.queue == Duration(1, 125_000_000)
    assert seen.compute_infer == Duration(1, 10**9)
    assert ENGINE_TIMES.get() is None, "what follows in its task is not the call's"
    assert version.users == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_call_that_ends_otherwise_has_failed(error):
    clock = Ticking()
    version = make_version(clock=clock)

    def fail():
        with version.call() as call:
            call.inferences = 5
            ENGINE_TIMES.get().add_stream(answered(queue_seconds=0.125, compute_seconds=1.0))
            clock.now += 1.0
            raise error

    with pytest.raises(error):
        fail()
    seen = version.statistics.snapshot()
    assert (seen.fail, seen.success, seen.inference_count) == (Duration(1, 10**9), Duration(), 0)
    assert seen.queue == seen.compute_infer == Duration()
    assert version.users == 0


def test_a_version_has_failed_as_soon_as_one_of_its_engines_has():
    threads = [SimpleNamespace(failure=None), SimpleNamespace(failure=None)]
    version = make_version(threads=threads)
    assert not version.has_failed
    threads[1].failure = EngineFailed("broken")
    assert version.has_failed
