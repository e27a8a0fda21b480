"""Graphs taken apart and put together: names, constants, branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from export.foreign.errors import ImportRefused
from export.foreign.source import subgraphs

Array = NDArray[Any]

# The format that rewritten graphs are written in, where their own is older.
IR_VERSION = 10

# Constant nodes above this many bytes become initializers, which lie in the weights file.
_LARGE = 1024

# What a condition is computed from is tiny; anything larger is no condition.
_MOST_FOLDED = 256

# What an output's shape follows, whatever the values are.
_SHAPE_ONLY = frozenset(("Shape", "Size"))


# onnxruntime chooses between tensors of a few types; others go there and back without a loss.
_CHOSEN_AS = {
    "float16": "float32", "bool": "uint8", "int8": "int32", "int16": "int32", "uint16": "int32",
    "uint32": "int64", "uint64": "int64",
}  # fmt: skip


class Builder:
    """Nodes and initializers of a graph in the making; its own names begin with a tilde."""

    def __init__(self, prefix: str = "~") -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"{self.prefix}{self._count}"

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """The name of its output."""
        output = output or self.name()
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def choose(self, flag: str, one: str, other: str, dtype: str, output: str = "") -> str:
        """``one`` where ``flag``, else ``other``, both of ``dtype``, bit for bit."""
        wide = _CHOSEN_AS.get(dtype)
        if wide is None:
            return self.node("Where", [flag, one, other], output)
        one, other = (self.cast(value, wide) for value in (one, other))
        return self.cast(self.node("Where", [flag, one, other]), dtype, output)

    def cast(self, value: str, dtype: str, output: str = "") -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", [value], output, to=kind)

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = self.name()
        array = np.asarray(value, dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def value_info(name: str, dtype: str, shape: Sequence[int | str]) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))


def opset_of(model: ModelProto) -> int:
    return max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Those that are not initializers, which older files list as inputs too."""
    held = {tensor.name for tensor in graph.initializer}
    return [port for port in graph.input if port.name not in held]


def renamed(graph: GraphProto, rename: Callable[[str], str]) -> None:
    """Every value's name, in ``graph`` and the graphs inside it, by ``rename``; in place."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name:
                    names[place] = rename(name)
        if node.name:
            node.name = rename(node.name)
        for inner in subgraphs(node):
            renamed(inner, rename)
    for part in (*graph.input, *graph.output, *graph.initializer):
        part.name = rename(part.name)
    del graph.value_info[:]
    del graph.quantization_annotation[:]


def _defined(graph: GraphProto) -> Iterator[str]:
    """Names that are made within ``graph``, at any depth."""
    for part in (*graph.input, *graph.initializer):
        yield part.name
    for node in graph.node:
        yield from filter(None, node.output)
        for inner in subgraphs(node):
            yield from _defined(inner)


def with_constants(graph: GraphProto, values: Mapping[str, Array]) -> None:
    """Inputs become initializers of these values; in place."""
    kept = [port for port in graph.input if port.name not in values]
    del graph.input[:]
    graph.input.extend(kept)
    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(value, name))


def lift_constants(graph: GraphProto) -> None:
    """Large constants of the outermost graph become initializers; in place."""
    kept = []
    for node in graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and tensor is not None and tensor.ByteSize() > _LARGE:
            lifted = graph.initializer.add()
            lifted.CopyFrom(tensor)
            lifted.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def fold_branches(model: ModelProto) -> None:
    """Each If of the outermost graph whose condition is constant becomes its branch; in place.

    silero's models choose between two networks by a sample rate.
    """
    graph = model.graph
    while True:
        found = _constant_condition(model)
        if found is None:
            return
        place, value = found
        node = graph.node[place]
        name = "then_branch" if value else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == name)
        inner = GraphProto()
        inner.CopyFrom(branch)
        own = set(_defined(inner))
        prefix = f"{node.output[0]}|{name}|"

        def rename(old: str, own: set[str] = own, prefix: str = prefix) -> str:
            return prefix + old if old in own else old

        renamed(inner, rename)
        ends = [
            helper.make_node("Identity", [end.name], [output])
            for end, output in zip(inner.output, node.output, strict=True)
            if output
        ]
        nodes = [*graph.node[:place], *inner.node, *ends, *graph.node[place + 1 :]]
        graph.initializer.extend(inner.initializer)
        del graph.node[:]
        graph.node.extend(nodes)


def _constant_condition(model: ModelProto) -> tuple[int, bool] | None:
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output if output}
    held = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        if node.op_type != "If":
            continue
        needed = _ancestors(node.input[0], makers, held)
        if needed is None:
            continue
        value = _evaluated(model, node.input[0], needed, held)
        if value is not None:
            return place, value
    return None


def _ancestors(
    name: str, makers: Mapping[str, NodeProto], held: Mapping[str, TensorProto]
) -> list[NodeProto] | None:
    """The nodes that ``name`` is made by, in no order; None where it depends on an input."""
    found: dict[int, NodeProto] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if not current or current in held:
            continue
        node = makers.get(current)
        if node is None or any(True for _ in subgraphs(node)) or len(found) > _MOST_FOLDED:
            return None
        if id(node) not in found:
            found[id(node)] = node
            waiting.extend(node.input)
    return list(found.values())


def _evaluated(
    model: ModelProto, name: str, needed: Sequence[NodeProto], held: Mapping[str, TensorProto]
) -> bool | None:
    chosen = {id(node) for node in needed}
    nodes = [node for node in model.graph.node if id(node) in chosen]
    read = {given for node in nodes for given in node.input} | {name}
    end = helper.make_tensor_value_info(name, TensorProto.BOOL, None)
    tensors = [held[given] for given in read if given in held]
    if sum(tensor.ByteSize() for tensor in tensors) > _MOST_FOLDED * _LARGE:
        return None
    nodes = [*nodes, helper.make_node("Identity", [name], ["~condition"])]
    end.name = "~condition"
    part = helper.make_graph(nodes, "condition", [], [end], tensors)
    small = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        (value,) = open_model(small.SerializeToString()).run(None, {})
    except Exception:  # it is left for onnxruntime, which says what it cannot do
        return None
    return bool(value.reshape(-1)[0]) if value.size == 1 else None


def refuse_choices_by_value(graph: GraphProto, rows: Iterable[str]) -> None:
    """Raises ImportRefused for control flow that the values of rows decide.

    rows: names of the inputs whose first values are rows. Shapes may decide: those are the batch's.
    """
    _values_of_rows(graph, set(rows))


def _values_of_rows(graph: GraphProto, tainted: set[str]) -> set[str]:
    for node in graph.node:
        inner = subgraphs(node)
        is_tainted = any(name in tainted for name in node.input)
        if node.op_type == "If" and node.input[0] in tainted:
            _refuse(node, "chooses its branch")
        if node.op_type == "Loop" and any(name in tainted for name in node.input[:2]):
            _refuse(node, "ends")
        for part in inner:
            within = set(tainted)
            if node.op_type in ("Loop", "Scan"):
                # What goes around may come from any row, so all of it counts.
                within |= {port.name for port in part.input} if is_tainted else set()
            within = _values_of_rows(part, within)
            if node.op_type == "Loop" and part.output and part.output[0].name in within:
                _refuse(node, "ends")
            is_tainted = is_tainted or any(port.name in within for port in part.output)
        if is_tainted and node.op_type not in _SHAPE_ONLY:
            tainted |= {name for name in node.output if name}
    return tainted


def _refuse(node: NodeProto, does: str) -> None:
    raise ImportRefused(
        f"{node.op_type} {node.name or node.output[0]!r} {does} by the values of a row: control "
        "flow over the batch, which rows cannot share and nothing bounds; export the model so that "
        "such choices are arithmetic (Where)"
    )


def open_model(model: bytes | str) -> onnxruntime.InferenceSession:
    """On one thread of the CPU, as the service opens a step. model: its bytes or its path."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("mlas.disable_kleidiai", "1")
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def free_batch(graph: GraphProto) -> None:
    """Inputs and outputs of any size, and nothing said of what lies between; in place."""
    for number, port in enumerate((*graph.input, *graph.output)):
        kind = port.type.tensor_type
        if number >= len(graph.input):
            kind.ClearField("shape")
            continue
        for axis, dim in enumerate(kind.shape.dim):
            dim.Clear()
            dim.dim_param = f"free_{number}_{axis}"
    del graph.value_info[:]


def with_free_reshapes(graph: GraphProto) -> bool:
    """Reshapes to a first axis of 1 keep the first axis that they are given; in place.

    Whether there was one. What changes for a single row is nothing, as long as its first axis is
    1 there; that it is right for several, the gate finds out.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    held |= {
        node.output[0]: a.t
        for node in graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.type == AttributeProto.TENSOR
    }
    number = 0
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in held:
            continue
        target = numpy_helper.to_array(held[node.input[1]])
        if target.ndim != 1 or not len(target) or target[0] != 1 or _keeps_zeros(node):
            continue
        free = target.copy()
        # Where another axis is left open already, the first one is as the input's.
        free[0] = 0 if -1 in target[1:] else -1
        name = f"~reshape{number}"
        number += 1
        graph.initializer.append(numpy_helper.from_array(free, name))
        node.input[1] = name
    return number > 0


def _keeps_zeros(node: NodeProto) -> bool:
    return any(a.name == "allowzero" and a.i for a in node.attribute)
