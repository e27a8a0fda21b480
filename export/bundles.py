"""From a trained model to a bundle, and from a bundle back to the trained model."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch

from bundle.manifest import (
    CLASSIFY,
    GENERATE,
    ROWS,
    SCHEMA_VERSION,
    SEQ2SEQ,
    DataSource,
    ExportFacts,
    FigureSpec,
    Manifest,
    SamplingDefaults,
)
from bundle.store import (
    Bundle,
    read_bundle,
    read_weights,
    seal,
    staged,
    write_vocabularies,
    write_weights,
)
from export.graphs import graphs_of, state_of
from export.onnx_files import write_graph
from export.operators import OPSET
from export.parity import TOLERANCE, check_parity
from export.rows import write_rows_graph
from export.weights import for_export, to_pytorch
from training.models import build, config_from_json
from training.trained import Figure, TrainedModel

_TASKS = {"classifier": CLASSIFY, "generator": GENERATE, "seq2seq": SEQ2SEQ}

# A generator draws from the model as it is; a sequence-to-sequence model gives its best answer.
_SAMPLING = {
    CLASSIFY: SamplingDefaults(temperature=1.0, top_k=0, top_p=1.0),
    GENERATE: SamplingDefaults(temperature=1.0, top_k=0, top_p=1.0),
    SEQ2SEQ: SamplingDefaults(temperature=0.0, top_k=0, top_p=1.0),
}


def export_bundle(trained: TrainedModel, target: Path) -> Bundle:
    """Write ``trained`` as the bundle ``target`` (``…/NAME/VERSION``) and read it back.

    Raises ParityMissed or ExportRefused, and then leaves ``target`` as it was.
    """
    model = trained.build()
    exported = for_export(model)
    tensors = {name: tensor.numpy() for name, tensor in exported.state_dict().items()}
    silent = _silent_ids(trained)
    with staged(target) as folder:
        tokenizers = write_vocabularies(folder, trained.tokenizers)
        weights = write_weights(folder, tensors)
        graphs = {
            graph.name: write_graph(graph, weights, folder)
            for graph in graphs_of(exported, model.config, silent)
        }
        parity = check_parity(
            graphs_of(model, model.config, silent), folder, _vocabulary_sizes(trained)
        )
        state = state_of(model.config)
        if state:
            graphs[ROWS] = write_rows_graph(state, folder)
        task = _TASKS[trained.config["architecture"]]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=trained.name,
            version=int(target.name),
            task=task,
            description=trained.description,
            model=trained.config,
            graphs=graphs,
            weights=weights,
            state=state,
            tokenizers=tokenizers,
            vocabulary_file="vocabulary.json",
            labels=trained.labels,
            sampling=_SAMPLING[task],
            limits=trained.limits,
            figures=tuple(FigureSpec(**asdict(figure)) for figure in trained.figures),
            precisions={},
            data=tuple(DataSource(**source) for source in trained.data),
            training=trained.training,
            export=_facts(parity),
        )
        seal(folder, manifest)
    return read_bundle(target)


def trained_from_bundle(bundle: Bundle) -> TrainedModel:
    """The trained model as it was before its export: a change of graph needs no retraining."""
    manifest = bundle.manifest
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
        figures=tuple(Figure(**asdict(figure)) for figure in manifest.figures),
        data=tuple(asdict(source) for source in manifest.data),
        training=manifest.training,
    )


def _silent_ids(trained: TrainedModel) -> tuple[int, ...]:
    output = trained.tokenizers.get("output")
    return output.vocabulary.silent_ids if output else ()


def _vocabulary_sizes(trained: TrainedModel) -> dict[str, int]:
    """Ids below these are valid: of what prime and predict read, and of what step reads.

    A sequence-to-sequence model's score graph reads its own outputs; its source vocabulary
    may be the smaller one, so both names get a size that is valid for either.
    """
    sizes = [len(tokenizer.vocabulary) for tokenizer in trained.tokenizers.values()]
    output = len(trained.tokenizers.get("output", trained.tokenizers["input"]).vocabulary)
    return {"tokens": min(sizes), "targets": output, "token": output}


def _facts(parity: dict[str, float]) -> ExportFacts:
    return ExportFacts(
        torch=str(torch.__version__),
        onnx=installed_version("onnx"),
        onnxruntime=installed_version("onnxruntime"),
        opset=OPSET,
        parity=parity,
        tolerance=TOLERANCE,
    )
