"""Imports a model of the task ``step``: the graph rewritten, gated, and written as a bundle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from bundle.manifest import (
    ROWS,
    SCHEMA_VERSION,
    STEP,
    ExportFacts,
    GraphSpec,
    Manifest,
)
from bundle.stepping import EXACT, INEXACT, NONE, SteppingSpec
from bundle.store import write_manifest, write_vocabularies
from export.foreign.errors import ImportRefused
from export.foreign.gate import TOLERANCE, Original, Verdict, check
from export.foreign.mapping import ModelMapping
from export.foreign.prepare import explored
from export.foreign.rewrite import Prepared, Rewritten, rewrite
from export.foreign.source import Source
from export.foreign.surgery import open_model, opset_of
from export.foreign.weights import write_weights_of
from export.rows import write_rows_graph

MESSAGE_STEPS = 64


@dataclass(frozen=True)
class Form:
    """How graphs are served. batching: of ``bundle.stepping``. reason: why it is not exact."""

    batching: str
    rewritten: Rewritten
    verdict: Verdict
    reason: str = ""

    def lines(self) -> list[str]:
        batching = {
            EXACT: "exact, a row has the bits in every batch that it has alone",
            INEXACT: f"inexact, {self.reason}",
            NONE: f"none, rows run one after the other: {self.reason}",
        }[self.batching]
        by = max(self.verdict.original.values(), default=0.0)
        gate = "equal to" if by == 0 else f"within {by:.2g} of"
        exactly = ", bit for bit" if by == 0 else ""
        return [
            f"batching: {batching}",
            f"gate: {gate} onnxruntime on the original{exactly}",
        ]


@dataclass(frozen=True)
class Outcome:
    """What was found, for people. lines: each a sentence."""

    lines: tuple[str, ...]


def import_step(mapping: ModelMapping, folder: Path) -> Outcome:
    """Write the bundle's files into ``folder``. Raises ImportRefused."""
    sources, stages = explored(mapping.graphs)
    guesses = [line for stage in stages for line in stage.found.said]
    form = gated_form(stages, folder, mapping.allow_inexact)
    rewritten = form.rewritten
    graph, weights = open_parts(rewritten, folder)
    graphs = {"step": graph}
    if rewritten.state:
        graphs[ROWS] = write_rows_graph(rewritten.state, folder)
    spec = SteppingSpec(
        frames=rewritten.frames,
        answers=rewritten.answers,
        shared=rewritten.shared,
        batching=form.batching,
        difference=form.verdict.difference,
        reason=form.reason,
        frame_seconds=mapping.frame_seconds,
        attributes=dict(mapping.attributes),
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=mapping.name,
        version=mapping.version,
        task=STEP,
        description=mapping.description,
        model={},
        graphs=graphs,
        weights=weights,
        state=rewritten.state,
        tokenizers=write_vocabularies(folder, {}),
        vocabulary_file="vocabulary.json",
        labels=(),
        vector=(),
        sampling={},
        limits={"message_steps": MESSAGE_STEPS, **mapping.limits},
        figures=(),
        precisions={},
        data=(),
        training=provenance(sources, stages),
        export=facts(opset_of(rewritten.model), form.verdict.original),
        stepping=spec,
    )
    write_manifest(folder, manifest)
    return Outcome((*guesses, *_said(rewritten, spec), *form.lines()))


def gated_form(stages: Sequence[Prepared], folder: Path, allow_inexact: bool, ids: int = 2) -> Form:
    """The form that ``stages`` are served in: rows together where they may, else one by one.

    Writes ``step.onnx`` and the weights file on the way. ids: as ``explore``. Raises ImportRefused
    where neither is the original.
    """
    problem = next((f"{s.name}: {s.found.problem}" for s in stages if s.found.problem), "")
    if not problem:
        form = _together(stages, folder, allow_inexact, ids)
        if isinstance(form, Form):
            return form
        problem = form
    rewritten = rewrite(stages, together=False)
    verdict = _gated(rewritten, stages, folder, ids)
    if not (verdict.is_exact and verdict.is_the_original):
        name, by = verdict.worst(verdict.relative_original)
        raise ImportRefused(
            f"even one row at a time it is not the original: {name!r} differs by {by:.2g} of its "
            "largest number"
        )
    return Form(NONE, rewritten, verdict, problem)


def _together(
    stages: Sequence[Prepared], folder: Path, allow_inexact: bool, ids: int
) -> Form | str:
    """With rows side by side; or why they may not be."""
    try:
        rewritten = rewrite(stages, together=True)
        verdict = _gated(rewritten, stages, folder, ids)
    except ImportRefused:
        raise
    except Exception as error:  # onnxruntime raises classes of its own
        return f"rows do not run together: {' '.join(str(error).split())[:300]}"
    if not verdict.is_the_original:
        name, by = verdict.worst(verdict.relative_original)
        return f"{name!r} is not the original's: {by:.2g} of its largest number"
    if verdict.is_exact:
        return Form(EXACT, rewritten, verdict)
    name, by = verdict.worst(verdict.rows)
    if math.isnan(by):
        return f"{name!r} of a row is NaN in a batch, and is not alone"
    reason = f"{name!r} of a row differs by up to {by:.2g} in a batch"
    if not verdict.is_close:
        return reason
    if not allow_inexact:
        return f"{reason}; --allow-inexact runs rows together all the same"
    return Form(INEXACT, rewritten, verdict, reason)


def _gated(rewritten: Rewritten, stages: Sequence[Prepared], folder: Path, ids: int) -> Verdict:
    """The worst of every choice of what rows share."""
    open_parts(rewritten, folder)
    session = open_model(str(folder / "step.onnx"))
    original = Original(stages, [stage.mapping.file for stage in stages])
    places = [
        (stage.name, name, values)
        for stage in stages
        for name, values in stage.mapping.constants.items()
        if len(values) > 1
    ]
    worst = Verdict()
    for chosen in itertools.product(*(values for *_, values in places)):
        choice = {(g, n): v for (g, n, _), v in zip(places, chosen, strict=True)}
        worst.add(check(session, rewritten, original, choice, ids))
    return worst


def open_parts(rewritten: Rewritten, folder: Path) -> tuple[GraphSpec, Any]:
    """Write ``step.onnx`` and the weights file."""
    model = type(rewritten.model)()
    model.CopyFrom(rewritten.model)
    weights = write_weights_of({"step.onnx": model}, folder)
    return GraphSpec("step.onnx", rewritten.inputs, rewritten.outputs), weights


def provenance(sources: Sequence[Source], stages: Sequence[Prepared]) -> dict[str, Any]:
    """Where an imported model is from, for its manifest."""
    return {
        "imported": [
            {
                "file": source.path.name,
                "sha256": source.sha256,
                "bytes": source.bytes,
                "graph": stage.name,
                "producer": f"{source.model.producer_name} {source.model.producer_version}".strip(),
                "inputs": _axes(stage.found.inputs),
                "outputs": _axes(stage.found.outputs),
                "states": dict(stage.mapping.states),
                "constants": {k: list(v) for k, v in stage.mapping.constants.items()},
                "contexts": dict(stage.mapping.contexts),
            }
            for source, stage in zip(sources, stages, strict=True)
        ]
    }


def _axes(ports: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"dtype": port.dtype, "shape": list(port.shape), "batch_axis": port.axis}
        for name, port in ports.items()
    }


def facts(opset: int, parity: Mapping[str, float]) -> ExportFacts:
    return ExportFacts(
        torch="",
        onnx=installed_version("onnx"),
        onnxruntime=installed_version("onnxruntime"),
        opset=opset,
        parity=dict(parity),
        tolerance=TOLERANCE,
    )


def _said(rewritten: Rewritten, spec: SteppingSpec) -> list[str]:
    ports = {port.name: port for port in (*rewritten.inputs, *rewritten.outputs)}

    def shown(name: str) -> str:
        return f"{name} {ports[name].dtype} {list(ports[name].shape[1:])}"

    return [
        f"frame: {', '.join(map(shown, spec.frames))}",
        f"answer: {', '.join(map(shown, spec.answers))}",
        f"state: {', '.join(f'{s.name} {s.dtype} {list(s.shape)}' for s in rewritten.state)}",
        *(f"shared: {s.name}, one of {list(s.choices)}" for s in spec.shared),
    ]
