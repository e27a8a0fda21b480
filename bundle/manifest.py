"""The manifest: all a service needs to know of a model, as frozen values and as JSON."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bundle.errors import ManifestInvalid, SchemaUnknown

SCHEMA_VERSION = 1

CLASSIFY = "classify"
GENERATE = "generate"
SEQ2SEQ = "seq2seq"
TASKS = (CLASSIFY, GENERATE, SEQ2SEQ)

# The graphs a task needs, each a file of its own beside the manifest.
GRAPHS_OF_TASK = {
    CLASSIFY: ("predict",),
    GENERATE: ("prime", "step", "score"),
    SEQ2SEQ: ("prime", "step", "score"),
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a dimension is a number or the name of a free axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a stream's state.

    shape: of one row, without the batch axis that the graphs put first.
    carried: each step makes it anew (as ``next_NAME``); otherwise priming sets it for good.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    carried: bool


@dataclass(frozen=True)
class WeightTensor:
    """Where one tensor lies in the weights file; offset in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Weights:
    file: str
    tensors: dict[str, WeightTensor]


@dataclass(frozen=True)
class TokenizerSpec:
    """vocabulary: the key of its vocabulary in the vocabulary file."""

    kind: str
    lowercase: bool
    vocabulary: str


@dataclass(frozen=True)
class FileSpec:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class SamplingDefaults:
    """What a request that does not choose gets; temperature 0 takes the likeliest token."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class FigureSpec:
    """A measured figure: what, in which unit, on how many examples of which split."""

    name: str
    value: float
    unit: str
    split: str
    examples: int
    command: str


@dataclass(frozen=True)
class DataSource:
    package: str
    version: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class ExportFacts:
    """parity: the largest |ONNX - PyTorch| of each graph that the gate measured."""

    torch: str
    onnx: str
    onnxruntime: str
    opset: int
    parity: dict[str, float]
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """model: the configuration training built the model from, for export to build it again.
    limits: the largest inputs and outputs in tokens (``input_tokens``, ``output_tokens``).
    files: every other file of the bundle by name.
    """

    schema_version: int
    name: str
    version: int
    task: str
    description: str
    model: dict[str, Any]
    graphs: dict[str, GraphSpec]
    weights: Weights
    state: tuple[StateTensor, ...]
    tokenizers: dict[str, TokenizerSpec]
    vocabulary_file: str
    labels: tuple[str, ...]
    sampling: SamplingDefaults
    limits: dict[str, int]
    figures: tuple[FigureSpec, ...]
    data: tuple[DataSource, ...]
    training: dict[str, Any]
    export: ExportFacts
    files: dict[str, FileSpec] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Raises SchemaUnknown for another schema version, ManifestInvalid for all else."""
        if not isinstance(content, Mapping):
            raise ManifestInvalid("manifest.json does not hold an object; export the model again")
        found = content.get("schema_version")
        if found != SCHEMA_VERSION:
            raise SchemaUnknown(
                f"manifest.json has schema version {found!r}, this release reads "
                f"{SCHEMA_VERSION}; export the model again with this release"
            )
        manifest: Manifest = _decode(cls, content, "manifest")
        _check(manifest)
        return manifest


def _check(manifest: Manifest) -> None:
    if manifest.task not in TASKS:
        raise ManifestInvalid(f"task {manifest.task!r} is not one of {', '.join(TASKS)}")
    for graph in GRAPHS_OF_TASK[manifest.task]:
        if graph not in manifest.graphs:
            raise ManifestInvalid(f"task {manifest.task!r} needs a graph {graph!r}")
    for tokenizer in manifest.tokenizers.values():
        if not tokenizer.vocabulary:
            raise ManifestInvalid("a tokenizer names no vocabulary")
    roles = ("input",) if manifest.task == CLASSIFY else ("input", "output")
    limits = tuple(f"{role}_tokens" for role in roles)
    for what, wanted, given in (
        ("tokenizer", roles, manifest.tokenizers),
        ("limit", limits, manifest.limits),
    ):
        missing = [name for name in wanted if name not in given]
        if missing:
            raise ManifestInvalid(f"task {manifest.task!r} needs the {what} {missing[0]!r}")
    graph_files = [graph.file for graph in manifest.graphs.values()]
    for name in (*manifest.files, *graph_files, manifest.weights.file, manifest.vocabulary_file):
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise ManifestInvalid(f"file name {name!r} is not a plain name")
        if name not in manifest.files:
            raise ManifestInvalid(f"file {name!r} is used but has no hash in the manifest")


def _decode(wanted: Any, content: Any, where: str) -> Any:
    """``content``, as JSON gave it, as a value of the type ``wanted``; strict about both."""
    if dataclasses.is_dataclass(wanted):
        return _decode_object(wanted, content, where)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple and isinstance(content, list | tuple):
        return tuple(_decode(arguments[0], part, f"{where}[{i}]") for i, part in enumerate(content))
    if origin is dict and isinstance(content, Mapping):
        return {key: _decode(arguments[1], part, f"{where}.{key}") for key, part in content.items()}
    if origin is types.UnionType and type(content) in arguments:
        return content
    if wanted is Any:
        return content
    if wanted is float and type(content) in (int, float):
        return float(content)
    if isinstance(wanted, type) and type(content) is wanted:
        return content
    raise ManifestInvalid(f"{where} is {content!r}, not of type {wanted}")


def _decode_object(wanted: Any, content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise ManifestInvalid(f"{where} is {content!r}, not an object")
    hints = typing.get_type_hints(wanted)
    missing, unknown = sorted(hints.keys() - content.keys()), sorted(content.keys() - hints.keys())
    if missing or unknown:
        raise ManifestInvalid(f"{where}: missing fields {missing}, unknown fields {unknown}")
    return wanted(**{key: _decode(hints[key], content[key], f"{where}.{key}") for key in hints})
