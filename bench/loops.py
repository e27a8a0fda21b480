"""Loops without network: the step graph alone, and the engine around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
from prometheus_client import CollectorRegistry

from bench.settings import TEMPERATURE, TOP_P, prompt_of
from bundle.manifest import FP32, ROWS
from bundle.store import Bundle
from service.engine.decode import GenerateEngine
from service.engine.prefixes import Prefixes
from service.engine.requests import Event, GenerateRequest, Sampling, Sink, Watch
from service.engine.slots import Slots, StateStore
from service.engine.step_engine import GenerationModel, Runner
from service.observability.engine_metrics import GenerateMetrics
from service.observability.metrics import Metrics
from service.runtime.device_rows import DeviceRows
from service.runtime.device_runner import DeviceRunner
from service.runtime.devices import DEVICES, choose_provider
from service.runtime.runners import generate_runner
from service.runtime.sessions import SessionSettings, open_session
from service.serving.statistics import ModelStatistics

# Engine steps within which every stream is prefilled and decodes.
_WARM_STEPS = 1000
_FOR_EVER = 2**40  # tokens


@dataclass(frozen=True)
class LoopRound:
    tokens_per_second: float
    cpu_us: float  # a token


@dataclass(frozen=True)
class StepGraph:
    """The step graph of one precision, as the service opens it.

    rows: of the graph that moves state between rows; None where that is in host memory.
    """

    bundle: Bundle
    precision: str
    sessions: Mapping[str, onnxruntime.InferenceSession]
    rows: onnxruntime.InferenceSession | None = None

    def runner(self, capacity: int) -> tuple[Runner, StateStore | None]:
        """What steps, and where so many rows of state lie; None for host memory."""
        runner = generate_runner(self.sessions, self.bundle.manifest.state)
        if self.rows is None:
            return runner, None
        device = DEVICES[self.rows.get_providers()[0]]
        rows = DeviceRows(self.rows, self.bundle.manifest.state, capacity, device)
        return DeviceRunner(runner.prefiller, self.sessions["step"], rows), rows


def open_step(bundle: Bundle, precision: str, device: str = "cpu") -> StepGraph:
    """In int8, prompts are read by the step graph too. Raises DeviceUnavailable."""
    settings = SessionSettings(device, choose_provider(device), threads=1)
    if precision == FP32:
        graphs = {"prime": "prime", "step": "step"}
    else:
        graphs = {"step": bundle.manifest.precisions[precision].graphs["step"]}
    sessions = {role: open_session(bundle, name, settings) for role, name in graphs.items()}
    rows = None if device == "cpu" else open_session(bundle, ROWS, settings)
    return StepGraph(bundle, precision, sessions, rows)


def open_steps(bundle: Bundle, device: str = "cpu") -> list[StepGraph]:
    """fp32, and on the CPU int8 where the bundle has it."""
    beside = [name for name in bundle.manifest.precisions if name == "int8" and device == "cpu"]
    return [open_step(bundle, precision, device) for precision in ("fp32", *beside)]


def open_engine(graph: StepGraph, rows: int, prefixes: Prefixes | None = None) -> GenerateEngine:
    """The engine as service/serving/model_factory.py wires it, metrics included."""
    manifest, output = graph.bundle.manifest, graph.bundle.tokenizers["output"]
    ids = range(len(output.vocabulary))
    first, later = ([output.piece(token, place) for token in ids] for place in (True, False))
    model = GenerationModel(manifest.state, begin_id=None, end_id=None, pieces=(first, later))
    registry = Metrics(CollectorRegistry())
    metrics = GenerateMetrics(registry, manifest.name, ModelStatistics(), rows)
    runner, state_rows = graph.runner(rows)
    return GenerateEngine(
        model, runner, rows, time.monotonic, metrics, rows=state_rows, prefixes=prefixes
    )


def running_engine(graph: StepGraph, rows: int, watch: Watch | None = None) -> GenerateEngine:
    """One with a stream in each row. watch: of each one's state."""
    engine = open_engine(graph, rows)
    encode = graph.bundle.tokenizers["input"].encode
    for seed in range(rows):
        sampling = Sampling.of(seed, temperature=TEMPERATURE, top_p=TOP_P)
        request = GenerateRequest(
            tokens=tuple(encode(prompt_of(seed)).ids),
            sampling=sampling,
            max_tokens=_FOR_EVER,
            stop=(),
            arrived=0.0,
            watch=watch,
        )
        engine.arrive(engine.open(request, Discard()))
    return engine


class Discard(Sink[Event]):
    """A sink that discards what the engine makes."""

    def put(self, event: object) -> None:
        pass


class EngineLoop:
    """The engine's own steps, on one thread, its events discarded. watched: with the whole state
    of each row beside each token."""

    def __init__(self, graph: StepGraph, rows: int, watched: bool = False) -> None:
        self.rows = rows
        self._engine = running_engine(graph, rows, _whole_state(graph) if watched else None)
        for _ in range(_WARM_STEPS):
            if len(self._engine.step()) == rows:
                return
        raise RuntimeError(f"not all of {rows} streams decode after {_WARM_STEPS} steps")

    def run(self, seconds: float) -> LoopRound:
        return _timed(self._engine.step, self.rows, seconds)


def _whole_state(graph: StepGraph) -> Watch:
    carried = tuple(spec.name for spec in graph.bundle.manifest.state if spec.carried)
    return Watch(carried, slice(None))


class BareStep:
    """The step graph alone in a loop, with the engine's own arrays and I/O binding."""

    def __init__(
        self, graph: StepGraph, rows: int, sampling: Mapping[str, float] | None = None
    ) -> None:
        """sampling: parameters by name; those of the streams over gRPC unless it is given."""
        self.rows = rows
        sampling = {"temperature": TEMPERATURE, "top_p": TOP_P} if sampling is None else sampling
        self._runner, state_rows = graph.runner(rows)
        vocabulary = len(graph.bundle.tokenizers["output"].vocabulary)
        self._slots = Slots(graph.bundle.manifest.state, rows, vocabulary, state_rows)
        self._runner.attach(self._slots.sides())
        for row in range(rows):
            self._slots.control(row, 1, False, **sampling)
        random = np.random.default_rng(0)
        for name in ("uniform", "retries"):
            numbers = self._slots.controls[name]
            numbers[:] = random.random(numbers.shape, dtype=np.float32)

    def run(self, seconds: float) -> LoopRound:
        return _timed(self._step, self.rows, seconds)

    def _step(self) -> None:
        self._runner.step(self._slots.side, self.rows)
        self._slots.swap()


def _timed(step: Callable[[], object], rows: int, seconds: float) -> LoopRound:
    """Steps for at least ``seconds``, after two that count for nothing."""
    step()
    step()
    steps, cpu, started = 0, time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    return LoopRound(steps * rows / elapsed, 1e6 * (time.process_time() - cpu) / (steps * rows))
