"""The forecasting engine: the values of a seed are the same alone, in any batch, after a pause."""

import numpy as np
import pytest

from bundle.manifest import StateTensor
from bundle.series import EncodedSeries
from service.engine.errors import EngineFailed, NotFinite
from service.engine.forecasting import ForecastEngine
from service.engine.requests import (
    Failed,
    Finished,
    FinishReason,
    ForecastRequest,
    SampleFinished,
    ValueMade,
)
from service.engine.rng import key_of, uniform_block
from service.engine.shares import Share
from tests.service.engine.fakes import Clock, Reader, Recorder, run

STATE = (
    StateTensor("log_scale", "float32", (), carried=False),
    StateTensor("hidden", "float32", (2,), carried=True),
)


class FakeSeriesRunner:
    """next = hidden + value + features + scale + uniform, hidden = all that was read."""

    def __init__(self):
        self.prefill_calls = []

    def attach(self, sides):
        self.sides = sides

    def prefill(self, tokens, states):
        self.prefill_calls.append([len(row) for row in tokens])
        found = []
        for rows, state in zip(tokens, states, strict=True):
            hidden = state["hidden"].copy()
            for row in np.asarray(rows):
                hidden = (hidden * 3 + row.sum()) % 7
            found.append({**state, "hidden": hidden.astype(np.float32)})
        return found

    def step(self, side, rows):
        read, written = self.sides[side].inputs, self.sides[side].outputs
        total = read["value"][:rows] + read["observed"][:rows] + read["features"][:rows].sum(axis=1)
        hidden = (read["hidden"][:rows] * 3 + total[:, None]) % 7
        written["next_hidden"][:rows] = hidden
        noise = read["uniform"][:rows] + read["log_scale"][:rows]
        written["next_value"][:rows] = hidden[:, 0] + noise


def make_engine(capacity=8):
    return ForecastEngine(STATE, 2, FakeSeriesRunner(), capacity, Clock(), Recorder())


def series(number, length=5, horizon=4, scale=2.0):
    random = np.random.default_rng(number)
    context = random.random((length, 4), np.float32)
    return EncodedSeries(scale, context, 0.5, True, random.random((horizon, 2), np.float32))


def request(*numbers, horizon=4, samples=3, seed=9):
    chosen = tuple(series(number, horizon=horizon) for number in numbers)
    return ForecastRequest(chosen, horizon, samples, seed, 100.0)


def values(reader, series=0):
    """By (sample, position)."""
    made = reader.of(ValueMade)
    return {(e.sample, e.position): e.value for e in made if e.series == series}


def forecast(asked, engine=None, room=10**9):
    engine, reader = engine or make_engine(), Reader(room)
    engine.arrive(engine.open(asked, reader))
    run(engine)
    return reader


def test_each_sample_of_each_series_gets_every_step_once():
    reader = forecast(request(1, 2, samples=3))
    for number in (0, 1):
        steps = [(sample, position) for sample in range(3) for position in range(4)]
        assert sorted(values(reader, number)) == steps
    assert len(reader.of(SampleFinished)) == 6
    assert isinstance(reader.last, Finished)
    last = reader.last
    assert (last.reason, last.input_tokens, last.output_tokens) == (FinishReason.LENGTH, 10, 24)


def test_what_is_read_of_a_series_is_shared_by_its_samples():
    engine = make_engine()
    forecast(request(1, 2, samples=3), engine)
    assert sorted(n for call in engine.runner.prefill_calls for n in call) == [5, 5]


def test_a_series_is_forecast_alike_alone_and_among_others():
    """Whatever series, samples and other requests are beside it."""
    alone = values(forecast(request(7, samples=2)))
    engine, others = make_engine(capacity=5), Reader()
    engine.arrive(engine.open(request(1, 2, samples=4, seed=3), others))
    engine.step()
    reader = forecast(request(4, 7, samples=3), engine)
    among = values(reader, series=1)
    assert {key: among[key] for key in alone} == alone
    assert isinstance(others.last, Finished)


def test_other_seeds_samples_and_scales_give_other_values():
    one = values(forecast(request(7)))
    assert len({one[sample, 3] for sample in range(3)}) == 3
    assert one != values(forecast(request(7, seed=10)))


def test_the_numbers_that_draw_are_those_of_seed_series_sample_and_position():
    """As of a token."""
    found = values(forecast(request(7)))
    state = make_engine().runner.prefill([series(7).context], [{"hidden": np.zeros(2, np.float32)}])
    (uniform,) = uniform_block(key_of(9, series(7).digest), 2, 0)[0]
    hidden = (state[0]["hidden"] * 3 + np.float32(1.5) + series(7).future[0].sum()) % 7
    wanted = hidden[0] + uniform + np.log(2.0)
    assert found[2, 0] == pytest.approx(float(wanted), abs=1e-5)


def test_a_reader_that_falls_behind_changes_no_value():
    whole = values(forecast(request(7, horizon=20)))
    engine, reader = make_engine(), Reader(room=4)
    work = engine.open(request(7, horizon=20), reader)
    engine.arrive(work)
    events = []
    while not events or not isinstance(events[-1], Finished):
        run(engine)
        assert len(reader.of(ValueMade)) <= 4 + 3, "nothing is made for a full reader"
        events, reader.events = events + reader.events, []
        engine.resume(work)
    reader.events = events
    assert values(reader) == whole
    assert engine.observer.waiting_for_readers == 0


def test_a_row_that_another_caller_takes_over_changes_no_value():
    asked = request(7, samples=4, horizon=300)
    whole = values(forecast(asked))
    engine, reader, other = make_engine(capacity=4), Reader(), Reader()
    engine.arrive(engine.open(asked, reader, Share("one")))
    for _ in range(3):
        engine.step()
    engine.arrive(engine.open(request(3, samples=4, horizon=300), other, Share("two")))
    run(engine)
    assert engine.observer.preemptions
    assert values(reader) == whole
    assert isinstance(other.last, Finished)


def test_what_is_not_a_number_fails_its_request_alone():
    engine, reader, other = make_engine(), Reader(), Reader()
    broken = request(7)
    broken.series[0].future[1] = np.inf
    engine.arrive(engine.open(broken, reader))
    engine.arrive(engine.open(request(3), other))
    with np.errstate(invalid="ignore"):
        run(engine)
    assert isinstance(reader.last, Failed)
    assert isinstance(reader.last.error, NotFinite)
    assert values(other) == values(forecast(request(3)))
    assert engine.observer.broken == 1


def test_a_cancelled_forecast_frees_its_rows():
    engine, reader = make_engine(), Reader()
    work = engine.open(request(7, horizon=50), reader)
    engine.arrive(work)
    engine.step()
    engine.cancel(work)
    assert engine.is_idle
    assert not engine.slots.controls["value"].any()
    assert engine.observer.ended[-1][0] is FinishReason.CANCELLED


def test_a_stopping_engine_sends_forecasts_elsewhere():
    engine, reader = make_engine(), Reader()
    engine.arrive(engine.open(request(7), reader))
    engine.step()
    engine.hand_over(EngineFailed("stopping"))
    assert isinstance(reader.last, Failed)
    assert engine.is_idle


def test_the_cost_of_a_forecast_is_its_values():
    assert make_engine().cost(request(1, 2, samples=3, horizon=4)) == 24.0
