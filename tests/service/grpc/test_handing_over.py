"""A service that stops under load: nothing is lost, and what still runs goes on elsewhere."""

import queue
import shutil
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.engine.decode import GenerateEngine
from service.engine.forecasting import ForecastEngine
from service.engine.online_tagging import OnlineTagEngine
from tests import tiny
from tests.service.oip.calls import Inference, ask
from unroll import Client, Series
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

LONG = 400
STEP_SECONDS = 0.004


@pytest.fixture(scope="module")
def models(tiny_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("moving")
    for name in ("letters", "speller", "tags-online", "rides"):
        shutil.copytree(tiny_models / name, root / name)
    return root


@pytest.fixture
def replicas(start_service, models, tmp_path):
    """Two services that share their keys, the first of which stops without a grace."""
    keys = tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    return tuple(
        start_service(models=models, resume_keys=keys, grace_seconds=grace, max_streams=8)
        for grace in (0.0, 5.0)
    )


@pytest.fixture
def stubs(replicas):
    channels = [grpc.insecure_channel(service.target) for service in replicas]
    yield [unroll_pb2_grpc.UnrollServiceStub(channel) for channel in channels]
    for channel in channels:
        channel.close()


@pytest.fixture
def slowly(monkeypatch):
    """Steps that take so long that a stream is still under way when its service stops."""
    for kind in (GenerateEngine, OnlineTagEngine, ForecastEngine):
        step = kind.step

        def slow(self, step=step):
            time.sleep(STEP_SECONDS)
            return step(self)

        monkeypatch.setattr(kind, "step", slow)


def make_request(**options):
    sampling = pb.Sampling(seed=7)
    return pb.GenerateRequest(
        **{"model": "letters", "prompt": "ab", "max_tokens": LONG, "sampling": sampling,
           "log_probabilities": True, **options}
    )  # fmt: skip


def reported(responses):
    return sorted(
        (t.sample, t.position, t.id, t.text, t.log_probability)
        for response in responses
        for t in response.tokens
    )


def gone_on(stub, last, model="letters"):
    """All that comes after the last message of a stream that was handed over."""
    responses = []
    for point in last.resume_points:
        request = pb.GenerateRequest(model=model, resume_token=point.token, log_probabilities=True)
        rest = list(stub.Generate(request, timeout=30))
        assert rest[0].tokens[0].position == point.next_position
        responses += rest
    return responses


@pytest.mark.parametrize(
    ("options", "unfinished"),
    [
        ({}, {0}),
        ({"stop": ["qq", "zz"]}, {0}),
        ({"samples": 3}, {0, 1, 2}),
        # More than there are rows; they go on one after another.
        ({"samples": 12, "max_tokens": 120}, set(range(12))),
        ({"model": "speller", "source": "abcab", "max_tokens": 20, "min_tokens": 20}, {0}),
    ],
    ids=["one", "with stops", "samples", "samples that wait", "a source"],
)
def test_streams_go_on_elsewhere_as_if_nothing_had_happened(
    replicas, stubs, slowly, options, unfinished
):
    request = make_request(**options)
    undisturbed = reported(stubs[1].Generate(request, timeout=60))
    call = stubs[0].Generate(request, timeout=60)
    responses = [next(call)]
    assert replicas[0].stop()
    responses += call
    last = responses[-1]
    assert call.code() is grpc.StatusCode.OK
    assert last.finish_reason == pb.FINISH_REASON_HANDED_OVER
    assert {point.sample for point in last.resume_points} == unfinished
    assert last.usage.output_tokens == sum(len(r.tokens) for r in responses)
    assert reported(responses) != undisturbed
    rest = gone_on(stubs[1], last, request.model)
    assert sorted(reported(responses) + reported(rest)) == undisturbed


def test_what_has_not_begun_is_refused_and_nothing_of_it_was_reported(replicas, stubs, slowly):
    running = [stubs[0].Generate(make_request(), timeout=60) for _ in range(8)]
    for call in running:
        next(call)
    waiting = stubs[0].Generate(make_request(), timeout=60)
    engine = replicas[0].app.registry.get("letters").thread.engine
    deadline = time.monotonic() + 10
    while not engine.scheduler.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert replicas[0].stop()
    with pytest.raises(grpc.RpcError) as caught:
        list(waiting)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "send the request to another one" in caught.value.details()
    for call in running:
        assert list(call)[-1].finish_reason == pb.FINISH_REASON_HANDED_OVER
    assert not engine.scheduler.everyone()


def test_a_search_is_sent_again(replicas, stubs, slowly):
    request = make_request(beam=pb.Beam(width=2), sampling=None)
    call = stubs[0].Generate(request, timeout=60)
    engine = replicas[0].app.registry.get("letters").thread.engine
    while not engine.scheduler.rows:
        time.sleep(0.001)
    assert replicas[0].stop()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_requests_of_the_inference_protocol_are_sent_back_for_later(replicas, slowly):
    request = ask("letters", {"prompt": ["ab"]}, parameters={"max_tokens": LONG})
    with Inference(replicas[0].target) as inference:
        call = inference.stub.ModelStreamInfer(iter([request]), timeout=30)
        assert next(call).infer_response.outputs
        assert replicas[0].stop()
        assert "send the request to another one" in list(call)[-1].error_message


def test_a_stream_of_tags_reports_which_requests_are_answered(replicas, stubs, slowly):
    parts = [" ".join(tiny.WORDS[i : i + 3]) for i in range(5)] * 8
    whole = tags(stubs[1], parts)
    sending = queue.Queue()
    call = stubs[0].StreamTag(iter(sending.get, None), timeout=60)
    sending.put(pb.StreamTagRequest(start=pb.StreamTagStart(model="tags-online")))
    for part in parts[:12]:
        sending.put(pb.StreamTagRequest(text=part))
    responses = [next(call)]
    assert replicas[0].stop()
    responses += call
    sending.put(None)
    last = responses[-1]
    assert last.handed_over
    assert 1 <= last.requests_read <= 12
    (point,) = last.resume_points
    first_half = [(t.text, t.label, t.position) for r in responses for t in r.tokens]
    assert point.next_position == len(first_half)
    rest = tags(stubs[1], parts[last.requests_read :], point.token)
    assert first_half + rest == whole


def forecast_request(**changes):
    def series(first):
        beside = [pb.Covariate(name="temperature (°C)", past=range(9), future=range(30))]
        return pb.Series(
            values=range(first, first + 9), start="2024-03-01T05:00", covariates=beside
        )

    fields = {"series": [series(1), series(50)], "samples": 3, "horizon": 30, "seed": 5}
    return pb.ForecastRequest(**{"model": "rides", **fields, **changes})


def drawn(responses):
    return [
        (s.series, s.position, s.time, s.mean, *s.samples, *s.quantiles)
        for response in responses
        for s in response.steps
    ]


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.9)], ids=["samples", "quantiles"])
def test_forecasts_go_on_elsewhere_with_the_same_bits(replicas, stubs, slowly, quantiles):
    request = forecast_request(quantiles=quantiles)
    undisturbed = drawn(stubs[1].Forecast(request, timeout=60))
    call = stubs[0].Forecast(request, timeout=60)
    responses = [next(call)]
    assert replicas[0].stop()
    responses += call
    assert call.code() is grpc.StatusCode.OK
    last = responses[-1]
    assert last.resume_token
    assert not last.HasField("usage")
    assert 0 < len(drawn(responses)) < len(undisturbed)
    rest = list(
        stubs[1].Forecast(
            pb.ForecastRequest(model="rides", resume_token=last.resume_token, quantiles=quantiles),
            timeout=60,
        )
    )
    assert rest[0].seed == 5
    assert rest[-1].HasField("usage")
    assert sorted(drawn(responses) + drawn(rest)) == sorted(undisturbed)


def test_a_client_goes_on_with_a_forecast_by_itself(replicas, slowly):
    targets = ",".join(service.target for service in replicas)
    series = Series(range(1, 10), "2024-03-01T05:00", {"temperature (°C)": range(39)})
    with Client(replicas[1].target, timeout=60) as client:
        whole = list(client.forecast("rides", [series], samples=3, seed=5))
    with Client(targets, timeout=60) as client:
        chunks = client.forecast("rides", [series], samples=3, seed=5)
        seen = [next(chunks)]
        assert replicas[0].stop()
        seen += chunks
    assert [s for c in seen for s in c.steps] == [s for c in whole for s in c.steps]
    assert seen[-1].end


def test_a_stream_of_tags_that_has_not_begun_holds_up_no_stop(replicas, stubs):
    sending = queue.Queue()
    call = stubs[0].StreamTag(iter(sending.get, None), timeout=60)
    deadline = time.monotonic() + 10
    while not replicas[0].app.inflight.calls:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert replicas[0].stop(), "no call had to be ended"
    with pytest.raises(grpc.RpcError, match="send the request to another one") as caught:
        list(call)
    sending.put(None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def tags(stub, parts, resume_token=b""):
    start = pb.StreamTagStart(model="tags-online", resume_token=resume_token)
    requests = [pb.StreamTagRequest(start=start), *(pb.StreamTagRequest(text=p) for p in parts)]
    responses = stub.StreamTag(iter(requests), timeout=60)
    return [(t.text, t.label, t.position) for r in responses for t in r.tokens]


def test_between_the_announcement_and_the_stop_calls_are_still_taken(replicas, stubs):
    service = replicas[0]
    service.run(service.app.announce())
    with grpc.insecure_channel(service.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "unroll.v1.UnrollService", "letters"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not service.app._answers_ready()
    (*_, last) = stubs[0].Generate(make_request(max_tokens=5), timeout=30)
    assert last.finish_reason == pb.FINISH_REASON_LENGTH
    assert service.stop()
