"""Loops without network: the step graph alone, and the engine around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
from prometheus_client import CollectorRegistry

from bench.settings import PROMPT, TEMPERATURE, TOP_P
from bundle.manifest import FP32
from bundle.store import Bundle
from service.engine.arena import Arena, StateSpec
from service.engine.generating import GenerateEngine, GenerationModel
from service.engine.requests import Generation, Sampling
from service.metrics import GenerateMetrics, Metrics
from service.runtime.runners import GenerateRunner, generate_runner
from service.runtime.sessions import SessionSettings, open_session

SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
# Engine steps within which every stream is primed and decodes.
_WARM_STEPS = 1000
_FOR_EVER = 2**40  # tokens


@dataclass(frozen=True)
class LoopRound:
    tokens_per_second: float
    cpu_us: float  # a token


@dataclass(frozen=True)
class StepGraph:
    """The step graph of one precision, as the service opens it."""

    bundle: Bundle
    precision: str
    sessions: Mapping[str, onnxruntime.InferenceSession]

    def runner(self) -> GenerateRunner:
        return generate_runner(self.sessions, self.bundle.manifest.state)


def open_step(bundle: Bundle, precision: str) -> StepGraph:
    """In int8, prompts are read by the step graph too."""
    if precision == FP32:
        graphs = {"prime": "prime", "step": "step"}
    else:
        graphs = {"step": bundle.manifest.precisions[precision].graphs["step"]}
    sessions = {role: open_session(bundle, name, SETTINGS) for role, name in graphs.items()}
    return StepGraph(bundle, precision, sessions)


def open_steps(bundle: Bundle) -> list[StepGraph]:
    """fp32, and int8 where the bundle has it."""
    precisions = ["fp32", *(name for name in bundle.manifest.precisions if name == "int8")]
    return [open_step(bundle, precision) for precision in precisions]


def open_engine(graph: StepGraph, rows: int) -> GenerateEngine:
    """The engine as service/app.py wires it, metrics included."""
    manifest, output = graph.bundle.manifest, graph.bundle.tokenizers["output"]
    ids = range(len(output.vocabulary))
    first, later = ([output.piece(token, place) for token in ids] for place in (True, False))
    model = GenerationModel(_state(graph.bundle), begin_id=None, end_id=None, pieces=(first, later))
    metrics = GenerateMetrics(Metrics(CollectorRegistry()), manifest.name)
    engine = GenerateEngine(model, graph.runner(), rows, time.monotonic, metrics)
    prompt = tuple(graph.bundle.tokenizers["input"].encode(PROMPT).ids)
    for seed in range(rows):
        sampling = Sampling(temperature=TEMPERATURE, top_k=0, top_p=TOP_P, seed=seed)
        request = Generation(
            tokens=prompt, sampling=sampling, max_tokens=_FOR_EVER, stop=(), arrived=0.0
        )
        engine.arrive(engine.open(request, Discard()))
    return engine


class Discard:
    """Whoever gets the engine's tokens here throws them away."""

    is_full = False

    def put(self, event: object) -> None:
        pass


class EngineLoop:
    """The engine's own steps, on one thread, its events thrown away."""

    def __init__(self, graph: StepGraph, rows: int) -> None:
        self.rows = rows
        self._engine = open_engine(graph, rows)
        for _ in range(_WARM_STEPS):
            if len(self._engine.step()) == rows:
                return
        raise RuntimeError(f"not all of {rows} streams decode after {_WARM_STEPS} steps")

    def run(self, seconds: float) -> LoopRound:
        return _timed(self._engine.step, self.rows, seconds)


class BareStep:
    """The step graph alone in a loop, with the engine's own arrays and I/O binding."""

    def __init__(self, graph: StepGraph, rows: int) -> None:
        self.rows = rows
        self._runner = graph.runner()
        self._arena = Arena(
            _state(graph.bundle), rows, len(graph.bundle.tokenizers["output"].vocabulary)
        )
        self._runner.attach(self._arena.sides())
        for row in range(rows):
            self._arena.control(row, token=1, temperature=TEMPERATURE, top_p=TOP_P)
        uniforms = np.random.default_rng(0).random(rows, dtype=np.float32)
        self._arena.controls["uniform"][:] = uniforms

    def run(self, seconds: float) -> LoopRound:
        return _timed(self._step, self.rows, seconds)

    def _step(self) -> None:
        self._runner.step(self._arena.side, self.rows)
        self._arena.swap()


def _timed(step: Callable[[], object], rows: int, seconds: float) -> LoopRound:
    """Steps for at least ``seconds``, after two that count for nothing."""
    step()
    step()
    steps, cpu, started = 0, time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    return LoopRound(steps * rows / elapsed, 1e6 * (time.process_time() - cpu) / (steps * rows))


def _state(bundle: Bundle) -> tuple[StateSpec, ...]:
    return tuple(StateSpec(t.name, t.dtype, t.shape, t.carried) for t in bundle.manifest.state)
