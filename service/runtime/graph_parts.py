"""The part of an ONNX graph that some of its outputs need, after others if they are given.

onnxruntime runs every node of a graph, whichever outputs are asked for. The onnx package, which
could cut one, is no part of the service; of the protobuf encoding
(https://protobuf.dev/programming-guides/encoding) a cut takes little.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from service.varint import varint

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_VALUE_NAME, _TENSOR_NAME = 1, 8

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5


class NotAGraph(ValueError):
    """Bytes that are no protobuf message."""


def part_for(model: bytes, outputs: Collection[str], given: Collection[str] = ()) -> bytes:
    """``model``, a serialized ModelProto, with what computes these outputs and nothing else.

    Nodes, initializers and inputs that they do not need are left out; all else is as it was.
    given: of the model's other outputs, what the part reads instead of computing it.

    Raises NotAGraph.
    """
    return b"".join(
        _message(number, _graph_part(value, outputs, given)) if number == _MODEL_GRAPH else raw
        for number, value, raw in _fields(model)
    )


def _graph_part(graph: bytes, outputs: Collection[str], given: Collection[str]) -> bytes:
    fields = list(_fields(graph))
    needed = set(outputs)
    nodes: set[int] = set()  # places in fields
    # Nodes come in an order in which each reads what earlier ones made.
    for place in reversed(range(len(fields))):
        number, node, _ = fields[place]
        if number == _GRAPH_NODE and any(
            name in needed and name not in given for name in _names(node, _NODE_OUTPUT)
        ):
            nodes.add(place)
            needed.update(_read_by(node))
    names = {
        _GRAPH_INITIALIZER: (_TENSOR_NAME, needed),
        _GRAPH_INPUT: (_VALUE_NAME, needed),
        _GRAPH_OUTPUT: (_VALUE_NAME, outputs),
    }

    def kept(place: int, number: int, value: bytes, raw: bytes) -> bytes:
        if number == _GRAPH_NODE:
            return raw if place in nodes else b""
        name, wanted = names.get(number, (0, ()))
        if not name or any(found in wanted for found in _names(value, name)):
            return raw
        if number == _GRAPH_OUTPUT and any(
            found in needed and found in given for found in _names(value, name)
        ):
            return _message(_GRAPH_INPUT, value)
        return b""

    return b"".join(
        kept(place, number, value, raw) for place, (number, value, raw) in enumerate(fields)
    )


def _read_by(node: bytes) -> Iterator[str]:
    """What a node reads, the graphs within it included."""
    yield from _names(node, _NODE_INPUT)
    for attribute in _values(node, (_NODE_ATTRIBUTE,)):
        for graph in _values(attribute, _ATTRIBUTE_GRAPHS):
            for inner in _values(graph, (_GRAPH_NODE,)):
                yield from _read_by(inner)
            for output in _values(graph, (_GRAPH_OUTPUT,)):
                yield from _names(output, _VALUE_NAME)


def _names(message: bytes, number: int) -> list[str]:
    return [value.decode() for value in _values(message, (number,))]


def _values(message: bytes, numbers: Iterable[int]) -> list[bytes]:
    return [value for number, value, _ in _fields(message) if number in numbers]


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each field's number, its content (of messages, strings and bytes) and all of its bytes."""
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        size = 0
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _LENGTH:
            size, place = _varint(message, place)
        elif kind in (_FIXED_32, _FIXED_64):
            place += 4 if kind == _FIXED_32 else 8
        else:
            raise NotAGraph(f"field {number} is of the unknown kind {kind}")
        if place + size > len(message):
            raise NotAGraph(f"field {number} ends behind its message")
        yield number, message[place : place + size], message[start : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise NotAGraph("a number ends behind its message")


def _message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _LENGTH) + varint(len(content)) + content
