"""Imports a model that gives the logits of the next token, as a generator.

The graph is rewritten and gated as a step graph is; the draw of the token is this project's own
nodes behind it, so every sampling parameter works; prompts and scores run it over time in a Scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, helper
from torch import Tensor, nn

from bundle.manifest import (
    BATCH,
    GENERATE,
    ROWS,
    SCHEMA_VERSION,
    STEP_OUTPUTS,
    TIME,
    GraphSpec,
    Manifest,
    StateTensor,
    TensorSpec,
    Weights,
)
from bundle.store import write_manifest, write_vocabularies
from bundle.tokenizer import Tokenizer
from export.foreign.errors import ImportRefused
from export.foreign.mapping import ModelMapping
from export.foreign.prepare import opened, prepared
from export.foreign.rewrite import Prepared, Rewritten, at_opset
from export.foreign.steps import Outcome, facts, gated_form, provenance
from export.foreign.surgery import Builder, opset_of, real_inputs, renamed, value_info
from export.foreign.trial import declared_dims, dtype_of, explore
from export.foreign.vocabularies import read_symbols, tokenizer_of
from export.foreign.weights import write_weights_of
from export.graphs import step_of
from export.onnx_files import write_graph
from export.opset import OPSET
from export.rows import write_rows_graph
from export.tasks.base import UNCHANGED
from training.models.cells import State

LIMITS = {"input_tokens": 4096, "output_tokens": 4096}

# The names of a foreign graph's two ends, as it is rewritten.
_TOKEN, _LOGITS = "token", "logits"
_GIVEN = "given_logits"
_LEAST_PROBABILITY = 1e-30

Array = NDArray[Any]


def import_generator(mapping: ModelMapping, folder: Path) -> Outcome:
    """Write the bundle's files into ``folder``. Raises ImportRefused."""
    if not mapping.tokens or not (mapping.logits or mapping.probabilities):
        raise ImportRefused("a generator needs --token and --logits (or --probabilities)")
    if mapping.vocabulary is None:
        raise ImportRefused("a generator needs --vocabulary, a file of its symbols by id")
    tokenizer = tokenizer_of(
        read_symbols(mapping.vocabulary), mapping.special, mapping.kind, bool(mapping.lowercase)
    )
    vocabulary = len(tokenizer.vocabulary)
    source, stage = _stage(mapping, vocabulary)
    form = gated_form([stage], folder, mapping.allow_inexact, vocabulary)
    rewritten = form.rewritten
    sampler = _sampler(tokenizer, folder)
    graphs = _Graphs(rewritten, bool(mapping.probabilities), vocabulary, sampler)
    models = {"step.onnx": graphs.step(), "score.onnx": graphs.over_time(is_score=True)}
    if rewritten.state:
        models["prime.onnx"] = graphs.over_time(is_score=False)
    (folder / "draw.onnx").unlink()
    weights = write_weights_of(models, folder)
    specs = {
        file.removesuffix(".onnx"): _spec(file, model) for file, model in sorted(models.items())
    }
    if rewritten.state:
        specs[ROWS] = write_rows_graph(rewritten.state, folder)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=mapping.name,
        version=mapping.version,
        task=GENERATE,
        description=mapping.description,
        model={},
        graphs=specs,
        weights=weights,
        state=rewritten.state,
        tokenizers=write_vocabularies(folder, {"input": tokenizer, "output": tokenizer}),
        vocabulary_file="vocabulary.json",
        labels=(),
        vector=(),
        sampling=dict(UNCHANGED),
        limits={**LIMITS, **mapping.limits},
        figures=(),
        precisions={},
        data=(),
        training={
            **provenance([source], [stage]),
            "batching": form.batching,
            "difference": form.verdict.difference,
            "reason": form.reason,
        },
        export=facts(opset_of(models["step.onnx"]), form.verdict.original),
        add_bos_token=mapping.add_bos_token or None,
    )
    write_manifest(folder, manifest)
    return Outcome(
        (
            f"{vocabulary} symbols, read as {tokenizer.kind}",
            f"state: {', '.join(f'{s.name} {s.dtype} {list(s.shape)}' for s in rewritten.state)}",
            *form.lines(),
        )
    )


def _stage(mapping: ModelMapping, vocabulary: int) -> tuple[Any, Prepared]:
    (graph,) = mapping.graphs
    logits = mapping.logits or mapping.probabilities
    if graph.contexts:
        raise ImportRefused("a generator's tokens have no context")
    if any(len(values) > 1 for values in graph.constants.values()):
        raise ImportRefused("a constant of a generator has one value")
    named = replace(graph, inputs={mapping.tokens: _TOKEN}, outputs={logits: _LOGITS})
    source, model = opened(named)
    ports = {port.name: port for port in real_inputs(model.graph)}
    token = ports[mapping.tokens]
    if dtype_of(token) not in ("int64", "int32"):
        raise ImportRefused(f"{mapping.tokens!r} is {dtype_of(token)}: ids are whole numbers")
    shape = tuple(1 for _ in declared_dims(token))
    named = replace(named, shapes={mapping.tokens: shape, **graph.shapes})
    model = at_opset(model, max(OPSET, opset_of(model)), graph.file.name)
    found = explore(model, named, ids=vocabulary)
    stage = prepared(named, model, found)
    size = int(np.prod(found.outputs[logits].shape))
    if size != vocabulary or found.outputs[logits].shape[-1] != vocabulary:
        raise ImportRefused(
            f"{logits!r} is {list(found.outputs[logits].shape)} for a token, and the vocabulary "
            f"has {vocabulary} symbols"
        )
    if int(np.prod(found.inputs[mapping.tokens].shape)) != 1:
        raise ImportRefused(f"{mapping.tokens!r} does not take a token at a time")
    return source, stage


class _Given(nn.Module):
    """Stands for a model whose logits are there already: the draw alone is left of its step."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        return state[0].clone(), state


def _sampler(tokenizer: Tokenizer, folder: Path) -> ModelProto:
    """A step graph over logits that it is given."""
    vocabulary = tokenizer.vocabulary
    given = StateTensor(_GIVEN, "float32", (len(vocabulary),), carried=False)
    graph = step_of(_Given(), (given,), len(vocabulary), vocabulary.never_sampled_ids, name="draw")
    (folder / "none.bin").write_bytes(b"")
    write_graph(graph, Weights("none.bin", {}), folder)
    (folder / "none.bin").unlink()
    return onnx.load_model(str(folder / "draw.onnx"))


class _Graphs:
    """The graphs of a generator, around one rewritten graph of a token."""

    def __init__(
        self, cell: Rewritten, is_probability: bool, vocabulary: int, sampler: ModelProto
    ) -> None:
        self.cell = cell
        self.is_probability = is_probability
        self.vocabulary = vocabulary
        version = max(opset_of(cell.model), opset_of(sampler))
        self.sampler = at_opset(sampler, version, "the draw")
        self.token = next(port for port in cell.inputs if port.name == _TOKEN)
        self.logits = next(port for port in cell.outputs if port.name == _LOGITS)

    def step(self) -> ModelProto:
        """A token drawn after the one that is given."""
        builder = Builder()
        logits = self._cell(builder, _TOKEN, lambda name: name, lambda name: name)
        draw = self._copy(self.sampler.graph, "draw/")
        inputs = [port for port in self.sampler.graph.input if port.name != _GIVEN]
        builder.node("Identity", [logits], f"draw/{_GIVEN}")
        for port in inputs:
            builder.node("Identity", [port.name], f"draw/{port.name}")
        builder.nodes.extend(draw.node)
        builder.initializers.extend(draw.initializer)
        drawn = []
        for port in self.sampler.graph.output[: len(STEP_OUTPUTS)]:
            value = logits if port.name == _LOGITS else f"draw/{port.name}"
            builder.node("Identity", [value], port.name)
            drawn.append(port)
        states = [value_info(s.name, s.dtype, (BATCH, *s.shape)) for s in self.cell.state]
        after = [value_info(f"next_{s.name}", s.dtype, (BATCH, *s.shape)) for s in self.cell.state]
        return self._model("step", builder, [*inputs, *states], [*drawn, *after])

    def over_time(self, is_score: bool) -> ModelProto:
        """``score``, or ``prime``: the cell over the tokens of each row, its state held where a row
        has ended."""
        outer, inner = Builder("~time"), Builder("~step")
        turned = [outer.node("Transpose", ["tokens"], perm=[1, 0])]
        if is_score:
            turned.append(outer.node("Transpose", ["targets"], perm=[1, 0]))
        counts = inner.node("Less", ["~at", "lengths"])
        logits = self._cell(
            inner, "~token", lambda name: f"~before|{name}", lambda name: f"~made|{name}"
        )
        carried = []
        for state in self.cell.state:
            shape = inner.constant([-1, *(1 for _ in state.shape)], np.int64)
            flag = inner.node("Reshape", [counts, shape])
            made, before = f"~made|{state.name}", f"~before|{state.name}"
            inner.choose(flag, made, before, state.dtype, f"~after|{state.name}")
            carried.append(value_info(f"~after|{state.name}", state.dtype, (BATCH, *state.shape)))
        inner.node("Add", ["~at", inner.constant(1, np.int64)], "~next")
        ends = [value_info("~next", "int64", ()), *carried]
        if is_score:
            logs = inner.node("LogSoftmax", [logits], axis=-1)
            column = inner.node("Reshape", ["~target", inner.constant([-1, 1], np.int64)])
            chosen = inner.node("GatherElements", [logs, column], axis=1)
            inner.node("Reshape", [chosen, inner.constant([-1], np.int64)], "~scored")
            ends.append(value_info("~scored", "float32", (BATCH,)))
        begins = [
            value_info("~at", "int64", ()),
            *(value_info(f"~before|{s.name}", s.dtype, (BATCH, *s.shape)) for s in self.cell.state),
            value_info("~token", "int64", (BATCH,)),
            *([value_info("~target", "int64", (BATCH,))] if is_score else []),
        ]
        body = helper.make_graph(inner.nodes, "step", begins, ends)
        zero = outer.constant(0, np.int64)
        names = [state.name for state in self.cell.state]
        written = ["~end", *(f"next_{name}" for name in names)]
        written += ["~scores"] if is_score else []
        outer.nodes.append(
            helper.make_node(
                "Scan", [zero, *names, *turned], written, body=body, num_scan_inputs=len(turned)
            )
        )
        outer.initializers.extend(inner.initializers)
        tokens = [value_info("tokens", "int64", (BATCH, TIME))]
        scores = []
        if is_score:
            outer.node("Transpose", ["~scores"], "log_probabilities", perm=[1, 0])
            tokens.append(value_info("targets", "int64", (BATCH, TIME)))
            scores.append(value_info("log_probabilities", "float32", (BATCH, TIME)))
        states = [value_info(s.name, s.dtype, (BATCH, *s.shape)) for s in self.cell.state]
        after = [value_info(f"next_{s.name}", s.dtype, (BATCH, *s.shape)) for s in self.cell.state]
        lengths = value_info("lengths", "int64", (BATCH,))
        name = "score" if is_score else "prime"
        return self._model(name, outer, [*tokens, lengths, *states], [*scores, *after])

    def _cell(
        self,
        builder: Builder,
        token: str,
        before: Callable[[str], str],
        made: Callable[[str], str],
    ) -> str:
        """The nodes of a token's step; its logits (batch, vocabulary) float32.

        before, made: names of a state as it is read, and of it as it is written, without ``next_``.
        """
        graph = self._copy(self.cell.model.graph, "cell/")
        shape = builder.constant([-1, *self.token.shape[1:]], np.int64)
        given = builder.node("Reshape", [token, shape])
        builder.cast(given, self.token.dtype, f"cell/{_TOKEN}")
        for state in self.cell.state:
            builder.node("Identity", [before(state.name)], f"cell/{state.name}")
        builder.nodes.extend(graph.node)
        builder.initializers.extend(graph.initializer)
        for state in self.cell.state:
            outside = made(state.name)
            target = f"next_{state.name}" if outside == state.name else outside
            builder.node("Identity", [f"cell/next_{state.name}"], target)
        wide = builder.cast(f"cell/{_LOGITS}", "float32")
        flat = builder.constant([-1, self.vocabulary], np.int64)
        logits = builder.node("Reshape", [wide, flat])
        if self.is_probability:
            least = builder.constant(_LEAST_PROBABILITY, np.float32)
            logits = builder.node("Log", [builder.node("Max", [logits, least])])
        return logits

    def _copy(self, graph: GraphProto, prefix: str) -> GraphProto:
        copy = GraphProto()
        copy.CopyFrom(graph)
        renamed(copy, lambda name: prefix + name)
        return copy

    def _model(
        self, name: str, builder: Builder, inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> ModelProto:
        imports = {o.domain: o for o in (*self.cell.model.opset_import, *self.sampler.opset_import)}
        version = max(opset_of(self.cell.model), opset_of(self.sampler))
        imports[""] = helper.make_opsetid("", version)
        graph = helper.make_graph(
            builder.nodes, name, list(inputs), list(outputs), builder.initializers
        )
        versions = (self.cell.model.ir_version, self.sampler.ir_version)
        model = helper.make_model(
            graph, opset_imports=list(imports.values()), ir_version=max(versions)
        )
        if name == "step":
            model.functions.extend(self.sampler.functions)
        return model


def _spec(file: str, model: ModelProto) -> GraphSpec:
    return GraphSpec(
        file,
        tuple(_port(value) for value in model.graph.input),
        tuple(_port(value) for value in model.graph.output),
    )


def _port(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_param if d.HasField("dim_param") else d.dim_value for d in kind.shape.dim)
    return TensorSpec(value.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)
