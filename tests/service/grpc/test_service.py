"""The service as a caller meets it: real channels, tiny models."""

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from bundle.store import MANIFEST_FILE
from service import services
from service.grpc import handlers
from tests.conftest import running
from tests.tiny import NAMES, names_without
from unroll import NO_RETRIES, Client, RequestFailed, Sampling
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

LONG = 400  # the output limit of the tiny generator


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def engine_of(service, name):
    return service.app.registry.get(name).thread.engine


# -- answers --------------------------------------------------------------------------------


def test_classify_answers_every_text_in_order(caller):
    texts = ["the food is good", "bad", "not bad was great"]
    answers = caller.classify("mood", texts)
    assert [answer.input_tokens for answer in answers] == [4, 1, 4]
    for text, answer in zip(texts, answers, strict=True):
        assert sorted(label for label, _ in answer.labels) == ["glad", "sad"]
        assert sum(p for _, p in answer.labels) == pytest.approx(1)
        assert answer.labels[0][1] >= answer.labels[1][1]
        assert caller.classify("mood", [text]) == [answer]


def test_generate_streams_tokens_seed_and_usage(caller):
    pieces = list(caller.generate("letters", prompt="abc", max_tokens=20, log_probabilities=True))
    tokens = [token for piece in pieces for token in piece.tokens]
    assert [token.position for token in tokens] == list(range(20))
    assert all(token.log_probability < 0 for token in tokens)
    assert [piece.seed is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.answer is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    answer = pieces[-1].answer
    assert (answer.reason, answer.input_tokens, answer.output_tokens) == ("length", 3, 20)
    assert 0 <= answer.queue_seconds <= answer.time_to_first_token_seconds < 10


def test_log_probabilities_come_only_when_asked_for(caller):
    for piece in caller.generate("letters", prompt="a", max_tokens=3):
        assert all(token.log_probability is None for token in piece.tokens)


def test_a_stream_without_a_seed_can_be_repeated_with_the_one_it_reports(caller):
    first = list(caller.generate("letters", prompt="abc", max_tokens=30))
    again = caller.generate(
        "letters", prompt="abc", max_tokens=30, sampling=Sampling(seed=first[0].seed)
    )
    assert text_of(again) == text_of(first)
    other = caller.generate("letters", prompt="abc", max_tokens=30, sampling=Sampling(seed=1))
    assert text_of(other) != text_of(first)


def test_a_source_becomes_another_sequence(caller):
    pieces = list(caller.generate("speller", source="abc"))
    again = list(caller.generate("speller", source="abc", sampling=Sampling(seed=5)))
    assert text_of(pieces) == text_of(again), "the default takes the most probable token"
    assert pieces[-1].answer.input_tokens == 3


def test_a_stop_text_ends_the_stream(caller):
    whole = text_of(
        caller.generate("letters", prompt="a", max_tokens=60, sampling=Sampling(seed=4))
    )
    stop = whole[20:22]
    pieces = list(
        caller.generate(
            "letters", prompt="a", max_tokens=60, sampling=Sampling(seed=4), stop=[stop]
        )
    )
    assert text_of(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].answer.reason == "stop"


def test_score_is_the_log_probability_that_generation_reports(caller):
    """Scoring a stream's own text gives the log-probabilities the stream carried."""
    pieces = caller.generate(
        "letters", prompt="abc", max_tokens=30, sampling=Sampling(seed=3), log_probabilities=True
    )
    made = [token for piece in pieces for token in piece.tokens]
    (scored,) = caller.score("letters", ["abc" + "".join(token.text for token in made)])
    assert scored.tokens[0].log_probability is None
    for reported, token in zip(made, scored.tokens[3:], strict=True):
        assert token.id == reported.id
        assert token.log_probability == pytest.approx(reported.log_probability, abs=1e-5)
    known = [t.log_probability for t in scored.tokens if t.log_probability is not None]
    assert scored.log_probability == pytest.approx(sum(known))


def test_score_of_a_target_given_a_source_ends_with_the_end_token(caller):
    two = caller.score("speller", ["P Q R", "S"], ["abc", "abc"])
    assert [token.text for token in two[0].tokens] == ["P", " Q", " R", ""]
    assert caller.score("speller", ["S"], ["abc"]) == two[1:]


def test_unknown_symbols_are_counted(caller):
    (answer,) = caller.classify("mood", ["the zebra is zzz"])
    assert answer.unknown_symbols == 2
    pieces = list(caller.generate("letters", prompt="aXÄb", max_tokens=1))
    assert pieces[-1].answer.unknown_symbols == 2
    (scored,) = caller.score("speller", ["P ?"], ["a!"])
    assert scored.unknown_symbols == 2


def test_models_are_listed_with_the_public_part_of_their_manifest(caller, tiny_models):
    listed = caller.list_models()
    assert [model.name for model in listed.models] == list(NAMES)
    manifest = json.loads((tiny_models / "letters" / "1" / MANIFEST_FILE).read_text())
    model = caller.get_model("letters")
    assert model in listed.models
    assert model.task == pb.TASK_GENERATE
    assert dict(model.limits) == manifest["limits"]
    assert model.figures[0].split == manifest["figures"][0]["split"]
    assert len(model.digest) == 64
    assert model.provider == "CPUExecutionProvider"
    assert list(caller.get_model("mood").labels) == ["sad", "glad"]


# -- the promise ----------------------------------------------------------------------------


def test_same_request_same_tokens_alone_or_among_others(service, client, monkeypatch):
    """Forty mixed streams at once: each gets, bit for bit, what it gets alone."""
    requests = [
        {
            "model": "letters" if number % 3 else "speller",
            "prompt": "abcdefgh"[: 1 + number % 8] * (1 + number % 5) if number % 3 else None,
            "source": None if number % 3 else "abcdefgh"[: 1 + number % 8],
            "max_tokens": 10 + 3 * number if number % 3 else 40,
            "sampling": Sampling(
                temperature=(0.0, 0.7, 1.0)[number % 3 - 1],
                top_p=0.9,
                top_k=number % 4,
                seed=number,
            ),
        }
        for number in range(40)
    ]

    def run(request):
        pieces = client.generate(**request, log_probabilities=True)
        return [(t.id, t.text, t.log_probability) for piece in pieces for t in piece.tokens]

    alone = [run(request) for request in requests]
    slow_engine(service, monkeypatch, seconds=0.002)
    with ThreadPoolExecutor(40) as pool:
        together = list(pool.map(run, requests))
    assert together == alone
    rows = {"model": "letters", "graph": "step"}
    steps = service.metric("unroll_batch_rows_count", **rows)
    small = service.metric("unroll_batch_rows_bucket", **rows, le="8.0")
    assert steps - small > 10, "many streams shared their steps"
    assert len({len(tokens) for tokens in alone}) > 10


def test_a_late_request_joins_a_running_batch(service, client, monkeypatch):
    """The late stream ends while the early one still runs, and both shared steps."""
    slow_engine(service, monkeypatch)
    early = client.generate("letters", prompt="a", max_tokens=LONG)
    next(early)
    # Its first token may come from a step of its own.
    late = list(client.generate("letters", prompt="b", max_tokens=3))
    assert late[-1].answer.output_tokens == 3
    assert len(engine_of(service, "letters").scheduler.rows) == 1
    early.close()

    def steps_of(rows):
        name = "unroll_batch_rows_bucket"
        return service.metric(name, model="letters", graph="step", le=rows)

    # Steps reach the metrics several at once, the last ones when the engine is idle.
    wait_until(lambda: steps_of("2.0") - steps_of("1.0") >= 2)


# -- leaving --------------------------------------------------------------------------------


def slow_engine(service, monkeypatch, seconds=0.01):
    """Makes each step of the tiny generator take a while, so that streams last."""
    runner = engine_of(service, "letters").runner
    step = runner.step

    def slow(side, rows):
        time.sleep(seconds)
        step(side, rows)

    monkeypatch.setattr(runner, "step", slow)


def test_cancel_frees_the_row(service, client, monkeypatch):
    """A client that leaves costs at most the step under way."""
    slow_engine(service, monkeypatch)
    engine = engine_of(service, "letters")
    stream = client.generate("letters", prompt="a", max_tokens=LONG)
    next(stream)
    assert len(engine.scheduler.rows) == 1
    stream.close()
    wait_until(lambda: engine.is_idle)
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    for rows in engine.slots.current().values():
        assert not rows.any()
    wait_until(lambda: cancelled(service) == 1)
    wait_until(lambda: service.app.inflight.calls == 0)


def cancelled(service):
    """Streams of the tiny generator that were given up before their end."""
    name = "unroll_streams_finished_total"
    return service.metric(name, model="letters", reason="cancelled")


def test_a_deadline_frees_the_row(service, monkeypatch):
    slow_engine(service, monkeypatch)
    engine = engine_of(service, "letters")
    with (
        Client(service.target, timeout=0.3) as hasty,
        pytest.raises(RequestFailed, match="DEADLINE_EXCEEDED"),
    ):
        list(hasty.generate("letters", prompt="a", max_tokens=LONG))
    wait_until(lambda: cancelled(service) == 1)
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    late = {"model": "letters", "method": "Generate", "code": "DEADLINE_EXCEEDED"}
    wait_until(lambda: service.metric("unroll_requests_total", **late) == 1)


def test_a_score_can_be_given_up_between_its_pieces(service, monkeypatch):
    """A score runs a piece a step, so a caller who leaves costs one piece, not the rest."""
    monkeypatch.setattr("service.runtime.runners._SCORE_PIECE", 1)
    engine = service.app.registry.get("letters").score_thread.engine
    session = engine.runner.session
    ran = []

    class Slow:
        def run(self, *arguments):
            ran.append(1)
            time.sleep(0.02)
            return session.run(*arguments)

    monkeypatch.setattr(engine.runner, "session", Slow())
    with (
        Client(service.target, timeout=0.3) as hasty,
        pytest.raises(RequestFailed, match="DEADLINE_EXCEEDED"),
    ):
        hasty.score("letters", ["abcdef" * 10])
    wait_until(lambda: engine.is_idle)
    assert 1 <= len(ran) < 40


def test_many_disconnects_leave_no_row_taken(service, client, monkeypatch):
    """Two hundred streams are opened and left at different moments; all rows come back."""
    slow_engine(service, monkeypatch, seconds=0.005)
    engine = engine_of(service, "letters")

    def leave(number):
        stream = client.generate("letters", prompt="ab", max_tokens=LONG)
        for _ in range(number % 4):
            next(stream, None)
        stream.close()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(leave, range(200)))
    wait_until(lambda: engine.is_idle and service.app.inflight.calls == 0)
    assert cancelled(service) > 100
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    assert service.app.registry.get("letters").thread.open_work == 0
    for side in engine.slots.sides():
        assert not any(side.inputs[name].any() for name in engine.slots.current())


def test_a_caller_that_leaves_while_a_message_is_sent_is_no_failure(
    start_service, monkeypatch, caplog
):
    """The write fails before the cancel is heard; the call counts as cancelled, not INTERNAL."""
    service = start_service(front_end="grpcio")

    class Left:
        """A call's context once its caller has left."""

        def __init__(self, context):
            self._context = context

        def __getattr__(self, name):
            return getattr(self._context, name)

        async def write(self, response):
            raise grpc.aio.InternalError("the batch was not executed")

    made = handlers.GrpcCall
    monkeypatch.setattr(handlers, "GrpcCall", lambda context, method: made(Left(context), method))
    with Client(service.target, timeout=10) as client, pytest.raises(RequestFailed):
        list(client.generate("letters", prompt="a"))
    left = {"model": "letters", "method": "Generate", "code": "CANCELLED"}
    wait_until(lambda: service.metric("unroll_requests_total", **left) == 1)
    wait_until(lambda: cancelled(service) == 1)
    assert not caplog.records


# -- refusals -------------------------------------------------------------------------------


def call(service, method, request):
    with grpc.insecure_channel(service.target) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        answer = getattr(stub, method)(request, timeout=20)
        return list(answer) if method == "Generate" else answer


def generate(**fields):
    return "Generate", pb.GenerateRequest(**fields)


def sampling(**fields):
    return generate(model="letters", prompt="a", sampling=pb.Sampling(**fields))


REFUSALS = {
    "unknown model": (
        generate(model="nothing", prompt="a"),
        "NOT_FOUND",
        "no model 'nothing'; served are: bigrams, .*, tags-online",
    ),
    "unknown version": (
        generate(model="letters", model_version="7", prompt="a"),
        "NOT_FOUND",
        "served in version '1', not '7'",
    ),
    "too many words": (
        ("Classify", pb.ClassifyRequest(model="mood", texts=["good " * 65])),
        "INVALID_ARGUMENT",
        r"texts\[0\] has 65 tokens, model 'mood' accepts 64",
    ),
    "too much text": (
        ("Classify", pb.ClassifyRequest(model="mood", texts=["good " * 60] * 500)),
        "INVALID_ARGUMENT",
        "texts hold 150000 characters together; send at most 131072",
    ),
    "unknown model of GetModel": (
        ("GetModel", pb.GetModelRequest(name="x")),
        "NOT_FOUND",
        "no model 'x'",
    ),
    "wrong task": (generate(model="mood", prompt="a"), "INVALID_ARGUMENT", "call Classify"),
    "wrong task: tags": (
        ("Tag", pb.TagRequest(model="blank", items=[pb.TagItem(text="a")])),
        "INVALID_ARGUMENT",
        "model 'blank' does not tag; call Fill",
    ),
    "wrong task: fills": (
        ("Fill", pb.FillRequest(model="tags-online", texts=["a ___"])),
        "INVALID_ARGUMENT",
        "model 'tags-online' does not fill blanks; call Tag, StreamTag or Embed",
    ),
    "wrong task: scores": (
        ("Score", pb.ScoreRequest(model="tags", items=[pb.ScoreItem(text="a")])),
        "INVALID_ARGUMENT",
        "model 'tags' does not generate; call Tag\"",
    ),
    "wrong task the other way": (
        ("Classify", pb.ClassifyRequest(model="letters", texts=["a"])),
        "INVALID_ARGUMENT",
        "call Generate, Score or Embed",
    ),
    "no input": (generate(model="letters"), "INVALID_ARGUMENT", "has no input; set 'prompt'"),
    "empty prompt": (generate(model="letters", prompt=""), "INVALID_ARGUMENT", "prompt is empty"),
    "source for a prompt": (
        generate(model="letters", source="a"),
        "INVALID_ARGUMENT",
        "takes a prompt, the request has a source",
    ),
    "vector for a source": (
        generate(model="speller", vector=pb.Vector(values=[float("nan")])),
        "INVALID_ARGUMENT",
        "takes a source, the request has a vector",
    ),
    "resume token": (
        generate(model="letters", resume_token=b"x"),
        "INVALID_ARGUMENT",
        "no resume token of this release",
    ),
    "too long": (
        generate(model="letters", prompt="a" * 65),
        "INVALID_ARGUMENT",
        "prompt has 65 characters, model 'letters' accepts 64 tokens",
    ),
    "too long a source": (
        generate(model="speller", source="a" * 11),
        "INVALID_ARGUMENT",
        "source has 11 characters",
    ),
    "too many tokens": (
        generate(model="letters", prompt="a", max_tokens=LONG + 1),
        "INVALID_ARGUMENT",
        f"makes 1 to {LONG}",
    ),
    "no tokens": (
        generate(model="letters", prompt="a", max_tokens=0),
        "INVALID_ARGUMENT",
        "max_tokens is 0",
    ),
    "negative temperature": (sampling(temperature=-1), "INVALID_ARGUMENT", "temperature is -1"),
    "temperature not a number": (
        sampling(temperature=float("nan")),
        "INVALID_ARGUMENT",
        "temperature is nan",
    ),
    "infinite temperature": (
        sampling(temperature=float("inf")),
        "INVALID_ARGUMENT",
        "temperature is inf",
    ),
    "tiny temperature": (sampling(temperature=1e-6), "INVALID_ARGUMENT", "0 or at least 0.01"),
    "top_p of zero": (sampling(top_p=0), "INVALID_ARGUMENT", "top_p is 0"),
    "top_p not a number": (sampling(top_p=float("nan")), "INVALID_ARGUMENT", "top_p is nan"),
    "empty stop": (
        generate(model="letters", prompt="a", stop=["ok", ""]),
        "INVALID_ARGUMENT",
        r"stop\[1\] has 0 characters",
    ),
    "too many stops": (
        generate(model="letters", prompt="a", stop=["x"] * 17),
        "INVALID_ARGUMENT",
        "at most 16",
    ),
    "no texts": (
        ("Classify", pb.ClassifyRequest(model="mood")),
        "INVALID_ARGUMENT",
        "texts holds 0 entries",
    ),
    "an empty text": (
        ("Classify", pb.ClassifyRequest(model="mood", texts=["good", " "])),
        "INVALID_ARGUMENT",
        r"texts\[1\] is empty",
    ),
    "nothing to score": (
        ("Score", pb.ScoreRequest(model="letters", items=[pb.ScoreItem(text="a")])),
        "INVALID_ARGUMENT",
        "send at least two",
    ),
    "a source to a generator": (
        ("Score", pb.ScoreRequest(model="letters", items=[pb.ScoreItem(text="ab", source="c")])),
        "INVALID_ARGUMENT",
        "scores texts alone",
    ),
    "a target without its source": (
        ("Score", pb.ScoreRequest(model="speller", items=[pb.ScoreItem(text="P")])),
        "INVALID_ARGUMENT",
        r"items\[0\].source is empty",
    ),
}


@pytest.fixture(scope="module")
def shared_service(tiny_models):
    with running(tiny_models, device="auto") as service:
        yield service


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_gets_its_status_and_says_what_to_do(shared_service, case):
    (method, request), code, message = REFUSALS[case]
    with pytest.raises(grpc.RpcError, match=message) as caught:
        call(shared_service, method, request)
    assert caught.value.code().name == code


def test_bad_input_disturbs_no_other_request(service, client, monkeypatch):
    """A stream gets the same tokens while every kind of bad request is thrown at the server."""
    make_request = {"prompt": "abc", "max_tokens": 300, "sampling": Sampling(seed=11)}
    expected = text_of(client.generate("letters", **make_request))
    slow_engine(service, monkeypatch)
    stream = client.generate("letters", **make_request)
    text = next(stream).text
    for (method, request), _, _ in REFUSALS.values():
        with pytest.raises(grpc.RpcError):
            call(service, method, request)
    assert len(engine_of(service, "letters").scheduler.rows) == 1, "the stream was running"
    assert text + text_of(stream) == expected


def test_the_least_temperature_is_the_one_that_is_reported(client):
    """0.01 is a little less as the wire's float32, and is accepted."""
    sampling = Sampling(temperature=0.01, seed=1)
    assert text_of(client.generate("letters", prompt="a", max_tokens=3, sampling=sampling))


def test_long_and_short_requests_are_answered_side_by_side(client):
    """Much text is read off the event loop; the answers are those of little text."""
    text = "the food was great not bad " * 10
    many = client.classify("mood", [text] * 400)
    assert many == client.classify("mood", [text]) * 400


def test_a_message_over_the_limit_is_refused(start_service):
    service = start_service(max_message_bytes=1000)
    with Client(service.target) as client:
        with pytest.raises(RequestFailed, match=r"RESOURCE_EXHAUSTED.*larger than max"):
            client.classify("mood", ["good " * 400])
        assert client.classify("mood", ["good"])


def test_a_full_queue_says_when_to_come_back(start_service, monkeypatch):
    """One row, one place in the queue: the third stream is refused with RetryInfo."""
    service = start_service(max_streams=1, max_queue=1)
    slow_engine(service, monkeypatch)
    with Client(service.target, timeout=30, retries=NO_RETRIES) as client:
        running = client.generate("letters", prompt="a", max_tokens=LONG)
        next(running)
        waits = threading.Thread(
            target=lambda: list(client.generate("letters", prompt="a", max_tokens=1))
        )
        waits.start()
        thread = service.app.registry.get("letters").thread
        wait_until(lambda: thread.open_work == 2)
        with pytest.raises(RequestFailed) as caught:
            list(client.generate("letters", prompt="a"))
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert caught.value.retry_after_seconds == pytest.approx(0.5)
        with pytest.raises(grpc.RpcError) as raw:
            call(service, *generate(model="letters", prompt="a"))
        (detail,) = rpc_status.from_call(raw.value).details
        assert detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        running.close()
        waits.join(20)
        assert list(client.generate("letters", prompt="a", max_tokens=2))


def test_a_refused_bundle_leaves_the_others_serving(start_service, models_copy):
    path = models_copy / "mood" / "1" / "weights.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    service = start_service(models=models_copy)
    with Client(service.target) as client:
        with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*weights.bin.*sha256"):
            client.classify("mood", ["good"])
        assert list(client.generate("letters", prompt="a", max_tokens=2))
        listed = client.list_models()
    assert [model.name for model in listed.models] == names_without("mood")
    assert [bundle.name for bundle in listed.refused_models] == ["mood"]
    assert service.metric("unroll_model_refused", model="mood", version="1") == 1


def test_a_bundle_whose_graphs_do_not_run_is_refused_alone(start_service, monkeypatch):
    """Whatever goes wrong in a model's first steps concerns that model."""
    from service.runtime import runners

    step = runners.GenerateRunner.step

    def broken(self, side, rows):
        if "memory_mask" in self.sides[0].inputs:
            raise RuntimeError("no such kernel")
        step(self, side, rows)

    monkeypatch.setattr(runners.GenerateRunner, "step", broken)
    service = start_service()
    with Client(service.target) as client:
        listed = client.list_models()
        assert [model.name for model in listed.models] == names_without("speller")
        with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*no such kernel"):
            list(client.generate("speller", source="a"))


def test_a_broken_engine_fails_its_own_requests_only(service, client, monkeypatch, caplog):
    """The model turns unhealthy and the service not ready; other models go on."""

    def broken(side, rows):
        raise RuntimeError("the kernel broke")

    monkeypatch.setattr(engine_of(service, "letters").runner, "step", broken)
    with pytest.raises(RequestFailed, match=r"INTERNAL.*engine of model 'letters' failed"):
        list(client.generate("letters", prompt="a"))
    with pytest.raises(RequestFailed, match="INTERNAL"):
        list(client.generate("letters", prompt="a"))
    assert client.classify("mood", ["good"])
    assert http(service, "/readyz")[0] == 503
    wait_until(lambda: health_of(service, "letters") == "NOT_SERVING")
    assert health_of(service, "") == "NOT_SERVING"
    assert health_of(service, "mood") == "SERVING"


# -- health, reflection, metrics, shutdown --------------------------------------------------


def health_of(service, name):
    with grpc.insecure_channel(service.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def http(service, path):
    url = f"http://127.0.0.1:{service.app.http.port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("name", ["", "unroll.v1.UnrollService", "letters", "mood", "speller"])
def test_health_is_reported_for_all_and_for_each_model(shared_service, name):
    assert health_of(shared_service, name) == "SERVING"


def test_reflection_names_the_service(shared_service):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(shared_service.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert {"unroll.v1.UnrollService", "grpc.health.v1.Health"} <= names


def test_metrics_report_what_happened(service, client):
    """Known traffic, known counts; a made-up model name becomes no label."""
    client.classify("mood", ["good food", "bad"])
    list(client.generate("letters", prompt="abc", max_tokens=10))
    with pytest.raises(RequestFailed):
        client.classify("x" * 50, ["good"])
    count = "unroll_requests_total"
    wait_until(lambda: service.metric(count, model="", method="Classify", code="NOT_FOUND") == 1)
    assert service.metric(count, model="mood", method="Classify", code="OK") == 1
    assert service.metric(count, model="letters", method="Generate", code="OK") == 1
    assert service.metric("unroll_tokens_total", model="letters", direction="in") == 3
    assert service.metric("unroll_tokens_total", model="letters", direction="out") == 10
    assert service.metric("unroll_tokens_total", model="mood", direction="in") == 3
    assert service.metric("unroll_time_to_first_token_seconds_count", model="letters") == 1
    assert service.metric("unroll_inter_token_seconds_count", model="letters") == 9
    assert service.metric("unroll_queue_seconds_count", model="letters") == 1
    assert service.metric("unroll_active_rows", model="letters") == 0
    loaded = {"version": "1", "precision": "fp32", "provider": "CPUExecutionProvider"}
    assert service.metric("unroll_model_loaded", model="mood", **loaded) == 1
    status, page = http(service, "/metrics")
    assert status == 200
    assert 'unroll_inter_token_seconds_bucket{le="+Inf",model="letters"} 9.0' in page
    assert "x" * 50 not in page


def test_http_answers_probes_and_says_what_it_has(shared_service):
    assert http(shared_service, "/livez") == (200, "alive\n")
    assert http(shared_service, "/readyz") == (200, "ready\n")
    assert http(shared_service, "/elsewhere")[0] == 404


def test_shutdown_lets_running_streams_finish(service, client, monkeypatch):
    """After the stop begins, new calls are refused, the running stream gets all its tokens."""
    slow_engine(service, monkeypatch, seconds=0.005)
    stream = client.generate("letters", prompt="a", max_tokens=100)
    next(stream)
    stopping = ThreadPoolExecutor(1).submit(service.stop)
    wait_until(lambda: service.app.inflight.is_closed)
    with pytest.raises(RequestFailed, match=r"UNAVAILABLE.*stopping"):
        client.classify("mood", ["good"])
    pieces = list(stream)
    assert pieces[-1].answer.output_tokens == 100
    assert stopping.result(20) is True


def test_shutdown_hands_over_what_outlasts_the_grace(start_service, monkeypatch):
    service = start_service(grace_seconds=0.2)
    slow_engine(service, monkeypatch, seconds=0.02)
    with Client(service.target) as client:
        stream = client.generate("letters", prompt="a", max_tokens=LONG, failover=False)
        next(stream)
        assert service.stop() is True
        *_, last = stream
    assert last.answer.reason == "handed_over"
    assert last.answer.output_tokens < LONG
    assert [point.next_position for point in last.resume_points] == [last.answer.output_tokens]


def test_shutdown_ends_what_outlasts_the_hand_over_too(start_service, monkeypatch):
    """An engine that does not come back from a batch: its callers get an error, and it ends."""
    monkeypatch.setattr(services, "_HAND_OVER_SECONDS", 0.1)
    service = start_service(grace_seconds=0.1)
    engine = service.app.registry.get("mood").thread.engine
    step, begun = engine.step, threading.Event()

    def stuck():
        begun.set()
        time.sleep(2)
        return step()

    monkeypatch.setattr(engine, "step", stuck)
    with Client(service.target, timeout=30, retries=NO_RETRIES) as client:
        answer = ThreadPoolExecutor(1).submit(client.classify, "mood", ["good"])
        assert begun.wait(10)
        assert service.stop() is False
        with pytest.raises(RequestFailed, match=r"UNAVAILABLE|CANCELLED"):
            answer.result(10)
