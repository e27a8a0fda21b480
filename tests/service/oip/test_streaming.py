"""ModelStreamInfer: many requests on one call, each with a stream of its own."""

import asyncio
import queue
import time
from collections import defaultdict
from contextlib import suppress

import grpc
import pytest

from service.access.admission import AdmissionControl
from service.access.inflight import InflightTracker
from service.access.memory_budget import MemoryBudget
from service.engine.decode import GenerateEngine
from service.oip.infer import InferHandler
from service.oip.streaming import MOST_AT_ONCE, InferStream
from service.serving.named_states import NamedStates
from service.serving.registry import ModelRegistry
from service.serving.sequences import Sequences
from service.tasks.registry import adapters_of
from tests.service.grpc.test_service import wait_until
from tests.service.oip.calls import Inference, ask, read
from unroll import Sampling
from unroll.inference import grpc_service_pb2 as pb
from unroll.v1 import unroll_pb2 as unroll_pb
from unroll.v1 import unroll_pb2_grpc

FINAL = "triton_final_response"
EMPTY = {"triton_enable_empty_final_response": True}


def letters(number, seed=None, count=12, **parameters):
    said = {"max_tokens": count, "seed": number if seed is None else seed, "temperature": 1.0}
    return ask("letters", {"prompt": ["abc"]}, id=str(number), parameters=said | parameters)


def by_id(responses):
    """Of each request its answers; an error is a text."""
    found = defaultdict(list)
    for response in responses:
        found[response.infer_response.id].append(response.error_message or response.infer_response)
    return dict(found)


def text_of(answers):
    return "".join(read(answer)["text"][0] for answer in answers if answer.outputs)


def finals(answers):
    return [answer.parameters[FINAL].bool_param for answer in answers]


@pytest.fixture
def whole(caller):
    def text(seed, count=12):
        pieces = caller.generate(
            "letters", prompt="abc", max_tokens=count, sampling=Sampling(seed=seed, temperature=1.0)
        )
        return "".join(piece.text for piece in pieces)

    return text


def test_each_token_is_an_answer_and_the_last_one_is_final(inference, whole):
    answers = by_id(inference.stream(letters(7)))["7"]
    assert text_of(answers) == whole(7)
    assert [read(answer)["tokens"].size for answer in answers] == [1] * 12
    assert finals(answers) == [False] * 11 + [True]
    reasons = [read(answer)["finish_reason"][0] for answer in answers]
    assert reasons == [""] * 11 + ["length"]
    assert answers[0].parameters["seed"].string_param == "7"
    assert "seed" not in answers[1].parameters


def test_an_empty_final_answer_comes_if_it_is_asked_for(inference, whole):
    answers = by_id(inference.stream(letters(7, **EMPTY)))["7"]
    assert finals(answers) == [False] * 12 + [True]
    assert not answers[-1].outputs
    assert (answers[-1].model_name, answers[-1].model_version) == ("letters", "1")
    assert text_of(answers) == whole(7)


@pytest.mark.parametrize("asked", [{}, EMPTY])
def test_one_answer_is_the_final_one_of_a_model_that_has_one(inference, asked):
    (answers,) = by_id(
        inference.stream(ask("mood", {"text": [["bad"]]}, parameters=asked))
    ).values()
    assert finals(answers) == [True]
    assert read(answers[0])["label"].shape == (1, 1)


def test_an_end_without_a_token_is_reported_too(inference):
    """A decoder's end is no token: its answer has none and says why it ended."""
    source = ask("speller", {"source": ["abc"]}, parameters={"temperature": 0.0})
    (answers,) = by_id(inference.stream(source)).values()
    last = read(answers[-1])
    if last["finish_reason"][0] == "end":
        assert last["tokens"].size == 0
    assert finals(answers) == [False] * (len(answers) - 1) + [True]


def test_requests_share_a_call_and_keep_apart(inference, whole, monkeypatch):
    step = GenerateEngine.step

    def slow(self):
        time.sleep(0.002)
        return step(self)

    # The first of them lasts until the others are read, however busy the machine is.
    monkeypatch.setattr(GenerateEngine, "step", slow)
    counts = [300, *(20 + number for number in range(1, 16))]
    requests = [letters(number, count=count) for number, count in enumerate(counts)]
    requests.append(ask("mood", {"text": [["bad"]]}, id="mood"))
    responses = inference.stream(*requests)
    found = by_id(responses)
    for number, count in enumerate(counts):
        assert text_of(found[str(number)]) == whole(number, count)
    assert read(found["mood"][0])["label"].size == 1
    order = [response.infer_response.id for response in responses]
    assert order.index("15") < len(order) - order[::-1].index("0"), "they run side by side"


def test_several_tokens_share_an_answer_if_asked_to(inference, whole):
    answers = by_id(inference.stream(letters(7, tokens_per_message=5)))["7"]
    # The first token waits for no other.
    sizes = [read(answer)["tokens"].size for answer in answers]
    assert (sum(sizes), max(sizes)) == (12, 5)
    assert set(sizes[1:-1]) <= {5}
    assert text_of(answers) == whole(7)


def test_raw_requests_get_raw_answers(inference):
    request = ask("letters", {"prompt": ["abc"]}, raw=True, parameters={"max_tokens": 3})
    for response in inference.stream(request):
        assert len(response.infer_response.raw_output_contents) == 4


def test_an_error_is_reported_in_the_stream_which_goes_on(inference, whole):
    found = by_id(
        inference.stream(
            letters(1, count=40),
            ask("nobody", {"text": [["bad"]]}, id="unknown"),
            ask("mood", {"txet": [["bad"]]}, id="malformed"),
            letters(2),
        )
    )
    assert "no model 'nobody'" in found["unknown"][0]
    assert "'txet'" in found["malformed"][0]
    assert text_of(found["1"]) == whole(1, 40)
    assert text_of(found["2"]) == whole(2)


def test_bytes_that_are_no_request_are_reported_in_the_stream(standing_service, whole):
    with grpc.insecure_channel(standing_service.target) as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        sent = [letters(1).SerializeToString(), b"\xff\xff", letters(2).SerializeToString()]
        found = by_id(call(iter(sent), timeout=30))
    assert "cannot be read" in found[""][0]
    assert (text_of(found["1"]), text_of(found["2"])) == (whole(1), whole(2))


def test_an_error_ends_the_call_with_a_status_if_asked_to(inference):
    request = ask("nobody", {"text": [["bad"]]})
    with pytest.raises(grpc.RpcError) as caught:
        inference.stream(request, metadata=[("triton_grpc_error", "true")])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "no model 'nobody'" in caught.value.details()


def test_a_status_comes_at_once_while_other_requests_are_answered(inference):
    """An answer that is being written is written to its end: gRPC takes no write back."""
    for _ in range(20):
        requests = [ask("mood", {"text": [["bad"]]}) for _ in range(2)]
        requests += [letters(1, count=50), ask("nobody", {"text": [["bad"]]})]
        with pytest.raises(grpc.RpcError) as caught:
            inference.stream(*requests, metadata=[("triton_grpc_error", "true")])
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_each_request_ends_once_whenever_its_time_is_up(inference):
    """Either with its final answer or with an error; the others are not held up."""
    for microseconds in range(500, 10_500, 500):
        late = letters(1, count=100, timeout=microseconds)
        others = [ask("mood", {"text": [["bad"]]}, id=f"mood {n}") for n in range(3)]
        found = by_id(inference.stream(late, *others))
        assert len(found) == 4
        for answers in found.values():
            ends = [isinstance(a, str) or a.parameters[FINAL].bool_param for a in answers]
            assert ends == [False] * (len(answers) - 1) + [True]


def test_more_requests_than_run_at_once_are_all_answered(inference):
    count = 2 * MOST_AT_ONCE
    responses = inference.stream(
        *(ask("mood", {"text": [["bad"]]}, id=str(number)) for number in range(count))
    )
    assert sorted(int(r.infer_response.id) for r in responses) == list(range(count))
    assert not any(r.error_message for r in responses)


def test_a_call_without_requests_ends_well(inference):
    assert inference.stream() == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_longer_than_it_allows_is_ended(inference, stream):
    request = letters(1, count=400, timeout=1)
    if stream:
        ((message, *_),) = by_id(inference.stream(request)).values()
    else:
        with pytest.raises(grpc.RpcError) as caught:
            inference.stub.ModelInfer(request, timeout=20)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        message = caught.value.details()
    assert "'timeout'" in message


def test_errors_that_nobody_reads_hold_up_what_is_read():
    """A caller that sends nonsense and reads nothing is not kept in memory without end."""
    taken = 0

    async def nonsense():
        nonlocal taken
        while True:
            taken += 1
            yield ask("nobody").SerializeToString()

    class Unread:
        protocol, is_multiplexed, metadata = "grpc", True, ()
        service, method, peer = "inference.GRPCInferenceService", "ModelStreamInfer", "here"

        def seconds_left(self):
            return None

        async def write(self, response):
            await asyncio.Event().wait()

    async def run():
        admission = AdmissionControl(
            InflightTracker(2 * MOST_AT_ONCE), lambda *_: None, str, MemoryBudget(1 << 28)
        )
        handler = InferHandler(
            ModelRegistry(),
            Sequences(1, 1.0, admission.budget),
            admission.budget,
            adapters_of,
            NamedStates(None, 1, 1.0),
        )
        stream = InferStream(handler, Unread(), admission, 300.0)
        serving = asyncio.ensure_future(stream.serve(nonsense()))
        for _ in range(20 * MOST_AT_ONCE):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())
    assert MOST_AT_ONCE <= taken <= MOST_AT_ONCE + 2


def test_streams_of_a_caller_that_leaves_give_their_rows_back(standing_service, inference):
    engine = standing_service.app.registry.get("letters").thread
    call = inference.stub.ModelStreamInfer(iter([letters(n, count=400) for n in range(8)]))
    next(call)
    call.cancel()
    wait_until(lambda: engine.open_work == 0)
    assert standing_service.app.inflight.calls == 0


def test_each_request_of_a_call_is_counted_by_its_outcome(standing_service, inference):
    def count(model, code):
        return standing_service.metric(
            "unroll_requests_total", model=model, method="ModelStreamInfer", code=code
        )

    before = count("mood", "OK"), count("mood", "INVALID_ARGUMENT"), count("", "NOT_FOUND")
    inference.stream(
        ask("mood", {"text": [["bad"]]}),
        ask("mood.tensors", {"tokens": [[1]], "lengths": [[1]]}),
        ask("mood", {"txet": [["bad"]]}),
        ask("an invented name", {"text": [["bad"]]}),
    )
    after = count("mood", "OK"), count("mood", "INVALID_ARGUMENT"), count("", "NOT_FOUND")
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]


def test_a_stop_finishes_what_runs_and_ends_an_open_call(start_service):
    """No request is lost, and a call that only waits for requests does not hold up the stop."""
    service = start_service()
    with Inference(service.target) as inference:
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        waiting.put(letters(1, count=300))
        call = inference.stub.ModelStreamInfer(iter(waiting.get, None))
        first = next(call).infer_response
        assert service.stop()
        answers, failure = [first], None
        try:
            answers.extend(response.infer_response for response in call)
        except grpc.RpcError as error:
            failure = error
        waiting.put(None)
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert finals(answers) == [False] * 299 + [True]


def test_an_unread_call_gives_up_its_places_to_whoever_comes(start_service):
    """All of its requests wait for one reader, so all of them go: to one of the same caller, for
    whom there is no reserve."""
    service = start_service(max_streams=8, max_queue=32)
    thread = service.app.registry.get("letters").thread
    options = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    with (
        Inference(service.target) as inference,
        grpc.insecure_channel(service.target, options) as channel,
    ):
        stub = type(inference.stub)(channel)
        generating = unroll_pb2_grpc.UnrollServiceStub(channel)
        requests = [letters(n, count=400, tokens_per_message=1) for n in range(40)]
        call = stub.ModelStreamInfer(iter(requests), timeout=60)
        next(call)

        def answered():
            with suppress(grpc.RpcError):
                request = unroll_pb.GenerateRequest(model="letters", prompt="a", max_tokens=9)
                return len(list(generating.Generate(request, timeout=20))) > 0

        wait_until(lambda: thread.open_work == 40 and thread.engine.is_idle, 30)
        wait_until(answered, 30)
        assert thread.given_up
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "while others waited for a place" in caught.value.details()
    wait_until(lambda: thread.open_work == 0)


def test_a_reader_that_stalls_loses_its_call_and_nothing_else(start_service):
    service = start_service(stall_seconds=0.5)
    options = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    with (
        Inference(service.target) as inference,
        grpc.insecure_channel(service.target, options) as channel,
    ):
        inference.stub = type(inference.stub)(channel)
        requests = [letters(n, count=400, tokens_per_message=1) for n in range(64)]
        call = inference.stub.ModelStreamInfer(iter(requests), timeout=60)
        next(call)
        wait_until(lambda: service.app.inflight.calls == 0, 30)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert service.app.registry.get("letters").thread.open_work == 0
