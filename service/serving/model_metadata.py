"""What is known of a loaded bundle: its card, and what an engine must know of its model."""

from __future__ import annotations

from dataclasses import asdict

from bundle.manifest import FP32, GENERATING, SEQ2SEQ, TAG, VEC2SEQ, Manifest
from bundle.sampling import missing_parameters
from bundle.store import Bundle
from service.engine.decode import GenerationModel
from service.runtime.probe import ProbeResult
from service.runtime.repository import LoadedModel
from service.serving.model_info import DataSource, Figure, ModelCard


def card_of(loaded: LoadedModel, probed: ProbeResult) -> ModelCard:
    manifest = loaded.bundle.manifest
    return ModelCard(
        name=manifest.name,
        version=str(manifest.version),
        task=manifest.task,
        description=manifest.description,
        labels=manifest.labels,
        vector_fields=manifest.vector,
        streams_tags=manifest.task == TAG and "step" in manifest.graphs,
        limits=manifest.limits,
        sampling=asdict(manifest.sampling),
        figures=tuple(
            Figure(f.name, f.value, f.unit, f.split, f.examples) for f in manifest.figures
        ),
        data=tuple(DataSource(d.package, d.version, d.licence) for d in manifest.data),
        digest=loaded.bundle.digest,
        provider=loaded.provider,
        precision=loaded.precision,
        precisions=(FP32, *manifest.precisions),
        vocabulary=_symbols(loaded.bundle),
        input_ids=_input_ids(loaded.bundle),
        state=manifest.state,
        batch_invariant=probed.batch_invariant,
        fingerprint=probed.fingerprint,
        missing_parameters=_missing_parameters(manifest),
        bundle_bytes=sum(file.bytes for file in manifest.files.values()),
    )


def _missing_parameters(manifest: Manifest) -> tuple[str, ...]:
    """Of a model that draws for its callers; a tagger's step takes the likeliest label."""
    if manifest.task not in GENERATING:
        return ()
    return missing_parameters(port.name for port in manifest.graphs["step"].inputs)


def _input_ids(bundle: Bundle) -> int:
    reader = bundle.tokenizers.get("input")
    return len(reader.vocabulary) if reader else 0


def ids_for_all(bundle: Bundle) -> int:
    """Ids below it are good for each graph of the bundle: a tagger may read its labels."""
    sizes = [len(tokenizer.vocabulary) for tokenizer in bundle.tokenizers.values()]
    if bundle.manifest.task == TAG:
        sizes.append(len(bundle.manifest.labels))
    return min(sizes)


def reads_whole(manifest: Manifest) -> bool:
    """Whether what prefills it comes before all that it makes: a source or a vector."""
    return manifest.task in (SEQ2SEQ, VEC2SEQ)


def _symbols(bundle: Bundle) -> tuple[str, ...]:
    """Of the output tokens by id; a classifier's are its labels."""
    output = bundle.tokenizers.get("output")
    if output is None:
        return ()
    vocabulary = output.vocabulary
    return tuple(vocabulary.symbol_of(token) for token in range(len(vocabulary)))


def generation_model(bundle: Bundle) -> GenerationModel:
    output = bundle.tokenizers["output"]
    vocabulary = output.vocabulary
    ids = range(len(vocabulary))
    return GenerationModel(
        state=bundle.manifest.state,
        begin_id=vocabulary.begin_id if reads_whole(bundle.manifest) else None,
        end_id=vocabulary.end_id if vocabulary.has_markers else None,
        pieces=(
            [output.piece(token, first=True) for token in ids],
            [output.piece(token, first=False) for token in ids],
        ),
        never_sampled_ids=vocabulary.never_sampled_ids,
    )
