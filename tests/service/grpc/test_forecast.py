"""Forecast over real channels: the same values alone and among others, refusals by name."""

import math
import re

import grpc
import numpy as np
import pytest

from tests.tiny import names_without
from unroll import RequestFailed, Series
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

TEMPERATURE = "temperature (°C)"
START = "2024-03-01T05:00:00"


def series(number=0, length=30, horizon=6, **changes):
    random = np.random.default_rng(number)
    values = (10 + random.random(length)).tolist()
    beside = {TEMPERATURE: random.random(length + horizon).tolist()}
    return Series(**{"values": values, "start": START, "covariates": beside, **changes})


def forecast(caller, *asked, horizon=6, samples=5, seed=3, **others):
    """Steps by (series, position)."""
    options = {"horizon": horizon, "samples": samples, "seed": seed, **others}
    chunks = list(caller.forecast("rides", asked, **options))
    return {(s.series, s.position): s for chunk in chunks for s in chunk.steps}


def test_every_step_comes_once_in_order_with_its_time(caller):
    asked = [series(horizon=3)]
    chunks = list(caller.forecast("rides", asked, horizon=3, samples=4, seed=5))
    steps = [step for chunk in chunks for step in chunk.steps]
    assert [step.position for step in steps] == [0, 1, 2]
    assert [step.time for step in steps] == [
        "2024-03-02T11:00:00", "2024-03-02T12:00:00", "2024-03-02T13:00:00",
    ]  # fmt: skip
    assert all(len(step.samples) == 4 and not step.quantiles for step in steps)
    assert chunks[0].seed == 5
    end = chunks[-1].end
    assert (end.input_values, end.output_values) == (30, 12)


def test_quantiles_are_those_of_the_samples(caller):
    wanted = [0.1, 0.5, 0.9]
    samples = forecast(caller, series())
    quantiles = forecast(caller, series(), quantiles=wanted)
    for key, step in quantiles.items():
        assert step.samples == ()
        assert step.quantiles == pytest.approx(np.quantile(samples[key].samples, wanted))
        assert step.mean == pytest.approx(np.mean(samples[key].samples))


def test_a_series_is_forecast_alike_alone_and_among_others(caller):
    """The bits of each sample, whatever their number and whatever else is asked."""
    alone = forecast(caller, series(7))
    among = forecast(caller, series(1, 48), series(7), series(2, 4), samples=9)
    for position in range(6):
        assert among[1, position].samples[:5] == alone[0, position].samples


def test_long_series_are_read_from_their_end(caller):
    """The calendar goes on from the start of what was sent."""
    long = series(3, 60)
    values, beside = long.values, long.covariates[TEMPERATURE]
    short = Series(values[12:], "2024-03-01T17:00:00", {TEMPERATURE: beside[12:]})
    assert [s.samples for s in forecast(caller, long).values()] == [
        s.samples for s in forecast(caller, short).values()
    ]


def test_missing_values_are_taken_and_matter(caller):
    known = series()
    gap = [None if n in (3, 29) else value for n, value in enumerate(known.values)]
    found = forecast(caller, series(values=gap))
    assert all(math.isfinite(value) for step in found.values() for value in step.samples)
    assert found[0, 0].samples != forecast(caller, known)[0, 0].samples


def test_forecasts_are_in_the_unit_of_the_series(caller):
    """Scaling by a power of two moves no bit; the scale itself is read, so values differ a bit."""
    known = series()
    large = series(values=[value * 2.0**20 for value in known.values])
    one, other = forecast(caller, known)[0, 5].mean, forecast(caller, large)[0, 5].mean
    assert 0.2 < other / (one * 2.0**20) < 5


def test_the_usual_request_takes_the_models_horizon_and_a_hundred_samples(caller):
    (first, *_, last) = list(caller.forecast("rides", [series(horizon=30)]))
    assert first.seed is not None
    assert last.end.output_values == 30 * 100
    again = {
        step.position: step.samples
        for chunk in caller.forecast("rides", [series(horizon=30)], seed=first.seed)
        for step in chunk.steps
    }
    assert again[first.steps[0].position] == first.steps[0].samples


def test_a_model_says_what_it_forecasts(caller):
    model = caller.get_model("rides")
    assert model.task == pb.TASK_FORECAST
    spec = model.forecaster
    assert (spec.frequency, spec.distribution, spec.calendar) == ("h", "student-t", True)
    assert (list(spec.covariates), spec.least_context) == ([TEMPERATURE], 4)
    assert (spec.context, spec.horizon) == (48, 30)
    assert model.batch_invariant


def message(**changes):
    """A Series of five values for a horizon of 6."""
    beside = [pb.Covariate(name=TEMPERATURE, past=[1] * 5, future=[2] * 6)]
    fields = {"values": [1, 2, 3, 4, 5], "start": START, "covariates": beside}
    return pb.Series(**{**fields, **changes})


def covariate(name=TEMPERATURE, past=5, future=6, value=1.0):
    return [pb.Covariate(name=name, past=[value] * past, future=[value] * future)]


REFUSED = {
    "no series": ({"series": []}, "series holds 0 entries; send 1 to 1024"),
    "too short": ({"series": [message(), message(values=[1, 2])]},
                  r"series\[1\].values has 2 entries; model 'rides' reads at least 4"),
    "nothing known": ({"series": [message(values=[math.nan] * 5)]}, "no entry but NaN"),
    "infinite": ({"series": [message(values=[1, 2, math.inf, 4, 5])]},
                 r"series\[0\].values\[2\] is inf; send numbers up to"),
    "no start": ({"series": [message(start="")]}, r"series\[0\].start is empty; model 'rides'"),
    "no time": ({"series": [message(start="noon")]}, r"series\[0\].start: 'noon' is no timestamp"),
    "beyond the calendar": ({"series": [message(start="9998-12-31T22:00")]}, "leave the years"),
    "no covariate": ({"series": [message(covariates=[])]},
                     rf"covariates\['{re.escape(TEMPERATURE)}'\] is missing"),
    "unknown covariate": ({"series": [message(covariates=covariate("rain"))]},
                          "has 'rain', model 'rides' takes 'temperature"),
    "covariate twice": ({"series": [message(covariates=covariate() * 2)]}, "has a name twice"),
    "short past": ({"series": [message(covariates=covariate(past=4))]},
                   "past has 4 entries; send 5, as many as values"),
    "short future": ({"series": [message(covariates=covariate(future=5))]},
                     "future has 5 entries; send 6, one for each step of the horizon"),
    "covariate missing": ({"series": [message(covariates=covariate(value=math.nan))]},
                          r"past\[0\] is nan"),
    "horizon": ({"horizon": 31}, "horizon is 31; model 'rides' forecasts 1 to 30 steps"),
    "one sample": ({"samples": 1}, "samples is 1; choose 2 to 1024"),
    "samples": ({"samples": 1025}, "samples is 1025; choose 2 to 1024"),
    "streams": ({"series": [message()] * 5, "samples": 1000}, "are 5000 streams, and this server"),
    "quantile": ({"quantiles": [0.5, 1.0]}, r"quantiles\[1\] is 1; choose one between 0 and 1"),
    "quantiles": ({"quantiles": [0.5] * 100}, "quantiles holds 100 entries; send at most 99"),
    "frequency": ({"frequency": "D"}, "frequency is 'D', model 'rides' forecasts series of 'h'"),
    "numbers": ({"series": [message(values=[1.0] * 65_537)]}, "numbers together; send at most"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_forecast_is_refused_by_name(refusal, why):
    changes, said = REFUSED[why]
    asked = {"model": "rides", "series": [message()], "horizon": 6, **changes}
    assert re.search(said, refusal("Forecast", pb.ForecastRequest(**asked)))


@pytest.mark.parametrize("name", names_without("rides"))
def test_other_models_do_not_forecast(refusal, name):
    assert "does not forecast; call" in refusal("Forecast", pb.ForecastRequest(model=name))


def test_a_forecaster_does_nothing_else(refusal):
    for method, request in (
        ("Generate", pb.GenerateRequest(model="rides", prompt="a")),
        ("Classify", pb.ClassifyRequest(model="rides", texts=["a"])),
    ):
        assert "call Forecast" in refusal(method, request)


def test_a_caller_that_leaves_frees_its_rows(caller):
    for _ in range(5):
        chunks = caller.forecast("rides", [series(horizon=30)], samples=200)
        next(chunks)
        chunks.close()
    assert len(forecast(caller, series())) == 6


def test_an_unknown_model_is_not_found(caller):
    with pytest.raises(RequestFailed, match="NOT_FOUND"):
        list(caller.forecast("tides", [[1.0]]))


@pytest.fixture
def stub(standing_service):
    with grpc.insecure_channel(standing_service.target) as channel:
        yield unroll_pb2_grpc.UnrollServiceStub(channel)


def test_a_forecast_goes_on_from_any_of_its_resume_tokens(stub):
    asked = {"model": "rides", "series": [message()], "horizon": 6, "samples": 4, "seed": 3}
    responses = list(stub.Forecast(pb.ForecastRequest(**asked, resume_every=2)))
    steps = [step for response in responses for step in response.steps]
    tokens = [response.resume_token for response in responses if response.resume_token]
    assert 1 <= len(tokens) <= 3
    for token in tokens:
        rest = [
            step
            for response in stub.Forecast(pb.ForecastRequest(model="rides", resume_token=token))
            for step in response.steps
        ]
        assert 0 < len(rest) <= 4
        assert rest == steps[-len(rest) :]


@pytest.fixture
def token(stub):
    asked = {"model": "rides", "series": [message()], "horizon": 6, "samples": 4, "seed": 3}
    request = pb.ForecastRequest(**asked, resume_every=1)
    return next(r.resume_token for r in stub.Forecast(request) if r.resume_token)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"series": [message()]}, "has the series, horizon, samples and seed of its forecast"),
        ({"horizon": 3}, "leave them out beside it"),
        ({"samples": 3}, "leave them out beside it"),
        ({"seed": 3}, "leave them out beside it"),
        ({"quantiles": [2.0]}, r"quantiles\[0\] is 2"),
    ],
)
def test_what_a_resume_token_has_is_refused_beside_it(refusal, token, changes, said):
    request = pb.ForecastRequest(model="rides", resume_token=token, **changes)
    assert re.search(said, refusal("Forecast", request))


def test_a_resume_token_is_taken_as_it_came_and_by_its_method_alone(stub, refusal, token):
    changed = token[:-1] + bytes([token[-1] ^ 1])
    request = pb.ForecastRequest(model="rides", resume_token=changed)
    assert "was changed on its way" in refusal("Forecast", request)
    request = pb.GenerateRequest(model="letters", resume_token=token)
    with pytest.raises(grpc.RpcError, match="with a call of Forecast, not of Generate") as caught:
        list(stub.Generate(request, timeout=20))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
