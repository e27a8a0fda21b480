"""From a trained model to a bundle, and from a bundle back to the trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.manifest import (
    INT8,
    ROWS,
    SCHEMA_VERSION,
    DataSource,
    ExportFacts,
    Manifest,
    PrecisionSpec,
)
from bundle.stepping import SteppingSpec
from bundle.store import (
    Bundle,
    read_bundle,
    read_weights,
    staged,
    write_manifest,
    write_vocabularies,
    write_weights,
)
from export.graphs import Graph
from export.onnx_files import ExportRefused, write_graph
from export.opset import OPSET
from export.parity import TOLERANCE, check_parity
from export.quantised import NoInt8Step, quantised
from export.rows import write_rows_graph
from export.tasks import TASKS, graphs_of, state_of, step_of
from export.weights import for_export, to_pytorch
from training.checkpoint import Figure, TrainedModel
from training.models import Config, build, config_from_json

# The int8 step's tensors in the weights file, beside the model's own.
_INT8_PREFIX = "int8."

# Figures of a precision, measured with the graphs that lie in a folder.
Measure = Callable[[Path], tuple[Figure, ...]]


def export_bundle(trained: TrainedModel, target: Path, measure: Measure | None = None) -> Bundle:
    """Write ``trained`` as the bundle ``target`` (``…/NAME/VERSION``) and read it back.

    measure: makes the figures of int8 anew; without it those of ``trained.precisions`` stay.

    Raises ParityMissed or ExportRefused, and then leaves ``target`` as it was.
    """
    model = trained.build()
    suppressed = _never_sampled_ids(trained)
    reference = graphs_of(model, model.config, suppressed)
    exported = for_export(model)
    int8 = _int8_of(exported, trained)
    # The int8 step is its own twin: its PyTorch operator computes the same whole numbers.
    beside = [] if int8 is None else [_int8_step(int8, trained)]
    with staged(target) as folder:
        tokenizers = write_vocabularies(folder, trained.tokenizers)
        weights = write_weights(folder, _tensors(exported, int8))
        graphs = {
            graph.name: write_graph(graph, weights, folder)
            for graph in (*graphs_of(exported, model.config, suppressed, traced=True), *beside)
        }
        parity = check_parity((*reference, *beside), folder, _vocabulary_sizes(trained))
        recorded = trained.precisions.get(INT8, ())
        figures = measure(folder) if int8 is not None and measure else recorded
        state = state_of(model.config)
        if state:
            graphs[ROWS] = write_rows_graph(state, folder)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=trained.name,
            version=int(target.name),
            task=trained.task,
            description=trained.description,
            model=trained.config,
            graphs=graphs,
            weights=weights,
            state=state,
            tokenizers=tokenizers,
            vocabulary_file="vocabulary.json",
            labels=trained.labels,
            vector=trained.vector,
            sampling=dict(trained.sampling or TASKS[trained.task].sampling),
            limits=trained.limits,
            figures=trained.figures,
            precisions={}
            if int8 is None
            else {INT8: PrecisionSpec({"step": "step_int8"}, figures)},
            data=tuple(DataSource(**source) for source in trained.data),
            training=trained.training,
            export=_facts(parity),
            series=trained.series,
            stepping=_stepping_of(trained, model.config),
            frames=trained.frames,
            length_penalty=trained.length_penalty,
            add_bos_token=trained.add_bos_token,
        )
        write_manifest(folder, manifest)
    return read_bundle(target)


def trained_from_bundle(bundle: Bundle) -> TrainedModel:
    """The trained model as it was before its export: a change of graph needs no retraining.

    Raises ExportRefused for a graph of another exporter, of which no model is known here.
    """
    manifest = bundle.manifest
    if not manifest.model:
        raise ExportRefused(
            f"{bundle.folder} was imported as a graph; import it again: python -m export import"
        )
    model = build(config_from_json(manifest.model))
    tensors = {
        name: torch.from_numpy(np.array(array)) for name, array in read_weights(bundle).items()
    }
    return TrainedModel(
        name=manifest.name,
        description=manifest.description,
        config=manifest.model,
        weights=to_pytorch(model, tensors),
        tokenizers=dict(bundle.tokenizers),
        limits=manifest.limits,
        labels=manifest.labels,
        vector=manifest.vector,
        figures=manifest.figures,
        precisions={name: spec.figures for name, spec in manifest.precisions.items()},
        data=tuple(asdict(source) for source in manifest.data),
        training=manifest.training,
        sampling=manifest.sampling,
        series=manifest.series,
        frames=manifest.frames,
        length_penalty=manifest.length_penalty,
        add_bos_token=manifest.add_bos_token,
    )


def _stepping_of(trained: TrainedModel, config: Config) -> SteppingSpec | None:
    seconds = trained.frames.frame_seconds if trained.frames else 0.0
    return TASKS[trained.task].stepping(config, seconds)


def _int8_of(exported: nn.Module, trained: TrainedModel) -> nn.Module | None:
    """The int8 step of the model, where it is to have one. Raises ExportRefused if it cannot."""
    unknown = trained.precisions.keys() - {INT8}
    if unknown:
        raise ExportRefused(f"precision {unknown.pop()!r} is not one of fp32, int8")
    if INT8 not in trained.precisions:
        return None
    try:
        return quantised(exported)
    except NoInt8Step as error:
        raise ExportRefused(str(error)) from error


def _int8_step(int8: nn.Module, trained: TrainedModel) -> Graph:
    return step_of(
        int8,
        config_from_json(trained.config),
        _never_sampled_ids(trained),
        "step_int8",
        _INT8_PREFIX,
    )


def _tensors(exported: nn.Module, int8: nn.Module | None) -> dict[str, NDArray[Any]]:
    """Everything the weights file holds."""
    tensors = exported.state_dict()
    if int8 is not None:
        tensors |= {f"{_INT8_PREFIX}{name}": part for name, part in int8.state_dict().items()}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _never_sampled_ids(trained: TrainedModel) -> tuple[int, ...]:
    output = trained.tokenizers.get("output")
    return output.vocabulary.never_sampled_ids if output else ()


def _vocabulary_sizes(trained: TrainedModel) -> dict[str, int]:
    """Ids below these are valid: of what prefill and predict read, and of what step reads.

    A sequence-to-sequence model's score graph reads its own outputs; its source vocabulary
    may be the smaller one, so both names get a size that is valid for either.
    """
    sizes = {role: len(tokenizer.vocabulary) for role, tokenizer in trained.tokenizers.items()}
    read = min(sizes.values(), default=0)
    output = sizes.get("output", read)
    return {
        "tokens": read, "right": read, "targets": output, "token": output,
        "labels": len(trained.labels),
    }  # fmt: skip


def _facts(parity: dict[str, float]) -> ExportFacts:
    return ExportFacts(
        torch=str(torch.__version__),
        onnx=installed_version("onnx"),
        onnxruntime=installed_version("onnxruntime"),
        opset=OPSET,
        parity=parity,
        tolerance=TOLERANCE,
    )
