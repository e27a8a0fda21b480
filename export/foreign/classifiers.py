"""Imports a classifier of token ids: whole texts, padded to the longest of a batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, helper

from bundle.manifest import (
    BATCH,
    CLASSIFY,
    SCHEMA_VERSION,
    TIME,
    GraphSpec,
    Manifest,
    TensorSpec,
)
from bundle.stepping import EXACT, INEXACT, NONE
from bundle.store import write_manifest, write_vocabularies
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import PAD
from export.foreign.errors import ImportRefused
from export.foreign.gate import TOLERANCE
from export.foreign.mapping import ModelMapping
from export.foreign.prepare import opened
from export.foreign.rewrite import at_opset, lift_into
from export.foreign.source import Source
from export.foreign.steps import Outcome, facts
from export.foreign.surgery import (
    IR_VERSION,
    Builder,
    free_batch,
    lift_constants,
    open_model,
    opset_of,
    real_inputs,
    renamed,
    value_info,
)
from export.foreign.trial import CLOSE, dtype_of, largest
from export.foreign.vocabularies import read_symbols, tokenizer_of
from export.foreign.weights import write_weights_of

INPUT_TOKENS = 512

# Slices and Squeezes as inputs, which they are from here on.
_OPSET = 13

_LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34)
_INSIDE = "theirs/"

Array = NDArray[Any]


@dataclass(frozen=True)
class _Classifier:
    """A foreign classifier. names: of its inputs, by what they are; of its output ``answer``."""

    model: ModelProto
    names: Mapping[str, str]
    is_probability: bool
    labels: int
    padding: int


def import_classifier(mapping: ModelMapping, folder: Path) -> Outcome:
    """Write the bundle's files into ``folder``. Raises ImportRefused."""
    if mapping.labels is None:
        raise ImportRefused("a classifier needs --labels, a file of its labels, one a line")
    labels = read_symbols(mapping.labels)
    tokenizer = _tokenizer(mapping)
    vocabulary = len(tokenizer.vocabulary)
    source, classifier = _opened(mapping, tokenizer, len(labels))
    texts = _texts(vocabulary)
    expected = _original(source, classifier, mapping, texts)
    batching, reason, difference = NONE, "", 0.0
    try:
        model = _together(classifier)
        found = _predicted(model, folder, texts)
        difference, is_close = _compare(expected, found)
        if difference == 0:
            batching = EXACT
        elif is_close and mapping.allow_inexact:
            batching = INEXACT
        reason = _reason(difference)
        if is_close and batching == NONE:
            reason += "; --allow-inexact runs them together all the same"
    except ImportRefused:
        raise
    except Exception as error:  # onnxruntime raises classes of its own
        reason = f"texts do not run together: {' '.join(str(error).split())[:300]}"
    if batching == NONE:
        model = _one_by_one(classifier)
        difference, _ = _compare(expected, _predicted(model, folder, texts))
        if not difference <= TOLERANCE:
            raise ImportRefused(
                f"even one text at a time it is not the original: it differs by {difference:.2g}"
            )
    weights = write_weights_of({"predict.onnx": model}, folder)
    predict = GraphSpec(
        "predict.onnx",
        (TensorSpec("tokens", "int64", (BATCH, TIME)), TensorSpec("lengths", "int64", (BATCH,))),
        (TensorSpec("probabilities", "float32", (BATCH, len(labels))),),
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=mapping.name,
        version=mapping.version,
        task=CLASSIFY,
        description=mapping.description,
        model={},
        graphs={"predict": predict},
        weights=weights,
        state=(),
        tokenizers=write_vocabularies(folder, {"input": tokenizer}),
        vocabulary_file="vocabulary.json",
        labels=tuple(labels),
        vector=(),
        sampling={},
        limits={"input_tokens": INPUT_TOKENS, **mapping.limits},
        figures=(),
        precisions={},
        data=(),
        training={
            "imported": [
                {"file": source.path.name, "sha256": source.sha256, "bytes": source.bytes}
            ],
            "batching": batching,
            "difference": difference,
            "reason": "" if batching == EXACT else reason,
        },
        export=facts(opset_of(model), {"probabilities": difference}),
    )
    write_manifest(folder, manifest)
    said = "exact" if batching == EXACT else f"{batching}, {reason}"
    return Outcome(
        (
            f"{len(labels)} labels, {vocabulary} symbols, read as {tokenizer.kind}",
            f"batching: {said}",
            f"gate: within {difference:.2g} of onnxruntime on the original",
        )
    )


def _tokenizer(mapping: ModelMapping) -> Tokenizer:
    if mapping.tokenizer is not None:
        return read_tokenizer(mapping.tokenizer, mapping.kind, mapping.special, mapping.lowercase)
    if mapping.vocabulary is None:
        raise ImportRefused("a classifier needs --tokenizer, or --vocabulary and --kind")
    return tokenizer_of(
        read_symbols(mapping.vocabulary), mapping.special, mapping.kind, bool(mapping.lowercase)
    )


# Roles of the special symbols that tokenizer files name by custom alone.
_CUSTOM = {"[PAD]": PAD, "<pad>": PAD, "[UNK]": "unk", "<unk>": "unk"}


def read_tokenizer(
    path: Path,
    kind: str = "",
    special: Mapping[str, str] | None = None,
    lowercase: bool | None = None,
) -> Tokenizer:
    """A tokenizer.json whose way of cutting texts is one of this project's: words of a list between
    spaces (WordLevel with WhitespaceSplit), or characters.

    kind, lowercase: how texts are cut, and whether they are lowercased, in place of what the file
    says, for whoever knows that it is the same. special: role → symbol, beside those that the file
    names or custom does.

    Raises ImportRefused for any other: texts would be read otherwise than the model was trained on.
    """
    try:
        content = json.loads(path.read_bytes())
        model = content["model"]
        listed: dict[str, int] = dict(model["vocab"])
        listed |= {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        pre = (content.get("pre_tokenizer") or {}).get("type")
        normalizer = content.get("normalizer") or {}
        lowercases = _lowercases(normalizer) if lowercase is None else lowercase
        unknown = model.get("unk_token")
        ordered = sorted(listed, key=lambda symbol: int(listed[symbol]))
        ids = [int(listed[symbol]) for symbol in ordered]
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImportRefused(
            f"{path} is no tokenizer.json of Hugging Face's tokenizers ({error!r})"
        ) from error
    if ids != list(range(len(ids))):
        raise ImportRefused(f"{path}: its ids are not 0 to {len(ids) - 1}, each once")
    if lowercases is None:
        raise ImportRefused(
            f"{path} changes texts by {normalizer.get('type')}, which is none of this service's "
            "ways; give --lowercase or --no-lowercase where one of them is the same, or send ids"
        )
    if not kind:
        if model.get("type", "WordLevel") != "WordLevel" or pre != "WhitespaceSplit":
            raise ImportRefused(
                f"{path} cuts texts by {model.get('type')} and {pre}, which is none of this "
                "service's ways; give --kind (words, symbols, characters, …) where it is the same, "
                "or send ids"
            )
        kind = "symbols"
    roles = {role: symbol for symbol, role in _CUSTOM.items() if symbol in listed}
    if unknown in listed:
        roles["unk"] = unknown
    return tokenizer_of(ordered, {**roles, **(special or {})}, kind, lowercases)


def _lowercases(normalizer: Mapping[str, Any]) -> bool | None:
    """Whether a normalizer lowercases and does nothing else, or nothing at all; None where it does
    what this project's tokenizers do not."""
    if not normalizer:
        return False
    if normalizer.get("type") == "Lowercase":
        return True
    if normalizer.get("type") != "Sequence":
        return None
    parts = [_lowercases(part) for part in normalizer["normalizers"]]
    return None if None in parts else any(parts)


def _opened(mapping: ModelMapping, tokenizer: Tokenizer, labels: int) -> tuple[Source, _Classifier]:
    (graph,) = mapping.graphs
    if graph.states or graph.contexts:
        raise ImportRefused("a classifier of whole texts has neither state nor context")
    answer = mapping.logits or mapping.probabilities
    source, model = opened(graph)
    model = at_opset(model, max(_OPSET, opset_of(model)), graph.file.name)
    left = [p.name for p in real_inputs(model.graph) if p.name not in graph.constants]
    outputs = [port.name for port in model.graph.output]
    free = [name for name in left if name not in (mapping.mask, mapping.lengths)]
    tokens = mapping.tokens or _only(free, "input", "--tokens")
    answer = answer or _only(outputs, "output", "--logits or --probabilities")
    names = {"tokens": tokens, "mask": mapping.mask, "lengths": mapping.lengths, "answer": answer}
    for name in (tokens, mapping.mask, mapping.lengths):
        if name and name not in left:
            raise ImportRefused(
                f"{graph.file.name} has no input {name!r}; it has {', '.join(left)}"
            )
    if answer not in outputs:
        raise ImportRefused(
            f"{graph.file.name} has no output {answer!r}; it has {', '.join(outputs)}"
        )
    unnamed = set(left) - set(names.values())
    if unnamed:
        raise ImportRefused(
            f"the input {min(unnamed)!r} is neither tokens, mask nor lengths; say which: --tokens, "
            "--mask, --lengths, --constant"
        )
    padding = dict(getattr(tokenizer.vocabulary, "special", ())).get(PAD, 0)
    is_probability = bool(mapping.probabilities)
    return source, _Classifier(model, names, is_probability, labels, padding)


def _only(names: Sequence[str], what: str, flag: str) -> str:
    if len(names) != 1:
        raise ImportRefused(f"it has the {what}s {', '.join(names)}; say which: {flag}")
    return names[0]


def _texts(vocabulary: int) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, length) for length in _LENGTHS]


def _original(
    source: Source, classifier: _Classifier, mapping: ModelMapping, texts: Sequence[Array]
) -> Array:
    """(texts, labels) the probabilities that the original file gives each text alone."""
    copy = ModelProto()
    copy.CopyFrom(classifier.model)
    free_batch(copy.graph)
    session = open_model(copy.SerializeToString())
    ports = {port.name: port for port in real_inputs(classifier.model.graph)}
    found = []
    for text in texts:
        rows = text[None]
        values = {"tokens": rows, "mask": np.ones_like(rows), "lengths": np.array([len(text)])}
        feed = {
            classifier.names[what]: value.astype(dtype_of(ports[classifier.names[what]]))
            for what, value in values.items()
            if classifier.names[what]
        }
        try:
            (answer,) = session.run([classifier.names["answer"]], feed)
        except Exception as error:
            text_ = " ".join(str(error).split())[:300]
            raise ImportRefused(f"{source.path.name} does not run one text: {text_}") from error
        flat = answer.astype(np.float64).reshape(-1)
        if flat.size != classifier.labels:
            raise ImportRefused(
                f"{classifier.names['answer']!r} is {list(answer.shape)} for a text, and there "
                f"are {classifier.labels} labels"
            )
        if not np.isfinite(flat).all():
            raise ImportRefused(f"{classifier.names['answer']!r} holds NaN after ordinary texts")
        if not classifier.is_probability:
            flat = np.exp(flat - flat.max())
            flat /= flat.sum()
        elif flat.min() < 0 or abs(flat.sum() - 1) > 1e-3:
            raise ImportRefused(
                f"{classifier.names['answer']!r} adds up to {flat.sum():.3g}: no probabilities; "
                "is it --logits?"
            )
        found.append(flat)
    return np.array(found)


def _predicted(model: ModelProto, folder: Path, texts: Sequence[Array]) -> Array:
    """Each text alone, and all together in one padded batch: (2, texts, labels)."""
    copy = ModelProto()
    copy.CopyFrom(model)
    write_weights_of({"predict.onnx": copy}, folder)
    session = open_model(str(folder / "predict.onnx"))
    alone = [_run(session, [text])[0] for text in texts]
    return np.array([alone, _run(session, texts)])


def _run(session: onnxruntime.InferenceSession, texts: Sequence[Array]) -> Array:
    lengths = np.array([len(text) for text in texts])
    padded = np.zeros((len(texts), lengths.max()), np.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    (found,) = session.run(["probabilities"], {"tokens": padded, "lengths": lengths})
    return np.asarray(found)


def _compare(expected: Array, found: Array) -> tuple[float, bool]:
    """The largest difference of a text among others from the text alone, and whether it is close.

    Raises ImportRefused where a text alone is not the original's.
    """
    alone, together = found
    off = largest(expected, alone)
    if not off <= TOLERANCE:
        raise ImportRefused(f"a text alone differs by {off:.2g} from the original")
    difference = largest(alone, together)
    return difference, difference <= CLOSE


def _reason(difference: float) -> str:
    if math.isnan(difference):
        return "a text's probability is NaN beside others, and is not alone"
    return f"a text's probability differs by {difference:.2g} beside longer ones"


def _ended(classifier: _Classifier, builder: Builder, answer: str, shape: Sequence[int]) -> str:
    wide = builder.cast(answer, "float32")
    flat = builder.node("Reshape", [wide, builder.constant(shape, np.int64)])
    return flat if classifier.is_probability else builder.node("Softmax", [flat], axis=-1)


def _theirs(classifier: _Classifier, builder: Builder, given: Mapping[str, str]) -> str:
    """Their nodes behind ``given`` (what → value, whole numbers); their answer."""
    graph = GraphProto()
    graph.CopyFrom(classifier.model.graph)
    dtypes = {port.name: dtype_of(port) for port in real_inputs(graph)}
    renamed(graph, lambda name: _INSIDE + name)
    for what, value in given.items():
        name = classifier.names[what]
        if name:
            builder.cast(value, dtypes[name], _INSIDE + name)
    builder.nodes.extend(graph.node)
    builder.initializers.extend(graph.initializer)
    return _INSIDE + classifier.names["answer"]


def _together(classifier: _Classifier) -> ModelProto:
    builder = Builder()
    ones = builder.node("ConstantOfShape", [builder.node("Shape", ["tokens"])], value=_one())
    # A running count, which is the place of each token plus one.
    places = builder.node("CumSum", [ones, builder.constant(1, np.int64)])
    ends = builder.node("Reshape", ["lengths", builder.constant([-1, 1], np.int64)])
    valid = builder.node("LessOrEqual", [places, ends])
    padding = builder.constant(classifier.padding, np.int64)
    tokens = builder.node("Where", [valid, "tokens", padding])
    mask = builder.cast(valid, "int64")
    answer = _theirs(classifier, builder, {"tokens": tokens, "mask": mask, "lengths": "lengths"})
    found = _ended(classifier, builder, answer, [-1, classifier.labels])
    builder.node("Identity", [found], "probabilities")
    return _model(classifier, builder)


def _one() -> Any:
    return helper.make_tensor("one", helper.np_dtype_to_tensor_dtype(np.dtype("int64")), [1], [1])


def _one_by_one(classifier: _Classifier) -> ModelProto:
    """Each text cut to its length and run alone, in a Scan over the batch."""
    inner, outer = Builder("~in"), Builder("~out")
    start, axis = inner.constant([0], np.int64), inner.constant([0], np.int64)
    end = inner.node("Reshape", ["~length", inner.constant([1], np.int64)])
    cut = inner.node("Slice", ["~row", start, end, axis])
    row = inner.node("Reshape", [cut, inner.constant([1, -1], np.int64)])
    mask = inner.node("ConstantOfShape", [inner.node("Shape", [row])], value=_one())
    answer = _theirs(classifier, inner, {"tokens": row, "mask": mask, "lengths": end})
    found = _ended(classifier, inner, answer, [classifier.labels])
    inner.node("Identity", [found], "~found")
    body = helper.make_graph(
        inner.nodes,
        "text",
        [value_info("~row", "int64", (TIME,)), value_info("~length", "int64", ())],
        [value_info("~found", "float32", (classifier.labels,))],
    )
    lift_into(body, inner.initializers)
    outer.nodes.append(
        helper.make_node(
            "Scan", ["tokens", "lengths"], ["probabilities"], body=body, num_scan_inputs=2
        )
    )
    outer.initializers.extend(inner.initializers)
    return _model(classifier, outer)


def _model(classifier: _Classifier, builder: Builder) -> ModelProto:
    graph = helper.make_graph(
        builder.nodes,
        "predict",
        [value_info("tokens", "int64", (BATCH, TIME)), value_info("lengths", "int64", (BATCH,))],
        [value_info("probabilities", "float32", (BATCH, classifier.labels))],
        builder.initializers,
    )
    lift_constants(graph)
    version = max(IR_VERSION, classifier.model.ir_version)
    imports = classifier.model.opset_import
    return helper.make_model(graph, opset_imports=imports, ir_version=version)
