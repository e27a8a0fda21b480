"""The log: one line whatever is in it, with the ids of its request, and without its text."""

import asyncio
import fcntl
import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from service.access.identity import AllowAll
from service.engine.errors import Unauthenticated
from service.observability.logs import IDS, LEVELS, Ids, dropped_lines, set_up, watch_loop
from tests.fuzz.loading import STEPPER
from tests.fuzz.methods import INFERENCE, UNROLL
from tests.fuzz.unroll_seeds import unroll_seeds
from tests.service.oip.calls import ask
from tests.step_models import write_step_bundle
from unroll.inference import grpc_service_pb2 as oip
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACE_PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
# What a caller sends to be taken for lines of the log: breaks, colours, an end of input.
CANARY = 'canary\n{"level": "error"}\r\x1b[31m\x85\u2028\x04'
LISTENED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]")


class Written:
    """Where the log goes; what was logged before it is read is in it."""

    def __init__(self, **settings):
        self._content = io.BytesIO()
        self._handler = set_up(write=self._content.write, **settings)

    def getvalue(self):
        self._handler.flush()
        return self._content.getvalue().decode()


@pytest.fixture
def written():
    """Sets the log up and returns where it goes; all is as it was afterwards."""
    root, grpc_log = logging.getLogger(), logging.getLogger("grpc")
    before = root.handlers[:], root.level, grpc_log.level

    def start(level="info", form="json", shows_texts=False):
        return Written(level=level, form=form, shows_texts=shows_texts)

    yield start
    root.handlers[:], level, grpc_level = before
    root.setLevel(level)
    grpc_log.setLevel(grpc_level)


@pytest.fixture
def within_a_request():
    token = IDS.set(Ids("request-1", TRACE))
    yield
    IDS.reset(token)


class Caller:
    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        self.unroll = unroll_pb2_grpc.UnrollServiceStub(self.channel)
        self.inference = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def call(self, method, messages):
        """Of any kind; returns its status."""
        kind = f"{'stream' if method.takes_stream else 'unary'}_"
        kind += "stream" if method.gives_stream else "unary"
        serialize = method.request.SerializeToString
        callable_ = getattr(self.channel, kind)(method.path, serialize, method.response.FromString)
        request = iter(messages) if method.takes_stream else messages[0]
        try:
            answer = callable_(request, timeout=20)
            if method.gives_stream:
                list(answer)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture
def calling(start_service):
    callers = []

    def start(**settings):
        service = start_service(**settings)
        callers.append(Caller(service.target))
        return service, callers[-1]

    yield start
    for caller in callers:
        caller.channel.close()


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def request_lines(stream):
    return [line for line in lines_of(stream) if line["logger"] == "service.requests"]


# -- form --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("within_a_request")
@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_that_is_logged_breaks_a_line(written, form):
    stream = written(form=form)
    log = logging.getLogger("service.test")
    log.info("a model named %s", CANARY, extra={"fields": {"model": CANARY}})
    (line,) = stream.getvalue().split("\n")[:-1]
    assert not LISTENED.search(line)
    assert "canary" in line
    assert "request-1" in line
    assert TRACE in line


@pytest.mark.usefixtures("within_a_request")
def test_a_json_line_holds_what_was_said(written):
    stream = written()
    logging.getLogger("service.test").warning("%d of %s", 3, CANARY, extra={"fields": {"n": 4}})
    (line,) = lines_of(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "logger": "service.test", "message": f"3 of {CANARY}",
        "request_id": "request-1", "trace_id": TRACE, "n": 4,
    }  # fmt: skip


def test_a_console_line_quotes_what_holds_a_space(written):
    stream = written(form="console")
    fields = {"model": "a b", "code": "OK", "text": 'x="y"'}
    logging.getLogger("service.test").info("request", extra={"fields": fields})
    line = stream.getvalue()
    assert line.endswith('INFO request model="a b" code=OK text="x=\\"y\\""\n')
    assert "request_id" not in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_whatever_is_logged_is_a_line_of_bounded_length(written, form):
    stream = written(form=form)
    long = CANARY * 50_000
    try:
        fail(long)
    except ValueError as error:
        fields = {"model": long, "n": 3}
        logging.getLogger("service.test").error(long, exc_info=error, extra={"fields": fields})
    reported = stream.getvalue()
    assert reported.count(f"({len(long)} characters)") == 3
    assert len(reported) < 300_000
    assert not LISTENED.search(reported)


def test_a_line_that_cannot_be_made_is_logged(written, capfd):
    """logging itself would write to standard error, whoever reads that."""
    stream = written()
    logging.getLogger("service.test").info("%d", CANARY)
    (line,) = lines_of(stream)
    assert re.fullmatch(r"a line of service.test:\d+ cannot be made: TypeError", line["message"])
    assert capfd.readouterr().err == ""


def test_lost_lines_are_counted_by_level_and_logged(written):
    may_write, content = threading.Event(), io.BytesIO()

    def write(line):
        may_write.wait()
        content.write(line)

    written()  # which puts the log back at the end
    handler = set_up("info", "json", limit_bytes=2000, write=write)
    log = logging.getLogger("service.test")
    for _ in range(3):
        log.info("x" * 1000)
        log.error("x" * 1000)
    assert dropped_lines() == dict.fromkeys(LEVELS, 0) | {"info": 2, "error": 3}
    may_write.set()
    handler.flush()
    lines = [json.loads(line) for line in content.getvalue().splitlines()]
    assert lines[1]["message"] == "5 lines of the log were dropped: nobody read them in time"
    assert (lines[1]["level"], len(lines)) == ("warning", 2)


def test_less_grave_lines_are_not_written(written):
    stream = written(level="warning")
    logging.getLogger("service.test").info("nothing")
    assert stream.getvalue() == ""


def fail(message):
    try:
        raise KeyError(message)
    except KeyError as error:
        raise ValueError(message) from error


@pytest.mark.usefixtures("within_a_request")
@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("shows_texts", [False, True])
def test_an_error_within_a_request_reports_what_was_sent_only_when_asked(
    written, form, shows_texts
):
    stream = written(form=form, shows_texts=shows_texts)
    try:
        fail(CANARY)
    except ValueError as error:
        logging.getLogger("service.test").error("Generate failed", exc_info=error)
    reported = stream.getvalue()
    assert "request-1" in reported
    assert "in fail" in reported
    assert reported.index("KeyError") < reported.index("ValueError")
    assert ("canary" in reported) is shows_texts
    assert not LISTENED.search(reported)
    if form == "console":
        assert not any(line.startswith("{") for line in reported.splitlines())


def test_an_engine_reports_all_of_its_error(written):
    """It knows ids and arrays, no texts, and no request is its alone."""
    stream = written()
    try:
        fail("a graph broke")
    except ValueError as error:
        logging.getLogger("service.serving.worker").error("an engine failed", exc_info=error)
    (line,) = lines_of(stream)
    assert line["exception"].endswith("ValueError: a graph broke")
    assert "request_id" not in line


def test_an_error_that_nobody_waits_for_is_reported_without_its_message(written):
    stream = written()

    async def leave_an_error():
        watch_loop(asyncio.get_running_loop())
        task = asyncio.ensure_future(asyncio.to_thread(fail, CANARY))
        await asyncio.wait((task,))
        del task
        gc.collect()

    asyncio.run(leave_an_error())
    assert "ValueError" in stream.getvalue()
    assert "canary" not in stream.getvalue()


UNCAUGHT = """
import sys, threading, warnings
from service.observability.logs import log_uncaught, set_up
set_up("info", "json")
log_uncaught()
class Dying:
    def __del__(self):
        raise KeyError("of a request")
def fail():
    raise OSError("in a thread")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
Dying()
warnings.warn("take care")
raise ValueError("at the end")
"""


def test_what_nobody_catches_is_in_the_log_and_nowhere_else():
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    reported = [(line["level"], line.get("exception", line["message"])) for line in lines]
    assert [level for level, _ in reported] == ["error", "error", "warning", "critical"]
    assert reported[0][1].endswith("OSError: in a thread")
    assert reported[1][1].endswith("KeyError")
    assert "take care" in reported[2][1]
    assert reported[3][1].endswith("ValueError: at the end")


FAILING = """
import logging
from service.observability.logs import log_uncaught, set_up
set_up("info", "json")
log_uncaught()
logging.info("x" * 20_000)
raise ValueError("at the end")
"""


def test_a_process_that_fails_ends_though_nobody_reads_its_log():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    environment = os.environ | {"PYTHONPATH": "."}
    try:
        command = [sys.executable, "-c", FAILING]
        with subprocess.Popen(command, stderr=writing, env=environment) as process:
            assert process.wait(30) == 1
    finally:
        os.close(reading)
        os.close(writing)


# -- requests ----------------------------------------------------------------------------------


def test_each_request_has_a_line_that_says_how_it_went(written, calling):
    stream = written()
    service, caller = calling(log_requests=True)
    headers = (("x-request-id", "edge/7"), TRACE_PARENT)
    request = pb.GenerateRequest(model="letters", prompt="abc", max_tokens=5)
    call = caller.unroll.Generate(request, metadata=headers)
    list(call)
    assert dict(call.trailing_metadata())["x-request-id"] == "edge/7"
    service.stop()
    (line,) = request_lines(stream)
    assert 0 < line.pop("queue_seconds") < line.pop("first_token_seconds") < line.pop("seconds")
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line.pop("time")
    assert line == {
        "level": "info", "logger": "service.requests", "message": "request",
        "request_id": "edge/7", "trace_id": TRACE, "method": "Generate", "model": "letters",
        "code": "OK", "input_tokens": 3, "output_tokens": 5, "finish_reason": "length",
    }  # fmt: skip


def test_a_refused_request_has_a_line_and_an_id(written, calling):
    stream = written()
    service, caller = calling(log_requests=True)
    with pytest.raises(grpc.RpcError) as caught:
        caller.unroll.Classify(pb.ClassifyRequest(model=CANARY, texts=["good"]))
    service.stop()
    (line,) = request_lines(stream)
    assert (line["code"], line["error"]) == ("NOT_FOUND", "ModelNotFound")
    assert "model" not in line  # any number of names could be invented
    assert dict(caught.value.trailing_metadata())["x-request-id"] == line["request_id"]
    assert re.fullmatch(r"[0-9a-f]{16}", line["request_id"])


@pytest.mark.parametrize("given", ["with space", "", "x" * 129])
def test_an_id_that_cannot_be_used_is_replaced(written, calling, given):
    stream = written()
    service, caller = calling(log_requests=True)
    request = pb.ClassifyRequest(model="mood", texts=["good"])
    metadata = (("x-request-id", given), ("traceparent", f"00-{'0' * 32}-b7ad6b7169203331-01"))
    _, call = caller.unroll.Classify.with_call(request, metadata=metadata)
    service.stop()
    (line,) = request_lines(stream)
    assert re.fullmatch(r"[0-9a-f]{16}", line["request_id"])
    assert dict(call.trailing_metadata())["x-request-id"] == line["request_id"]
    assert "trace_id" not in line


@pytest.mark.parametrize("shows_texts", [False, True])
def test_a_caller_cannot_make_lines_long_or_many(written, calling, shows_texts):
    """Ids, names and texts of a megabyte, with all that breaks a line."""
    stream = written(shows_texts=shows_texts)
    service, caller = calling(log_requests=True, log_texts=shows_texts)
    long = CANARY * 8000
    sent = [
        (UNROLL["Classify"], pb.ClassifyRequest(model=long, texts=["good"])),
        (UNROLL["Classify"], pb.ClassifyRequest(model="mood", texts=[long])),
        (UNROLL["Generate"], pb.GenerateRequest(model=long, prompt=long)),
        (INFERENCE["ModelInfer"], ask(long, {"text": [["good"]]}, id=long)),
        (INFERENCE["ModelStreamInfer"], ask("mood", {"text": [["good"]]}, id=long)),
        (
            INFERENCE["ModelInfer"],
            ask("mood", {"text": [["good"]]}, parameters={"sequence_id": long}),
        ),
    ]
    for method, message in sent:
        caller.call(method, [message])
    service.stop()
    lines = [line for line in stream.getvalue().split("\n") if '"service.requests"' in line]
    assert len(lines) == len(sent)
    assert max(map(len, lines)) < (300_000 if shows_texts else 600)
    for line in lines:
        assert re.fullmatch(r"[0-9a-f]{16}", json.loads(line)["request_id"])


def test_requests_of_the_open_inference_protocol_bring_their_ids(written, calling):
    stream = written()
    service, caller = calling(log_requests=True)
    infer, headers = caller.inference.ModelInfer, (("x-request-id", "edge"),)

    def named(own):
        return ask("mood", {"text": [["good"]]}, id=own)

    infer(named("own"))
    infer(named("own"), metadata=headers)
    call = caller.inference.ModelStreamInfer(iter([named("1"), named("2")]), metadata=headers)
    list(call)
    service.stop()
    ids = [line["request_id"] for line in request_lines(stream)]
    assert ids[:2] == ["own", "edge"]
    assert sorted(ids[2:]) == ["edge/1", "edge/2"]
    assert dict(call.trailing_metadata())["x-request-id"] == "edge"


def test_an_uncaught_error_is_logged_with_the_ids_of_its_request(written, calling, monkeypatch):
    stream = written()
    service, caller = calling(log_requests=True)
    monkeypatch.setattr(service.app.registry, "call", lambda *_: fail(CANARY))
    headers = (("x-request-id", "edge"), TRACE_PARENT)
    with pytest.raises(grpc.RpcError) as caught:
        caller.unroll.Classify(pb.ClassifyRequest(model="mood", texts=["x"]), metadata=headers)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    service.stop()
    (failed,) = [line for line in lines_of(stream) if line["level"] == "error"]
    (request,) = request_lines(stream)
    for line in (failed, request):
        assert (line["request_id"], line["trace_id"]) == ("edge", TRACE)
    assert failed["message"] == "Classify failed"
    assert "in fail" in failed["exception"]


def test_the_level_is_changed_while_it_runs(written, calling):
    stream = written()
    service, caller = calling(log_requests=True)
    request = pb.ClassifyRequest(model="mood", texts=["good"])
    off = oip.LogSettingsRequest.SettingValue(bool_param=False)
    caller.unroll.Classify(request)
    caller.inference.LogSettings(oip.LogSettingsRequest(settings={"log_info": off}))
    caller.unroll.Classify(request)
    service.stop()
    assert [line["method"] for line in request_lines(stream)] == ["Classify"]


# -- texts -------------------------------------------------------------------------------------


def filled(message, depth=0):
    """``message`` with the canary in every text of it, also as a name."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_STRING:
            value.append(CANARY) if field.is_repeated else setattr(message, field.name, CANARY)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            data = CANARY.encode()
            value.append(data) if field.is_repeated else setattr(message, field.name, data)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < 3:
            if not field.is_repeated:
                filled(value, depth + 1)
            elif not field.message_type.GetOptions().map_entry:
                filled(value.add(), depth + 1)
            elif field.message_type.fields_by_name["value"].message_type:
                filled(value[CANARY], depth + 1)
    return message


def with_texts():
    """Requests that are served, of every method that takes texts, with the canary in them."""
    generate = pb.GenerateRequest(
        model="letters", prompt=CANARY, stop=[CANARY], max_tokens=4, echo=True
    )
    infer = ask("tags", {"text": [[CANARY]]}, raw=True)
    sent = {
        "Classify": [pb.ClassifyRequest(model="mood", texts=[CANARY])],
        "Tag": [pb.TagRequest(model="tags", items=[pb.TagItem(words=[CANARY])])],
        "StreamTag": [
            pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online")),
            pb.StreamTagRequest(text=CANARY),
            pb.StreamTagRequest(words=pb.Words(words=[CANARY])),
        ],
        "Fill": [pb.FillRequest(model="blank", texts=[f"{CANARY} ___"])],
        "Score": [pb.ScoreRequest(model="letters", items=[pb.ScoreItem(text=CANARY)])],
        "Embed": [pb.EmbedRequest(model="letters", texts=[CANARY])],
        "Generate": [generate],
        "ModelInfer": [infer],
        "ModelStreamInfer": [infer, ask("mood", {"text": [[CANARY]]})],
    }
    methods = UNROLL | INFERENCE
    return [(methods[name], messages) for name, messages in sent.items()]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("is_asked", [False, True])
def test_what_callers_send_is_in_the_log_only_where_it_is_asked_for(
    written, calling, form, is_asked
):
    """Every method, served and refused, at the level that logs most."""
    stream = written("debug", form, shows_texts=is_asked)
    service, caller = calling(log_requests=True, log_texts=is_asked)
    served = [caller.call(method, messages) for method, messages in with_texts()]
    refused = [
        caller.call(method, [filled(method.request())]) for method in (UNROLL | INFERENCE).values()
    ]
    service.stop()
    assert set(served) == {grpc.StatusCode.OK}
    assert {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT} < set(refused)
    reported = stream.getvalue()
    assert reported.count("request_id") >= len(served) + len(refused)
    assert ("canary" in reported) is is_asked
    assert not LISTENED.search(reported)
    if form == "json":
        lines_of(stream)


def test_a_long_request_is_reported_by_its_size(written, calling):
    stream = written()
    service, caller = calling(log_requests=True, log_texts=True)
    request = pb.ClassifyRequest(model="mood", texts=["good good good good"] * 1000)
    caller.unroll.Classify(request)
    service.stop()
    assert request_lines(stream)[0]["text"] == f"({request.ByteSize()} bytes)"


def test_a_call_of_several_requests_is_logged_by_the_id_that_its_caller_gets(written, calling):
    """Also one that is refused before a request of it was read."""
    stream = written()
    service, caller = calling(log_requests=True)
    requests = [ask("mood", {"text": [["good"]]}) for _ in range(2)]
    served = caller.inference.ModelStreamInfer(iter(requests), timeout=20)
    list(served)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AllowAll, "caller", refuse)
        refused = caller.inference.ModelStreamInfer(iter(requests), timeout=20)
        with pytest.raises(grpc.RpcError):
            list(refused)
    service.stop()
    reported = [(line["request_id"], line["code"]) for line in request_lines(stream)]
    first, second = (dict(call.trailing_metadata())["x-request-id"] for call in (served, refused))
    assert reported == [(first, "OK"), (first, "OK"), (second, "UNAUTHENTICATED")]


def refuse(*_):
    raise Unauthenticated("the call has no token")


def test_a_resume_token_is_no_text(written, calling):
    """Whoever reads the log must not be able to go on with the stream."""
    stream = written()
    service, caller = calling(log_requests=True, log_texts=True)
    begun = pb.GenerateRequest(model="letters", prompt="ab", max_tokens=4, resume_at_end=True)
    token = list(caller.unroll.Generate(begun))[-1].resume_points[0].token
    resumed = pb.GenerateRequest(model="letters", resume_token=token, max_tokens=2)
    list(caller.unroll.Generate(resumed))
    forecast = pb.ForecastRequest(model="rides", resume_token=token)
    with pytest.raises(grpc.RpcError):  # it is of another method
        list(caller.unroll.Forecast(forecast))
    service.stop()
    for line in request_lines(stream)[1:]:
        assert 'resume_token: "..."' in line["text"]
    assert "URT1" not in stream.getvalue()


def test_every_kind_of_request_is_watched_to_its_end(written, calling, models_copy):
    write_step_bundle(models_copy, STEPPER, gains=(1.0, 3.0))
    stream = written()
    service, caller = calling(log_requests=True, models=models_copy)
    seeds = unroll_seeds()
    codes = {caller.call(seed.method, seed.messages) for seed in seeds}
    service.stop()
    assert codes == {grpc.StatusCode.OK}
    lines = request_lines(stream)
    assert len(lines) == len(seeds)
    for line in lines:
        if line["method"] in ("ListModels", "GetModel", "ListStates"):
            assert "queue_seconds" not in line
            continue
        assert line["input_tokens"] > 0
        assert 0 <= line["queue_seconds"] <= line["seconds"]
        is_stream = line["method"] in ("Generate", "StreamTag", "StreamStep", "Forecast")
        assert is_stream == ("output_tokens" in line) == ("finish_reason" in line)
