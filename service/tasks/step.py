"""Numbers in, a frame at a time, and numbers out: StreamStep."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from bundle.manifest import STEP, GraphSpec, Manifest
from bundle.stepping import EXACT, NONE
from bundle.tasks import spec_of
from service.engine.frame_stepping import FrameEngine
from service.observability.frame_metrics import FrameMetrics
from service.oip.step_adapters import FrameAdapter, FramesAdapter
from service.runtime.frame_probe import probe_steps, shared_arrays
from service.runtime.frame_runner import FrameRunner
from service.runtime.session_pair import Session, SessionPair
from service.serving.model_factory import WARM_ROWS, ModelBuilder
from service.serving.model_info import ModelCard
from service.serving.model_metadata import card_of
from service.serving.stepper import StepperModel
from service.step_model import FramePort, StepModel, StepperSpec
from service.tasks.task import Task

log = logging.getLogger(__name__)


def build(builder: ModelBuilder) -> StepperModel:
    return build_stepper(builder)


def build_stepper(builder: ModelBuilder, card: ModelCard | None = None) -> StepperModel:
    """card: of a bundle that has other graphs beside the step, which were probed; None for one that
    has none."""
    config, context, manifest = builder.config, builder.context, builder.manifest
    spec = manifest.stepping
    assert spec is not None, "a bundle of this task has it: its check says so"
    model = _model_of(manifest)
    ports = _shared_ports(manifest)
    stepper = StepperSpec(model, spec, spec.batching, spec.reason, ports)
    shared = [shared_arrays(ports, choice) for choice in stepper.choices]
    narrow = builder.sessions["step"]

    def is_alike(wide: Session) -> bool:
        runners = [FrameRunner(session, shared) for session in (narrow, wide)]
        found = probe_steps(runners, model, len(shared), spec.is_exact)
        return found.batch_invariant or not spec.is_exact  # of which no equal bits are promised

    probed = probe_steps([FrameRunner(narrow, shared)], model, len(shared), spec.is_exact)
    capacity = config.max_streams
    if spec.batching == EXACT and not probed.batch_invariant:
        log.warning("model %s: rows depend on their batch on this machine", manifest.name)
        capacity = 1
        reason = "rows depend on their batch on this machine, so each runs alone"
        stepper = replace(stepper, batching=NONE, reason=reason)
        probed = replace(probed, batch_invariant=True)
    if card is None:
        card = replace(
            card_of(builder.loaded, probed),
            batch_invariant=probed.batch_invariant,
            batching=stepper.batching,
            batching_reason=stepper.reason,
        )
    card = replace(card, stepper=stepper)
    pair = SessionPair(narrow)
    if "step" in builder.loaded.open_wide:
        pair = SessionPair(narrow, builder.on_demand("step", is_alike))
    engine = FrameEngine(
        manifest.name,
        model,
        FrameRunner(pair, shared),
        capacity,
        time.monotonic,
        FrameMetrics(context.metrics, manifest.name, builder.statistics, capacity),
    )
    engine.warm(WARM_ROWS, len(shared))
    thread = builder.stream_thread("step", engine)
    return StepperModel(card, stepper, engine, thread, context.resume_tokens, context.budget)


def _model_of(manifest: Manifest) -> StepModel:
    step, spec = manifest.graphs["step"], manifest.stepping
    assert spec is not None, "as above"
    return StepModel(
        tuple(_port(step, name, 1) for name in spec.frames),
        tuple(_port(step, name, 1) for name in spec.answers),
        manifest.state,
    )


def _shared_ports(manifest: Manifest) -> tuple[FramePort, ...]:
    step, spec = manifest.graphs["step"], manifest.stepping
    assert spec is not None, "as above"
    return tuple(_port(step, shared.name, 0) for shared in spec.shared)


def _port(step: GraphSpec, name: str, first: int) -> FramePort:
    """first: its first axis that is no row."""
    found = next(port for port in (*step.inputs, *step.outputs) if port.name == name)
    return FramePort(name, found.dtype, tuple(map(int, found.shape[first:])))


TASK = Task(spec_of(STEP), build, FrameAdapter, FramesAdapter)
