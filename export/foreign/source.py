"""Reads a foreign ONNX file within bounds: size, paths, operators, types.

What it lets through is still code from elsewhere, which onnxruntime has the last word on.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from bundle.paths import within
from export.foreign.errors import ImportRefused

MOST_BYTES = 2 * 1024**3
_MOST_NODES = 200_000
_DEEPEST = 32
_LEAST_OPSET = 9

# Domains whose operators onnxruntime has on a CPU.
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))
_TRAINING_DOMAINS = frozenset(("ai.onnx.training", "ai.onnx.preview.training"))
_RANDOM = frozenset(
    (
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
        "Bernoulli",
    )
)  # fmt: skip

# Attributes of a tensor's external data that may stand in a file.
_EXTERNAL_KEYS = frozenset(("location", "offset", "length", "checksum"))


@dataclass(frozen=True)
class Source:
    """A foreign model, all of its data read. bytes: of all its files."""

    path: Path
    model: ModelProto
    sha256: str
    bytes: int


def read_source(path: Path) -> Source:
    """Raises ImportRefused with the reason."""
    size = _checked_size(path, path)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, TypeError, RecursionError) as error:
        raise ImportRefused(f"{path} is not an ONNX model ({error})") from error
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(path.read_bytes())
    _check_model(path, model)
    files: dict[str, bytes] = {}
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            size += _read_external(path, tensor, files, MOST_BYTES - size, digest)
    return Source(path, model, digest.hexdigest(), size)


def _checked_size(path: Path, named: Path) -> int:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{named} cannot be read ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ImportRefused(f"{named} is not a regular file")
    if status.st_size >= MOST_BYTES:
        raise ImportRefused(f"{named} has {status.st_size} bytes; less than 2 GiB are imported")
    return status.st_size


def _check_model(path: Path, model: ModelProto) -> None:
    if not model.graph.node:
        raise ImportRefused(f"{path} holds no graph")
    if model.training_info:
        raise ImportRefused(f"{path} holds a training graph; export the model for inference")
    versions = [found.version for found in model.opset_import if found.domain in ("", "ai.onnx")]
    if not versions or min(versions) < _LEAST_OPSET:
        raise ImportRefused(
            f"{path} is of opset {versions or 'none'}; {_LEAST_OPSET} is the least: convert it "
            "with onnx.version_converter"
        )
    own = {function.domain for function in model.functions}
    for count, node in enumerate(_nodes(model), start=1):
        if count > _MOST_NODES:
            raise ImportRefused(f"{path} has more than {_MOST_NODES} nodes")
        _check_node(path, node, own)
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type" or value.type.tensor_type.elem_type == TensorProto.STRING:
            raise ImportRefused(
                f"{path}: {value.name!r} is no tensor of numbers ({kind or 'untyped'})"
            )
    if any(True for _ in model.graph.sparse_initializer):
        raise ImportRefused(f"{path} holds sparse initializers; make them dense")


def _check_node(path: Path, node: NodeProto, own: set[str]) -> None:
    if node.domain in _TRAINING_DOMAINS:
        raise ImportRefused(f"{path}: {node.op_type} is a training operator")
    if node.domain not in _DOMAINS | own:
        raise ImportRefused(
            f"{path}: {node.op_type} is of the domain {node.domain!r}, whose operators are not "
            "known; export the model without custom operators"
        )
    if node.op_type in _RANDOM:
        raise ImportRefused(
            f"{path}: {node.op_type} draws random numbers, so no answer could be repeated"
        )
    if node.op_type == "BatchNormalization" and _whole(node, "training_mode"):
        raise ImportRefused(f"{path}: a BatchNormalization is in training mode")
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        raise ImportRefused(f"{path}: a Dropout may be in training mode; export after eval()")


def _whole(node: NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from nodes_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield node
            yield from _nested(node, 1)


def nodes_of(graph: GraphProto, depth: int = 0) -> Iterator[NodeProto]:
    """Every node, those of subgraphs after the one that holds them."""
    for node in graph.node:
        yield node
        yield from _nested(node, depth)


def _nested(node: NodeProto, depth: int) -> Iterator[NodeProto]:
    for graph in subgraphs(node):
        if depth >= _DEEPEST:
            raise ImportRefused(f"graphs are nested more than {_DEEPEST} deep")
        yield from nodes_of(graph, depth + 1)


def subgraphs(node: NodeProto) -> list[GraphProto]:
    found = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found + [g for a in node.attribute if a.type == AttributeProto.GRAPHS for g in a.graphs]


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for graph in subgraphs(node):
            yield from graph.initializer


def _read_external(
    path: Path, tensor: TensorProto, files: dict[str, bytes], left: int, digest: hashlib._Hash
) -> int:
    """Put the data of ``tensor`` into it; how many bytes were read of a file not read before."""
    places = {entry.key: entry.value for entry in tensor.external_data}
    location = places.get("location", "")
    if unknown := places.keys() - _EXTERNAL_KEYS:
        raise ImportRefused(f"{path}: {tensor.name!r} has external data with {sorted(unknown)}")
    read = 0
    if location not in files:
        file = _beside(path, location)
        if _checked_size(file, file) > left:
            raise ImportRefused(f"{path} and its data have more than 2 GiB together")
        files[location] = file.read_bytes()
        read = len(files[location])
        digest.update(files[location])
    content = files[location]
    try:
        offset = int(places.get("offset", 0))
        length = int(places.get("length", len(content) - offset))
    except ValueError as error:
        raise ImportRefused(f"{path}: {tensor.name!r} lies at {places}") from error
    if offset < 0 or length < 0 or offset + length > len(content):
        raise ImportRefused(f"{path}: {tensor.name!r} lies outside {location!r}")
    tensor.raw_data = content[offset : offset + length]
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return read


def _beside(path: Path, location: str) -> Path:
    """Where external data lies, which must be the folder of the model or below it."""
    found = None if "\0" in location else within(path.parent, location)
    if found is None:
        raise ImportRefused(
            f"{path} names external data {location!r}, which is no file of its folder; put "
            "the file beside the model and save it with a plain name"
        )
    return found
