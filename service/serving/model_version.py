"""One served version of a model: its calls, its retirement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.serving.request_timing import ENGINE_TIMES, EngineTimes
from service.serving.served_model import ServedModel
from service.serving.statistics import CallTimes, ModelStatistics
from service.serving.worker import EngineThread

Model = TypeVar("Model")


@dataclass(eq=False, slots=True)
class Call(Generic[Model]):
    """One request of a caller, filled in by whoever serves it.

    inferences: how many inputs it held. input_seconds, output_seconds: what converting took.
    engines: filled in by whatever it has engines do.
    """

    model: Model
    inferences: int = 1
    input_seconds: float = 0.0
    output_seconds: float = 0.0
    engines: EngineTimes = field(default_factory=EngineTimes)

    @property
    def times(self) -> CallTimes:
        engines = self.engines
        return CallTimes(
            engines.queue_seconds, self.input_seconds, engines.compute_seconds, self.output_seconds
        )


class _Lease(Generic[Model]):
    """ServedVersion.call_of(). A class: each request enters one, and a generator costs twice as
    much."""

    __slots__ = ("_began", "_call", "_clock", "_version")

    def __init__(
        self, version: ServedVersion, call: Call[Model], clock: Callable[[], float]
    ) -> None:
        self._version, self._call, self._clock = version, call, clock

    def __enter__(self) -> Call[Model]:
        ENGINE_TIMES.set(self._call.engines)
        self._version.take()
        self._began = self._clock()
        return self._call

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        call, version, seconds = self._call, self._version, self._clock() - self._began
        if error is None:
            version.statistics.succeeded(seconds, call.inferences, call.times)
        else:
            version.statistics.failed(seconds)
        # Not reset(): what is torn down with its loop ends in another context.
        ENGINE_TIMES.set(None)
        version.give()


def _nothing(*_: object) -> None:
    """Nothing listens."""


class ServedVersion:
    """One version of a model that is served, and how many use it. For the event loop alone.

    threads: of its engines. on_free: called once, with this version, when it is retired and
    nobody uses it any more.
    clock: for the time of calls, in seconds.
    """

    def __init__(
        self,
        model: ServedModel,
        statistics: ModelStatistics | None = None,
        threads: Sequence[EngineThread] = (),
        on_free: Callable[[ServedVersion], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.statistics = statistics or ModelStatistics()
        self.threads = tuple(threads)
        self.on_free = on_free
        self.users = 0
        self.is_retired = False
        self._is_withdrawn = False
        self._is_free = False
        self._clock = clock
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def name(self) -> str:
        return self.model.card.name

    @property
    def version(self) -> str:
        return self.model.card.version

    @property
    def state_bytes(self) -> int:
        """Of one stream, as it is kept between two requests."""
        return sum(spec.row_bytes for spec in self.model.card.state)

    @property
    def has_failed(self) -> bool:
        """Whether one of its engines broke: it answers some calls no more."""
        return any(thread.failure for thread in self.threads)

    def take(self) -> None:
        """A sequence or a call begins to use it. A retired one can be taken while it is used."""
        assert not self._is_free, "its engines are being stopped"
        self.users += 1

    def give(self) -> None:
        """Whoever took it is done."""
        self.users -= 1
        self._free_if_unused()

    def retire(self) -> None:
        """A newer version has taken over: those who use it finish, nobody else begins."""
        self.is_retired = True
        self._free_if_unused()

    def withdraw(self) -> None:
        """The model is unloaded: retire, and wake whoever waits for that."""
        self.is_retired = self._is_withdrawn = True
        callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()
        self._free_if_unused()

    def when_withdrawn(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called once when the model is unloaded, at once if it was.

        Returns what removes it again.
        """
        if self._is_withdrawn:
            callback()
            return _nothing
        key = object()
        self._callbacks[key] = callback
        return lambda: self._forget(key)

    def call(self) -> AbstractContextManager[Call[ServedModel]]:
        """One request: taken, its outcome and duration recorded, given."""
        return self.call_of(self.model)

    def call_of(self, model: Model) -> AbstractContextManager[Call[Model]]:
        """As call(), of ``model``: this version's own, or the part of it that is asked."""
        return _Lease(self, Call(model), self._clock)

    def _forget(self, key: object) -> None:
        self._callbacks.pop(key, None)

    def _free_if_unused(self) -> None:
        if self.is_retired and not self.users and not self._is_free:
            self._is_free = True
            self._callbacks.clear()
            self.on_free(self)
