"""Forecasting: streams whose next value is drawn from the last ones, and from what is known of its
step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import StateTensor
from bundle.series import EncodedSeries
from service.engine.errors import RequestError
from service.engine.open_work import Ahead
from service.engine.prefill import PrefillBudget
from service.engine.requests import (
    Event,
    FinishReason,
    ForecastRequest,
    Sampling,
    Sink,
    State,
    ValueMade,
)
from service.engine.rng import key_of
from service.engine.scheduler import PrefillPolicy, Prompt
from service.engine.shares import NOBODY, Share
from service.engine.slots import SeriesSlots, StateStore
from service.engine.step_engine import (
    Observer,
    RequestState,
    Runner,
    StepEngine,
    StepSequence,
)
from service.engine.throughput import Throughput

LOG_SCALE = "log_scale"

_NOTHING = np.zeros((0, 0), np.float32)


@dataclass(eq=False, slots=True, kw_only=True)
class ValueSequence(StepSequence):
    """One way in which a series may go on.

    series: its number in the request. value, observed: what its next step reads of the step before;
    in the slots while it runs. future: (horizon, features) of the steps to come.
    """

    progress: Forecast
    series: int = 0
    value: float = 0.0
    observed: float = 1.0
    future: NDArray[Any] = field(default_factory=lambda: _NOTHING)


# A request while it runs.
Forecast = RequestState[ValueSequence, ForecastRequest]


class ForecastEngine(StepEngine[ValueSequence, ForecastRequest]):
    """Draws values of series, in units of their scales.

    features: of each step. The samples of a series share what is read of it.
    """

    slots: SeriesSlots

    def __init__(
        self,
        state: Sequence[StateTensor],
        features: int,
        runner: Runner,
        capacity: int,
        clock: Callable[[], float],
        observer: Observer,
        prefill_budget: PrefillBudget | None = None,
        rows: StateStore | None = None,
    ) -> None:
        super().__init__(
            SeriesSlots(state, capacity, features, rows),
            PrefillPolicy(whole=False),
            runner,
            clock,
            observer,
            prefill_budget,
        )
        self._features = features
        self._throughput = Throughput()

    def warm_prefill(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Prefill batches of these (series, values) once; the cost of each is learned too."""
        for rows, length in shapes:
            started = self.clock()
            nothing = np.zeros((length, 2 + self._features), np.float32)
            self.runner.prefill([nothing] * rows, [self._zeros] * rows)
            self.scheduler.cost.observe(rows, length, self.clock() - started)

    # -- from the thread: open, arrive ---------------------------------------------------------

    @staticmethod
    def open(request: ForecastRequest, sink: Sink[Event], share: Share = NOBODY) -> Forecast:
        """``request`` as the engine knows it; on any thread, since it touches no engine."""
        return RequestState(request, sink, request.arrived, request.streams, share)

    def arrive(self, progress: Forecast) -> None:
        """Its streams wait for rows from now on."""
        request = progress.request
        for number, series in enumerate(request.series):
            progress.streams.extend(self._streams(progress, number, series))
        self.prefill_budget.newcomer()
        for stream in progress.streams:
            self.scheduler.arrive(stream)

    def _streams(
        self, progress: Forecast, number: int, series: EncodedSeries
    ) -> list[ValueSequence]:
        request = progress.request
        log_scale = np.float32(np.log(series.scale))
        key = key_of(request.seed, series.digest)
        prompt = Prompt(
            series.context,
            request.samples,
            state={**self._zeros, LOG_SCALE: np.asarray(log_scale)},
        )
        return [
            ValueSequence(
                prompt,
                share=progress.share,
                progress=progress,
                sink=progress.sink,
                sampling=Sampling.of(request.seed),
                key=key,
                sample=sample,
                series=number,
                value=series.last,
                observed=float(series.observed),
                future=series.future,
            )
            for sample in range(request.samples)
        ]

    def cost(self, request: ForecastRequest) -> float:
        """Values that it will draw."""
        return float(request.streams * request.horizon)

    def wait_seconds(self, ahead: Ahead, coming: int) -> float:
        scheduler = self.scheduler
        if scheduler.free_rows > scheduler.queue_length + coming:
            return 0.0
        return self._throughput.wait_seconds(ahead, scheduler.capacity)

    def hand_over(self, error: RequestError) -> list[Sink[Event]]:
        """End every request with ``error``: another server makes the same values of it anew."""
        return self.fail(error)

    # -- one step ------------------------------------------------------------------------------

    def _first_state(self, stream: ValueSequence) -> State | None:
        prompt = stream.prompt
        state = prompt.state
        prompt.unserved -= 1
        if not prompt.unserved:
            prompt.state = None  # nobody needs it any more
        return state

    def _load(self, stream: ValueSequence) -> None:
        features = stream.future[stream.made]
        self.slots.control(stream.row, stream.value, stream.observed, features)

    def _note_input(self, stream: ValueSequence) -> None:
        stream.value = float(self.slots.controls["value"][stream.row])
        stream.observed = float(self.slots.controls["observed"][stream.row])

    def _measured(self, seconds: float) -> None:
        self._throughput.stepped(self.scheduler.rows, seconds)

    def _commit(self, rows: int, now: float) -> None:
        """Hand out the values of this step; then streams that are done or held up leave."""
        slots = self.slots
        made = slots.next_value[:rows]
        slots.controls["value"][:rows] = made
        slots.controls["observed"][:rows] = 1.0
        broken = self._requests_of(np.flatnonzero(~np.isfinite(made)).tolist())
        features = slots.controls["features"]
        done: list[ValueSequence] = []
        behind: list[ValueSequence] = []
        for row, (stream, value) in enumerate(zip(self.scheduler.rows, made.tolist(), strict=True)):
            if stream.progress in broken:
                continue
            self._note_first(stream.progress, now)
            position = stream.made
            stream.made = stream.delivered = position + 1
            sink = stream.sink
            sink.put(ValueMade(value, position, stream.sample, stream.series))
            if not (self._sinks and self._sinks[-1] is sink):
                self._sinks.append(sink)
            if stream.made == stream.progress.request.horizon:
                done.append(stream)
                continue
            features[row] = stream.future[stream.made]
            if sink.mark_if_full():
                behind.append(stream)
        for stream in done:
            self._finish(stream, FinishReason.LENGTH)
        for stream in behind:
            self._pause(stream)
        self._fail_alone(broken)

    def _input_tokens(self, progress: Forecast) -> int:
        """Values that were read."""
        return sum(len(series.context) for series in progress.request.series)
