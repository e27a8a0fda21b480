"""Traces graphs into ONNX files whose weights lie in the bundle's one weights file."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from bundle.manifest import GraphSpec, TensorSpec, Weights
from export.graphs import EXAMPLE_SIZES, Graph, GraphTensor
from export.operators import TRANSLATION_TABLE
from export.opset import OPSET

# Constants below this many bytes stay inside a graph: shapes, axes, ids. So does one row of the
# vocabulary that a step draws among, be it large: which ids are suppressed.
_INLINE_LIMIT = 64 * 1024


class ExportRefused(Exception):
    """A model that cannot be exported as it should; nothing was written."""


def write_graph(graph: Graph, weights: Weights, folder: Path) -> GraphSpec:
    """Trace ``graph`` and write it into ``folder``.

    Raises ExportRefused for an exporter's warning, a frozen axis, or a weight that the
    exporter changed instead of taking it from the weights file.
    """
    with _no_unexplained_warnings(graph.name):
        program = torch.onnx.export(
            graph.module.eval(),
            _examples(graph),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=_dynamic_shapes(graph),
            input_names=[port.name for port in (*graph.inputs, *graph.state)],
            output_names=[port.name for port in graph.outputs],
            custom_translation_table=TRANSLATION_TABLE,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    _bring(graph, model)
    _refer_to_weights(model, weights, folder, graph)
    _drop_traces(model)
    file = f"{graph.name}.onnx"
    spec = GraphSpec(
        file,
        _matching(model.graph.input, (*graph.inputs, *graph.state), graph.name),
        _matching(model.graph.output, graph.outputs, graph.name),
    )
    (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(folder / file))
    return spec


def _bring(graph: Graph, model: onnx.ModelProto) -> None:
    """Put the functions that the graph calls into the model."""
    model.functions.extend(graph.functions)
    known = {opset.domain for opset in model.opset_import}
    for domain in dict.fromkeys(f.domain for f in graph.functions if f.domain not in known):
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def _examples(graph: Graph) -> tuple[object, ...]:
    inputs = tuple(port.example(EXAMPLE_SIZES) for port in graph.inputs)
    state = tuple(port.example(EXAMPLE_SIZES) for port in graph.state)
    return (*inputs, state) if graph.state else inputs


def _dynamic_shapes(graph: Graph) -> tuple[object, ...]:
    free = dict.fromkeys(EXAMPLE_SIZES, torch.export.Dim.DYNAMIC)

    def axes(port: GraphTensor) -> dict[int, object]:
        return {i: free[axis] for i, axis in enumerate(port.shape) if isinstance(axis, str)}

    shapes: tuple[object, ...] = tuple(axes(port) for port in graph.inputs)
    if graph.state:
        shapes = (*shapes, tuple(axes(port) for port in graph.state))
    # A module that takes any number of tensors takes one argument, a tuple, for the tracer.
    is_variadic = inspect.getfullargspec(graph.module.forward).varargs is not None
    return (shapes,) if is_variadic else shapes


# Warnings that say nothing about the graph, each with the reason.
_EXPLAINED = (
    # PyTorch's own exporter calls its own deprecated names.
    "isinstance(treespec, LeafSpec)",
    # The exporter looks for operators of a package that this project does not use.
    "torchvision is not installed",
)


@contextmanager
def _no_unexplained_warnings(graph: str) -> Iterator[None]:
    """Refuses what the exporter warns of, be it by warnings or by logging."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    loggers = _loggers_of("torch", "onnxscript", "onnx_ir")
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
    said = [*records, *(str(warning.message) for warning in caught)]
    unexplained = [text for text in said if not any(part in text for part in _EXPLAINED)]
    if unexplained:
        raise ExportRefused(f"exporting {graph!r}, the exporter warned: {unexplained}")


def _loggers_of(*packages: str) -> list[logging.Logger]:
    """The packages' own loggers and every one below them that prints by itself."""
    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in packages]
    loggers = [logging.getLogger(name) for name in {*packages, *names}]
    return [logger for logger in loggers if logger.handlers or logger.name in packages]


def _refer_to_weights(model: onnx.ModelProto, weights: Weights, folder: Path, graph: Graph) -> None:
    """Replace each weight's bytes by its place in the weights file."""
    content = (folder / weights.file).read_bytes()
    for tensor in model.graph.initializer:
        name = graph.weights_prefix + tensor.name.removeprefix("model.")
        raw = numpy_helper.to_array(tensor)
        if name not in weights.tensors:
            is_row = raw.ndim == 1 and len(raw) == _widest(graph)
            if raw.nbytes > _INLINE_LIMIT and not is_row:
                raise ExportRefused(
                    f"graph {graph.name!r} holds {tensor.name!r} of {raw.nbytes} bytes, "
                    "which is no weight of the model"
                )
            continue
        place = weights.tensors[name]
        stored = content[place.offset : place.offset + raw.nbytes]
        if raw.shape != place.shape or np.ascontiguousarray(raw).tobytes() != stored:
            raise ExportRefused(f"graph {graph.name!r} changed the weight {name!r}")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (
            ("location", weights.file),
            ("offset", str(place.offset)),
            ("length", str(raw.nbytes)),
        ):
            tensor.external_data.add(key=key, value=value)


def _widest(graph: Graph) -> int:
    """The numbers of a row of the graph's widest output: a step's, its vocabulary."""
    sizes = [port.shape[-1] for port in graph.outputs if len(port.shape) > 1]
    return max((size for size in sizes if isinstance(size, int)), default=0)


def _drop_traces(model: onnx.ModelProto) -> None:
    """Forget where in which source file each node came from, and the tracer's axis names."""
    model.ClearField("metadata_props")
    for function in model.functions:
        function.ClearField("value_info")
        function.ClearField("metadata_props")
        _drop_traces_of_nodes(function.node)
    _drop_traces_of_graph(model.graph)


def _drop_traces_of_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")
    _drop_traces_of_nodes(graph.node)
    for part in (*graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")


def _drop_traces_of_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _drop_traces_of_graph(attribute.g)


def _matching(values: object, ports: tuple[GraphTensor, ...], graph: str) -> tuple[TensorSpec, ...]:
    """The graph's tensors as the manifest describes them; free axes by our own names."""
    found = list(values)  # type: ignore[call-overload]
    if [value.name for value in found] != [port.name for port in ports]:
        names = [value.name for value in found]
        raise ExportRefused(f"graph {graph!r} has tensors {names}, not those it was given")
    specs = []
    for value, port in zip(found, ports, strict=True):
        dims = value.type.tensor_type.shape.dim
        for dim, axis in zip(dims, port.shape, strict=True):
            if isinstance(axis, str):
                if dim.HasField("dim_value"):
                    raise ExportRefused(f"graph {graph!r} froze the {axis} axis of {port.name!r}")
                dim.dim_param = axis
        specs.append(TensorSpec(port.name, str(port.dtype).removeprefix("torch."), port.shape))
    return tuple(specs)
