"""A forecast over several calls: made anew by its seed, no step lost or delivered twice."""

import math
from datetime import date

import pytest

from unroll import Retries, Series
from unroll.forecasts import ResumableForecast, forecast_request
from unroll.types import RequestFailed
from unroll.v1 import unroll_pb2 as pb

BROKEN = RequestFailed("UNAVAILABLE", "the connection broke")


def make(attempts=3, **fields):
    request = pb.ForecastRequest(model="rides", **fields)
    return ResumableForecast(request, Retries(attempts), lambda: 0.0, lambda: 77)


def message(*steps, seed=None, last=False):
    """steps: of (series, position)."""
    return pb.ForecastResponse(
        steps=[pb.ForecastStep(series=s, position=p, mean=s + p) for s, p in steps],
        seed=seed,
        usage=pb.Usage(output_tokens=9) if last else None,
    )


def places(chunk):
    return [(step.series, step.position) for step in chunk.steps]


def test_a_request_without_a_seed_gets_one():
    """So that a second call makes the same values."""
    assert make().request.seed == 77
    assert make(seed=0).request.seed == 0


def test_what_was_delivered_is_left_out_of_a_second_call():
    forecast = make()
    assert places(forecast.take(message((0, 0), (1, 0), seed=77))) == [(0, 0), (1, 0)]
    assert places(forecast.take(message((0, 1)))) == [(0, 1)]
    forecast.fail(BROKEN)
    assert forecast.wait_seconds > 0
    assert forecast.take(message((0, 0), (1, 0), seed=77)) is None, "the seed is known too"
    assert places(forecast.take(message((0, 1), (1, 1)))) == [(1, 1)]
    end = forecast.take(message((0, 2), (1, 2), last=True))
    assert places(end) == [(0, 2), (1, 2)]
    assert end.end.output_values == 9
    forecast.end()
    assert forecast.is_over


def test_a_refusal_is_final():
    forecast = make()
    with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
        forecast.fail(RequestFailed("INVALID_ARGUMENT", "horizon is 99"))


def test_calls_that_bring_nothing_are_not_made_for_ever():
    forecast = make(attempts=3)
    forecast.take(message((0, 0), seed=77))
    for _ in range(2):
        forecast.fail(BROKEN)
    with pytest.raises(RequestFailed, match="UNAVAILABLE"):
        forecast.fail(BROKEN)


def test_an_end_without_a_last_message_is_a_failure():
    forecast = make(attempts=1)
    forecast.take(message((0, 0), seed=77))
    with pytest.raises(RequestFailed, match="without its last message"):
        forecast.end()


def test_a_server_that_says_when_is_asked_again_then():
    forecast = make()
    forecast.fail(RequestFailed("RESOURCE_EXHAUSTED", "full", retry_after_seconds=1.5))
    assert forecast.wait_seconds == 1.5


def test_missing_values_and_covariates_go_into_their_fields():
    series = Series([1.0, None], date(2024, 3, 1), {"price": [1, 2, 3, 4]})
    request = forecast_request("m", [series, [5.0]], {"horizon": 2, "quantiles": (0.5,)})
    first, second = request.series
    assert first.values[0] == 1.0
    assert math.isnan(first.values[1])
    assert first.start == "2024-03-01"
    (price,) = first.covariates
    assert (list(price.past), list(price.future)) == ([1, 2], [3, 4])
    assert list(second.values) == [5.0]
    assert (request.horizon, list(request.quantiles)) == (2, [0.5])


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="no option 'steps'"):
        forecast_request("m", [[1.0]], {"steps": 3})


def handed_over(token=b"t"):
    return pb.ForecastResponse(resume_token=token)


def test_a_forecast_that_was_handed_over_goes_on_with_its_token():
    """What the token does not hold is asked for anew."""
    forecast = make(series=[pb.Series(values=[1.0])], quantiles=[0.5], horizon=9, resume_every=4)
    forecast.take(message((0, 0), seed=77))
    assert forecast.take(handed_over()) is None
    forecast.end()
    assert not forecast.is_over
    assert forecast.request == pb.ForecastRequest(
        model="rides", quantiles=[0.5], resume_token=b"t", resume_every=4
    )
    end = forecast.take(message((0, 1), seed=77, last=True))
    assert places(end) == [(0, 1)]
    assert end.seed is None


def test_a_call_that_broke_goes_on_with_the_last_token_and_brings_no_step_twice():
    forecast = make(resume_every=1)
    first = message((0, 0), seed=77)
    first.resume_token = b"one"
    assert forecast.take(first).resume_token == b"one"
    forecast.take(message((0, 1)))
    forecast.fail(BROKEN)
    assert forecast.request.resume_token == b"one"
    assert places(forecast.take(message((0, 1), (0, 2), last=True))) == [(0, 2)]


def test_without_failover_the_caller_has_the_token():
    forecast = make(attempts=1)
    forecast.take(message((0, 0), seed=77))
    chunk = forecast.take(handed_over(b"mine"))
    assert (chunk.steps, chunk.end, chunk.resume_token) == ([], None, b"mine")
    forecast.end()
    assert forecast.is_over


def test_a_token_of_an_earlier_call_needs_no_seed():
    assert not make(resume_token=b"t").request.HasField("seed")


def test_where_a_token_is_refused_the_forecast_is_made_anew():
    """As it is where servers share no keys."""
    forecast = make(horizon=3)
    forecast.take(message((0, 0), seed=77))
    forecast.take(handed_over())
    forecast.end()
    forecast.fail(RequestFailed("FAILED_PRECONDITION", "only that very process takes it"))
    assert (forecast.request.seed, forecast.request.horizon) == (77, 3)
    assert places(forecast.take(message((0, 0), (0, 1), last=True))) == [(0, 1)]


def test_two_forecasts_are_never_joined():
    forecast = make()
    forecast.take(message((0, 0), (0, 1), seed=77))
    forecast.fail(BROKEN)
    other = message((0, 0), (0, 1))
    other.steps[1].mean += 1
    with pytest.raises(RequestFailed, match="other steps than those that came before"):
        forecast.take(other)
