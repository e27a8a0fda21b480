"""What a version's statistics say after calls over the wire."""

import threading
import time

import grpc
import pytest

from service.serving.control_types import VersionPolicy
from tests.reweighing import reweigh
from unroll import Client, RequestFailed
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

WORDS = ["good", "bad", "food", "the", "is", "not", "was", "great"]


@pytest.fixture
def service(start_service):
    return start_service()


@pytest.fixture
def client(service):
    with Client(service.target, timeout=30) as client:
        yield client


async def _snapshot(registry, name, version):
    return registry.find(name, version).statistics.snapshot()


def statistics(service, name, version=""):
    return service.run(_snapshot(service.app.registry, name, version))


def rows_of(seen):
    """Of all executions together."""
    return sum(rows * ran.count for rows, ran in seen.batches.items())


def test_calls_of_several_texts_are_counted_as_calls_and_as_inputs(service, client):
    before = time.time() * 1000
    for number in range(5):
        client.classify("mood", WORDS[:3] if number % 2 else WORDS[3:6])
    seen = statistics(service, "mood")
    assert (seen.success.count, seen.fail.count) == (5, 0)
    assert seen.inference_count == rows_of(seen) == 15
    assert seen.queue.count == seen.compute_infer.count == seen.compute_input.count == 5
    assert seen.execution_count == sum(ran.count for ran in seen.batches.values()) >= 5
    ran = sum(ran.nanoseconds for ran in seen.batches.values())
    assert 0 < ran <= seen.compute_infer.nanoseconds < seen.success.nanoseconds
    assert before <= seen.last_inference_ms <= time.time() * 1000


def test_calls_that_come_together_share_batches_and_lose_no_row(service):
    start = threading.Barrier(8)

    def call():
        with Client(service.target, timeout=30) as client:
            start.wait(20)
            for _ in range(5):
                client.classify("mood", WORDS)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    seen = statistics(service, "mood")
    assert seen.success.count == seen.queue.count == 40
    assert seen.inference_count == rows_of(seen) == 40 * len(WORDS)


def test_a_stream_is_one_request_and_each_of_its_steps_an_execution(service, client):
    list(client.generate("letters", prompt="abc", max_tokens=20))
    seen = statistics(service, "letters")
    assert (seen.success.count, seen.inference_count, seen.queue.count) == (1, 1, 1)
    assert (seen.execution_count, list(seen.batches)) == (20, [1])
    assert seen.batches[1].nanoseconds > 0
    assert seen.compute_infer.nanoseconds > 0
    assert seen.queue.nanoseconds + seen.compute_infer.nanoseconds < seen.success.nanoseconds


def test_scores_and_streams_of_a_model_are_counted_together(service, client):
    client.score("letters", ["abc", "abcd"])
    list(client.generate("letters", prompt="abc", max_tokens=5, samples=3))
    seen = statistics(service, "letters")
    assert (seen.success.count, seen.inference_count, seen.queue.count) == (2, 3, 2)
    assert seen.batches[3].count == 5
    assert rows_of(seen) == 2 + 3 * 5


def test_every_kind_of_call_is_counted(service, client):
    client.fill("blank", ["the ___ was good", "not ___"])
    client.tag("tags-online", ["the food", "is good"])
    list(client.stream_tag("tags-online", ["the food", "is good"]))
    list(client.generate("speller", source="abc", max_tokens=5))
    seen = {name: statistics(service, name) for name in ("blank", "tags-online", "speller")}
    counts = {name: (s.success.count, s.inference_count) for name, s in seen.items()}
    assert counts == {"blank": (1, 2), "tags-online": (2, 3), "speller": (1, 1)}
    assert all(s.queue.count == s.compute_infer.count for s in seen.values())
    tags = seen["tags-online"]
    assert rows_of(tags) == 2 + 4, "two texts as a whole, four words one by one"
    assert tags.queue.count == 2, "a stream is one, however often it is pushed to"
    assert tags.queue.nanoseconds + tags.compute_infer.nanoseconds < tags.success.nanoseconds


def test_what_looks_ahead_and_embeds_is_counted(service, client):
    client.score("letters", ["abc", "b"], choices=["a", "b", "cd"])
    client.embed("letters", ["abc", "abcd", "a"])
    seen = statistics(service, "letters")
    assert (seen.success.count, seen.inference_count) == (2, 5)
    assert rows_of(seen) == 1 + 6 + 3, "a text that is read before, each choice, each embedding"


def test_refused_and_cancelled_calls_have_failed(service, client):
    with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
        client.classify("mood", [])
    with pytest.raises(RequestFailed, match="call Classify"):
        list(client.generate("mood", prompt="good"))
    with grpc.insecure_channel(service.target) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        held = _held(service)
        call = stub.Classify.future(pb.ClassifyRequest(model="mood", texts=["good"]))
        assert held.wait(10)
        call.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()
    service.run(service.app.inflight.wait_until_empty(10))
    engine = service.app.registry.get("mood").thread.engine
    deadline = time.monotonic() + 10
    while not engine.is_idle and time.monotonic() < deadline:  # its caller does not wait for it
        time.sleep(0.01)
    seen = statistics(service, "mood")
    assert (seen.fail.count, seen.success.count) == (2, 0), "another kind of call is no call of it"
    assert (seen.inference_count, seen.execution_count) == (0, 1), "one was run, for nobody"
    assert seen.queue.count == seen.compute_infer.count == seen.compute_output.count == 0


def _held(service):
    """Have mood's engine wait until its caller has left; set once it has begun."""
    thread = service.app.registry.get("mood").thread
    begun, released = threading.Event(), threading.Event()
    step, cancel = thread.engine.step, thread.release

    def held_step():
        begun.set()
        assert released.wait(10)
        return step()

    def release(work, has_ended=False):
        cancel(work, has_ended)
        released.set()

    thread.engine.step, thread.release = held_step, release
    return begun


def test_each_version_has_statistics_of_its_own_and_a_kept_one_goes_on(start_service, models_copy):
    service = start_service(models=models_copy)
    reweigh(models_copy / "mood" / "1", models_copy / "mood" / "2")
    with Client(service.target, timeout=30) as client:
        client.classify("mood", ["good"])
        service.run(service.app.control.load("mood", VersionPolicy(all=True)))
        client.classify("mood", ["good"], version="1")
        client.classify("mood", ["good", "bad"])
    assert statistics(service, "mood", "1").success.count == 2
    assert statistics(service, "mood", "2").inference_count == 2
