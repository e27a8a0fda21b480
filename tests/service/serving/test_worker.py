import queue
from dataclasses import replace

import pytest

from service.engine.errors import EngineFailed, QueueFull, ServiceStopping
from service.engine.requests import Failed, Finished, FinishReason, ResumePolicy
from service.serving.worker import EngineThread
from tests.service.engine.fakes import make_engine, request


@pytest.fixture
def recorded():
    return queue.Queue()


@pytest.fixture
def start(recorded):
    threads = []

    def failures():
        recorded.put(("thread", "failed"))

    def make(engine, limit=4):
        thread = EngineThread("toy", "test", engine, limit, lambda sinks: None, failures)
        threads.append(thread)
        thread.start()
        return thread

    yield make
    for thread in threads:
        thread.stop()


class Mailbox:
    """A sink that posts what it gets under its name."""

    unread_since = None
    tokens_at_once = 1

    def __init__(self, recorded, name):
        self.recorded, self.name = recorded, name

    def put(self, event):
        self.recorded.put((self.name, event))

    def mark_if_full(self):
        return False


@pytest.fixture
def to(recorded):
    return lambda name: Mailbox(recorded, name)


def wait_for_end(recorded, sink):
    while True:
        found, event = recorded.get(timeout=10)
        if found == sink and isinstance(event, Finished | Failed):
            return event


def test_work_is_done_and_released(start, recorded, to):
    thread = start(make_engine())
    work = thread.submit(request(), to("a"))
    assert isinstance(wait_for_end(recorded, "a"), Finished)
    thread.release(work)


def test_what_a_turn_of_the_loop_has_reaches_the_engine_together(recorded, to):
    """In its order, and at once where the thread is to end."""
    engine, due = make_engine(), []
    thread = EngineThread("toy", "test", engine, 4, lambda _: None, lambda: None, None,
                          call_soon=due.append)  # fmt: skip
    works = [thread.submit(request(), to(name)) for name in "abc"]
    thread.release(works[0])
    assert (thread._inbox.qsize(), len(due)) == (0, 1)
    due.pop()()
    arrive, cancel = thread._arrive, engine.cancel
    assert thread._inbox.get() == [*((arrive, work) for work in works), (cancel, works[0])]
    thread.submit(request(), to("late"))
    thread.close()
    assert [len(thread._inbox.get()), thread._inbox.qsize()] == [2, 0]


def test_work_that_has_ended_is_not_cancelled(recorded, to):
    thread = EngineThread("toy", "test", make_engine(), 4, lambda _: None, lambda: None)
    work = thread.submit(request(), to("a"))
    thread._inbox.get()
    thread.release(work, has_ended=True)
    assert (thread._inbox.qsize(), thread.open_work) == (0, 0)


def test_a_full_queue_refuses_and_says_when_to_come_back(start, recorded, to):
    """As many as the limit are open at once; each one that ends makes room."""
    thread = start(make_engine(), limit=2)
    first = thread.submit(request(), to("a"))
    thread.submit(request(), to("b"))
    with pytest.raises(QueueFull, match="try again later") as caught:
        thread.submit(request(), to("c"))
    assert caught.value.retry_after_seconds > 0
    wait_for_end(recorded, "a")
    thread.release(first)
    thread.submit(request(), to("c"))
    assert isinstance(wait_for_end(recorded, "c"), Finished)


def test_releasing_what_runs_cancels_it(start, recorded, to):
    engine = make_engine(capacity=1)
    thread = start(engine)
    endless = thread.submit(request(max_tokens=10**9), to("endless"))
    recorded.get(timeout=10)
    thread.release(endless)
    thread.submit(request(max_tokens=2), to("next"))
    assert isinstance(wait_for_end(recorded, "next"), Finished)


def test_a_broken_engine_ends_its_streams_and_takes_no_more(start, recorded, to, caplog):
    """The failure is logged, every stream gets an error, and later requests are refused at once."""
    engine = make_engine()
    thread = start(engine)
    thread.submit(request(max_tokens=10**9), to("running"))
    recorded.get(timeout=10)
    engine.runner.fail_next = True
    events = [recorded.get(timeout=10)]
    while events[-1][0] != "thread":
        events.append(recorded.get(timeout=10))
    event = wait_for_end(recorded, "running")
    assert "the engine of model 'toy' failed" in str(event.error)
    with pytest.raises(EngineFailed, match="see the server's log"):
        thread.submit(request(), to("late"))
    assert "the kernel broke" in caplog.text


def test_a_request_that_cannot_be_begun_fails_alone(start, recorded, to, caplog):
    """Its streams are built on the engine's thread, where others run."""
    thread = start(make_engine())
    thread.submit(request(max_tokens=60), to("running"))
    broken = thread.submit(replace(request(), tokens=()), to("broken"))
    event = wait_for_end(recorded, "broken")
    assert "could not be begun" in str(event.error)
    assert isinstance(wait_for_end(recorded, "running"), Finished)
    thread.release(broken)
    thread.submit(request(max_tokens=2), to("later"))
    assert isinstance(wait_for_end(recorded, "later"), Finished)
    assert "a request to model toy could not be begun" in caplog.text


def test_an_answer_is_delivered_though_the_engine_breaks_right_after_it(recorded, to):
    """What ended in the last step is no work of the engine's any more, and its reader waits."""
    delivered, failures = queue.Queue(), [ValueError("no reader is woken")]

    def deliver(sinks):
        if failures:
            raise failures.pop()
        delivered.put([sink.name for sink in sinks])

    thread = EngineThread("toy", "test", make_engine(), 4, deliver, lambda: None)
    thread.start()
    thread.submit(request(max_tokens=1), to("a"))
    assert isinstance(wait_for_end(recorded, "a"), Finished)
    assert delivered.get(timeout=10) == ["a"]
    thread.stop()


def test_stopping_ends_whoever_still_runs(start, recorded, to):
    thread = start(make_engine())
    thread.submit(request(max_tokens=10**9), to("running"))
    recorded.get(timeout=10)
    thread.stop()
    assert isinstance(wait_for_end(recorded, "running").error, ServiceStopping)


def test_work_on_its_way_to_a_broken_engine_is_reported_too(start, recorded, to):
    """A request that was let in just before the failure is not left waiting for ever."""
    engine = make_engine()
    thread = start(engine)
    engine.runner.fail_next = True
    thread.submit(request(), to("first"))
    wait_for_end(recorded, "first")
    thread.failure, failure = None, thread.failure
    thread.submit(request(), to("second"))
    assert wait_for_end(recorded, "second") == Failed(failure)


def test_large_work_is_let_in_when_nothing_else_is_open(start, recorded, to):
    """One request above the limit is not refused for ever; beside others it waits its turn."""
    thread = start(make_engine(), limit=2)
    large = thread.submit(request(), to("large"), size=5)
    with pytest.raises(QueueFull):
        thread.submit(request(), to("small"))
    wait_for_end(recorded, "large")
    thread.release(large)
    assert thread.open_work == 0


def test_work_for_a_thread_that_was_closed_is_refused_at_once(start, recorded, to):
    """Nobody would ever answer it. What was let in before gets an error."""
    thread = start(make_engine())
    thread.submit(request(max_tokens=10**9), to("running"))
    thread.close()
    with pytest.raises(ServiceStopping, match="'toy' has stopped; send the request again"):
        thread.submit(request(), to("late"))
    thread.join()
    assert isinstance(wait_for_end(recorded, "running").error, ServiceStopping)
    assert thread.open_work == 1


def test_work_that_comes_after_the_rest_was_handed_over_is_refused(start, recorded, to):
    """Nothing would hand it over: it would run until it is cut off."""
    thread = start(make_engine())
    running = request(max_tokens=10**9, checkpoints=ResumePolicy(on_stop=True))
    thread.submit(running, to("running"))
    recorded.get(timeout=10)
    thread.hand_over()
    with pytest.raises(ServiceStopping, match="send the request to another one"):
        thread.submit(running, to("late"))
    assert wait_for_end(recorded, "running").reason is FinishReason.HANDED_OVER
    assert thread.open_work == 1


def test_a_thread_that_never_ran_can_be_stopped(to):
    thread = EngineThread("toy", "test", make_engine(), 4, lambda sinks: None, lambda: None)
    thread.stop()
    with pytest.raises(ServiceStopping):
        thread.submit(request(), to("late"))
