"""From a loaded bundle to its card and to what an engine needs of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bundle.manifest import FP32, Manifest
from bundle.sampling import missing_parameters
from bundle.stepping import EXACT, INEXACT, NONE
from bundle.store import Bundle
from bundle.tasks import spec_of
from service.engine.step_engine import GenerationModel
from service.runtime.cpu import cpu_extensions
from service.runtime.probe import ProbeResult
from service.runtime.repository import LoadedModel
from service.serving.generator_input import TextInput
from service.serving.model_info import Floor, ModelCard


def card_of(loaded: LoadedModel, probed: ProbeResult) -> ModelCard:
    manifest = loaded.bundle.manifest
    batching, reason = batching_of(manifest, probed)
    return ModelCard(
        name=manifest.name,
        version=str(manifest.version),
        task=manifest.task,
        description=manifest.description,
        labels=manifest.labels,
        vector_fields=manifest.vector,
        streams_tags=False,
        limits=manifest.limits,
        sampling=manifest.sampling,
        figures=manifest.figures,
        data=manifest.data,
        digest=loaded.bundle.digest,
        provider=loaded.provider,
        precision=loaded.precision,
        precisions=(FP32, *manifest.precisions),
        vocabulary=_symbols(loaded.bundle),
        input_ids=_input_ids(loaded.bundle),
        state=manifest.state,
        batch_invariant=probed.batch_invariant and batching != INEXACT,
        fingerprint=probed.fingerprint,
        cpu_extensions=cpu_extensions(),
        missing_parameters=_missing_parameters(manifest),
        bundle_bytes=sum(file.bytes for file in manifest.files.values()),
        series=manifest.series,
        frames=manifest.frames,
        floors=tuple(floors_of(manifest.training)),
        attended=manifest.attended,
        length_penalty=1.0 if manifest.length_penalty is None else manifest.length_penalty,
        batching=batching,
        batching_reason=reason,
    )


def batching_of(manifest: Manifest, probed: ProbeResult) -> tuple[str, str]:
    """How rows are run together, of BATCHING, and why that is not exact.

    The import of a model from elsewhere has said so among the facts of training; what it says is
    exact, and the graphs of this project, are what the probe found.
    """
    said, reason = manifest.training.get("batching"), manifest.training.get("reason")
    if said in (INEXACT, NONE):
        return str(said), str(reason or "")
    if probed.batch_invariant:
        return EXACT, ""
    return INEXACT, "rows depend on their batch on this machine"


def floors_of(training: Mapping[str, Any]) -> Iterator[Floor]:
    """That a manifest's facts of training hold; what is no floor, whoever wrote it, is left out."""
    floors = training.get("floors")
    for floor in floors if isinstance(floors, list) else ():
        match floor:
            case {
                "figure": str(figure),
                "split": str(split),
                "floor": str(by),
                "value": int() | float() as value,
            } if math.isfinite(value):
                yield Floor(figure, split, by, float(value))


def _missing_parameters(manifest: Manifest) -> tuple[str, ...]:
    """Of a model that draws tokens for its callers; a tagger's step takes the likeliest label."""
    if manifest.series or "step" not in spec_of(manifest.task).graphs:
        return ()
    return missing_parameters(port.name for port in manifest.graphs["step"].inputs)


def _input_ids(bundle: Bundle) -> int:
    reader = bundle.tokenizers.get("input")
    return len(reader.vocabulary) if reader else 0


def ids_for_all(bundle: Bundle) -> int:
    """Ids below it are known to each of the bundle's tokenizers; 2 for a bundle without any: the
    least with an id beside the padding's."""
    sizes = [len(tokenizer.vocabulary) for tokenizer in bundle.tokenizers.values()]
    return min(sizes, default=2)


def _symbols(bundle: Bundle) -> tuple[str, ...]:
    """Of the output tokens by id; none for a model that makes no tokens."""
    output = bundle.tokenizers.get("output")
    if output is None:
        return ()
    vocabulary = output.vocabulary
    return tuple(vocabulary.symbol_of(token) for token in range(len(vocabulary)))


def text_input(bundle: Bundle, name: str, reads_empty: bool = False) -> TextInput:
    """The field ``name``, as the model reads its texts. reads_empty: as the beginning's token,
    where the vocabulary has one; the manifest's add_bos_token has that before every text."""
    reader, adds_begin = bundle.tokenizers["input"], bool(bundle.manifest.add_bos_token)
    has_begin = reader.vocabulary.has_begin and (adds_begin or reads_empty)
    begin_id = reader.vocabulary.begin_id if has_begin else None
    return TextInput(name, reader, begin_id, adds_begin)


def generation_model(bundle: Bundle, is_conditioned: bool) -> GenerationModel:
    """is_conditioned: whether it reads its input whole and then begins with a marker."""
    output = bundle.tokenizers["output"]
    vocabulary = output.vocabulary
    ids = range(len(vocabulary))
    return GenerationModel(
        state=bundle.manifest.state,
        begin_id=vocabulary.begin_id if is_conditioned else None,
        end_id=vocabulary.end_id if vocabulary.has_end else None,
        pieces=(
            [output.piece(token, first=True) for token in ids],
            [output.piece(token, first=False) for token in ids],
        ),
        never_sampled_ids=vocabulary.never_sampled_ids,
        attended=bundle.manifest.attended,
    )
