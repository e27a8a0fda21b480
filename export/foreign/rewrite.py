"""Foreign graphs as a bundle's graph: rows first, states by NAME and next_NAME, zeros at the start.

Decision 0080. Two forms: rows that run together, by Transposes at the edges; and rows that do not,
by a Scan over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, version_converter

from bundle.manifest import BATCH, StateTensor, TensorSpec
from bundle.stepping import SharedInput
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping
from export.foreign.source import nodes_of
from export.foreign.surgery import (
    IR_VERSION,
    Builder,
    lift_constants,
    opset_of,
    real_inputs,
    renamed,
    value_info,
    with_free_reshapes,
)
from export.foreign.trial import Found, Port

Array = NDArray[Any]

# The state that a graph with initial values knows a new stream by.
STARTED = "started"


@dataclass(frozen=True)
class Prepared:
    """A graph to be rewritten. model: constants of one value filled in, branches that they decide
    taken. frames: graph's input → the frame's name or ``GRAPH.output``. answers: graph's output →
    the answer's name. initial: of states where it is not zero, in the shape of a row.
    """

    mapping: GraphMapping
    model: ModelProto
    found: Found
    frames: Mapping[str, str]
    answers: Mapping[str, str]
    initial: Mapping[str, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.mapping.name

    def frame_port(self, name: str) -> Port:
        """The input ``name`` as it is sent: without what is kept of the step before."""
        port = self.found.inputs[name]
        kept = self.mapping.contexts.get(name, 0)
        return replace(port, shape=(*port.shape[:-1], port.shape[-1] - kept)) if kept else port

    def context_port(self, name: str) -> Port:
        port = self.found.inputs[name]
        return replace(port, shape=(*port.shape[:-1], self.mapping.contexts[name]))


@dataclass(frozen=True)
class Names:
    """What the tensors of a model are called outside. states: (graph, input) → name; contexts
    alike. started: of the flag of a new stream, where there is one."""

    states: Mapping[tuple[str, str], str]
    contexts: Mapping[tuple[str, str], str]
    shared: Mapping[tuple[str, str], str]
    started: str


@dataclass(frozen=True)
class Rewritten:
    """model: the graph ``step`` before its weights are moved out of it."""

    model: ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[StateTensor, ...]
    frames: tuple[str, ...]
    answers: tuple[str, ...]
    shared: tuple[SharedInput, ...]


def names_of(stages: Sequence[Prepared]) -> Names:
    """Names as the graphs have them, with the graph's before it where two are alike."""
    taken = {
        *(name for stage in stages for name in stage.frames.values()),
        *(name for stage in stages for name in stage.answers.values()),
    }

    def free(name: str, stage: Prepared) -> str:
        for chosen in (name, f"{stage.name}_{name}", f"{stage.name}_{name}_state"):
            if chosen not in taken and f"next_{chosen}" not in taken:
                taken.update((chosen, f"next_{chosen}"))
                return chosen
        raise ImportRefused(
            f"the name {name!r} is taken; give a graph of the pipeline another name"
        )

    shared = {
        (stage.name, name): free(name, stage)
        for stage in stages
        for name, values in stage.mapping.constants.items()
        if len(values) > 1
    }
    states = {
        (stage.name, name): free(name, stage) for stage in stages for name in stage.mapping.states
    }
    contexts = {
        (stage.name, name): free(f"{name}_context", stage)
        for stage in stages
        for name in stage.mapping.contexts
    }
    started = free(STARTED, stages[0]) if any(stage.initial for stage in stages) else ""
    return Names(states, contexts, shared, started)


def rewrite(stages: Sequence[Prepared], together: bool) -> Rewritten:
    """together: whether rows run side by side; else one after the other.

    Raises ImportRefused for graphs that cannot be put together.
    """
    stages = _of_one_opset(stages)
    names = names_of(stages)
    frames = {
        name: stage.frame_port(port)
        for stage in stages
        for port, name in stage.frames.items()
        if not is_link(name, stages)
    }
    answers = {
        name: stage.found.outputs[port] for stage in stages for port, name in stage.answers.items()
    }
    states = _states(stages, names)
    shared = _shared(stages, names)
    _check_names(frames, answers, states, shared)
    inner = _Inner(stages, names, together)
    made = inner.build()
    nodes = inner.nodes if together else [_scan(inner, frames, states, answers, made)]
    graph_inputs = [
        *(value_info(n, p.dtype, (BATCH, *p.row_shape)) for n, p in frames.items()),
        *(value_info(spec.name, spec.dtype, spec.shape) for spec, _ in shared),
        *(value_info(s.name, s.dtype, (BATCH, *s.shape)) for s in states),
    ]
    graph_outputs = [
        *(value_info(n, p.dtype, (BATCH, *p.row_shape)) for n, p in answers.items()),
        *(value_info(f"next_{s.name}", s.dtype, (BATCH, *s.shape)) for s in states),
    ]
    graph = helper.make_graph(
        nodes,
        "step",
        graph_inputs,
        graph_outputs,
        inner.initializers,
    )
    lift_constants(graph)
    version = max(IR_VERSION, *(stage.model.ir_version for stage in stages))
    model = helper.make_model(graph, opset_imports=_imports(stages), ir_version=version)
    return Rewritten(
        model,
        tuple(_spec(value) for value in graph_inputs),
        tuple(_spec(value) for value in graph_outputs),
        states,
        tuple(frames),
        tuple(answers),
        tuple(choice for _, choice in shared),
    )


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_param if d.HasField("dim_param") else d.dim_value for d in kind.shape.dim)
    return TensorSpec(value.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)


def is_link(name: str, stages: Sequence[Prepared]) -> bool:
    graph, dot, _ = name.partition(".")
    return bool(dot) and any(stage.name == graph for stage in stages)


def _states(stages: Sequence[Prepared], names: Names) -> tuple[StateTensor, ...]:
    found = []
    for stage in stages:
        for name in stage.mapping.states:
            port = stage.found.inputs[name]
            found.append((names.states[stage.name, name], port))
        for name in stage.mapping.contexts:
            found.append((names.contexts[stage.name, name], stage.context_port(name)))
    states = [StateTensor(name, port.dtype, port.row_shape, carried=True) for name, port in found]
    if names.started:
        states.append(StateTensor(names.started, "bool", (), carried=True))
    return tuple(states)


def _shared(stages: Sequence[Prepared], names: Names) -> list[tuple[TensorSpec, SharedInput]]:
    found = []
    for stage in stages:
        ports = {port.name: port for port in real_inputs(stage.model.graph)}
        for name, values in stage.mapping.constants.items():
            if len(values) > 1:
                spec = replace(_spec(ports[name]), name=names.shared[stage.name, name])
                shape = tuple(n if isinstance(n, int) and n > 0 else 1 for n in spec.shape)
                found.append((replace(spec, shape=shape), SharedInput(spec.name, values)))
    return found


def _check_names(
    frames: Mapping[str, Port],
    answers: Mapping[str, Port],
    states: Sequence[StateTensor],
    shared: Sequence[tuple[TensorSpec, SharedInput]],
) -> None:
    names = [
        *frames, *answers, *(s.name for s in states), *(f"next_{s.name}" for s in states),
        *(spec.name for spec, _ in shared),
    ]  # fmt: skip
    if not frames:
        raise ImportRefused("no input is left for frames; name one with --input")
    if not answers:
        raise ImportRefused("no output is left for answers; name one with --output")
    for name in names:
        if names.count(name) > 1:
            raise ImportRefused(
                f"two tensors are called {name!r}; give one another name: --output {name}:OTHER"
            )
        if not name or len(name) > 128 or not name.isprintable() or name.startswith("~"):
            raise ImportRefused(f"a tensor is called {name!r}; give it another name")


def _imports(stages: Sequence[Prepared]) -> list[Any]:
    versions: dict[str, int] = {}
    used = {node.domain for stage in stages for node in _all_nodes(stage.model.graph)}
    for stage in stages:
        for imported in stage.model.opset_import:
            domain = "" if imported.domain == "ai.onnx" else imported.domain
            if domain in used or domain == "":
                versions[domain] = max(versions.get(domain, 0), imported.version)
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _all_nodes(graph: GraphProto) -> list[NodeProto]:
    return list(nodes_of(graph))


def _of_one_opset(stages: Sequence[Prepared]) -> list[Prepared]:
    newest = max(opset_of(stage.model) for stage in stages)
    return [
        replace(stage, model=at_opset(stage.model, newest, stage.mapping.file.name))
        for stage in stages
    ]


def at_opset(model: ModelProto, version: int, name: str) -> ModelProto:
    """``model`` in operators of ``version``. Raises ImportRefused where it cannot be converted."""
    if opset_of(model) == version:
        return model
    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # it raises what its C++ does
        raise ImportRefused(
            f"{name} is of opset {opset_of(model)} and cannot be converted to {version} "
            f"({error}); export it anew with opset {version}"
        ) from error


class _Inner:
    """The stages in a row, over rows together or over one row, and what leads in and out.

    Values are called by their names outside; for a single row they are the row's own.
    """

    def __init__(self, stages: Sequence[Prepared], names: Names, together: bool) -> None:
        self.stages = stages
        self.names = names
        self.together = together
        self.builder = Builder()
        self.nodes: list[NodeProto] = self.builder.nodes
        self.initializers: list[TensorProto] = self.builder.initializers
        self._links: dict[str, tuple[str, Port]] = {}
        # Within a Scan its inputs have names of their own.
        self._outside: Callable[[str], str] = (lambda n: n) if together else (lambda n: f"~in|{n}")

    def build(self) -> dict[str, str]:
        """Outer names of outputs → the values that they are."""
        made: dict[str, str] = {}
        for stage in self.stages:
            made |= self._stage(stage)
        if self.names.started:
            flag = self._outside(self.names.started)
            opposite = self.builder.node("Not", [flag])
            made[f"next_{self.names.started}"] = self.builder.node("Or", [flag, opposite])
        if self.together:
            for name, value in made.items():
                self.builder.node("Identity", [value], name)
        return made

    def _stage(self, stage: Prepared) -> dict[str, str]:
        graph = GraphProto()
        graph.CopyFrom(stage.model.graph)
        if stage.found.reshapes and self.together:
            with_free_reshapes(graph)
        inside = f"{stage.name}/"
        renamed(graph, lambda name: inside + name)
        made: dict[str, str] = {}
        for port, name in stage.frames.items():
            made |= self._frame(stage, port, name, inside + port)
        for port in stage.mapping.states:
            outer = self.names.states[stage.name, port]
            value = self._outside(outer)
            if port in stage.initial:
                value = self._begun(value, stage.initial[port])
            self._enter(value, stage.found.inputs[port], inside + port)
        for port in stage.mapping.constants:
            if (stage.name, port) in self.names.shared:
                self.builder.node("Identity", [self.names.shared[stage.name, port]], inside + port)
        self.builder.nodes.extend(graph.node)
        self.builder.initializers.extend(graph.initializer)
        for port, found in stage.found.outputs.items():
            value = self._leave(inside + port, found)
            self._links[f"{stage.name}.{port}"] = (value, found)
            if port in stage.answers:
                made[stage.answers[port]] = value
        for given, port in stage.mapping.states.items():
            value, _ = self._links[f"{stage.name}.{port}"]
            made[f"next_{self.names.states[stage.name, given]}"] = value
        return made

    def _frame(self, stage: Prepared, port: str, name: str, target: str) -> dict[str, str]:
        entered = stage.frame_port(port)
        if is_link(name, self.stages):
            if name not in self._links:
                raise ImportRefused(
                    f"{stage.name!r} reads {name!r}, which no graph before it makes"
                )
            value, source = self._links[name]
            if source.row_shape != entered.row_shape or source.dtype != entered.dtype:
                raise ImportRefused(
                    f"{name} is {source.dtype} {list(source.row_shape)}, and {stage.name}'s "
                    f"{port!r} {entered.dtype} {list(entered.row_shape)}"
                )
        else:
            value = self._outside(name)
        kept = stage.mapping.contexts.get(port, 0)
        if not kept:
            self._enter(value, entered, target)
            return {}
        context = stage.context_port(port)
        outer = self.names.contexts[stage.name, port]
        parts = [
            self._enter(self._outside(outer), context, ""),
            self._enter(value, entered, ""),
        ]
        last = len(entered.shape) - 1
        self.builder.node("Concat", parts, target, axis=last)
        size = context.shape[-1] + entered.shape[-1]
        places = self.builder.constant(np.arange(size - kept, size), np.int64)
        end = self.builder.node("Gather", [target, places], axis=last)
        return {f"next_{outer}": self._leave(end, context)}

    def _begun(self, value: str, initial: Array) -> str:
        """``value``, or in a new stream ``initial``."""
        flag = self._outside(self.names.started)
        if self.together:
            shape = self.builder.constant([-1, *(1 for _ in initial.shape)], np.int64)
            flag = self.builder.node("Reshape", [flag, shape])
        given = self.builder.constant(initial)
        return self.builder.choose(flag, value, given, str(initial.dtype))

    def _enter(self, value: str, port: Port, target: str) -> str:
        """A row, or rows, as the graph has them."""
        if not self.together:
            shape = self.builder.constant(port.shape, np.int64)
            return self.builder.node("Reshape", [value, shape], target)
        assert port.axis is not None, "rows run together along an axis of each tensor"
        if port.axis == 0:
            return self.builder.node("Identity", [value], target)
        order = [*range(1, port.axis + 1), 0, *range(port.axis + 1, len(port.shape))]
        return self.builder.node("Transpose", [value], target, perm=order)

    def _leave(self, value: str, port: Port) -> str:
        if not self.together:
            shape = self.builder.constant(port.row_shape, np.int64)
            return self.builder.node("Reshape", [value, shape])
        if not port.axis:
            return value
        rest = [axis for axis in range(len(port.shape)) if axis != port.axis]
        return self.builder.node("Transpose", [value], perm=[port.axis, *rest])


def _scan(
    inner: _Inner,
    frames: Mapping[str, Port],
    states: Sequence[StateTensor],
    answers: Mapping[str, Port],
    made: Mapping[str, str],
) -> NodeProto:
    """Rows one after the other; nothing of one reaches the next."""
    read = [
        *((name, port.dtype, port.row_shape) for name, port in frames.items()),
        *((state.name, state.dtype, state.shape) for state in states),
    ]
    written = [
        *((name, port.dtype, port.row_shape) for name, port in answers.items()),
        *((f"next_{state.name}", state.dtype, state.shape) for state in states),
    ]
    # A value may leave by two names, which a Scan's body may not.
    ends = [helper.make_node("Identity", [made[name]], [f"~out|{name}"]) for name, *_ in written]
    body = helper.make_graph(
        [*inner.nodes, *ends],
        "row",
        [value_info(f"~in|{name}", dtype, shape) for name, dtype, shape in read],
        [value_info(f"~out|{name}", dtype, shape) for name, dtype, shape in written],
    )
    lift_into(body, inner.initializers)
    return helper.make_node(
        "Scan",
        [name for name, *_ in read],
        [name for name, *_ in written],
        body=body,
        num_scan_inputs=len(read),
    )


def lift_into(body: GraphProto, initializers: list[TensorProto]) -> None:
    """Large constants of a Scan's body move out of it, to where the weights are; in place."""
    lift_constants(body)
    initializers.extend(body.initializer)
    del body.initializer[:]
