"""The gate: exported graphs against the PyTorch model, on sizes the tracer never saw."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.manifest import ADJUSTED, BATCH, TIME
from bundle.sampling import GRAPH_PARAMETERS
from export.graphs import RIGHT_TIME, Graph, GraphTensor
from export.quantised import QuantisedLinear
from export.sampler import draw_numpy
from export.value_draws import draw_errors

Arrays = dict[str, NDArray[Any]]

# Absolute and relative at once: |Δ| ≤ TOLERANCE + TOLERANCE · |x|, x being what PyTorch computes,
# and of a logit the largest of its row.
TOLERANCE = 1e-5
SIZES = ((1, 1), (1, 9), (2, 7), (7, 2), (5, 12))  # (batch, time)
ROUNDS = 4  # each carries the state of the one before

# Carried on from its own state, a graph drifts as any float32 does: after 48 steps of prose both
# PyTorch and the graph are 1.2e-5 away from the same model in float64, and farther from each
# other. So what is carried is held to float64: a graph may be so many times as far from it as
# PyTorch is, beside the tolerance. From one state, each call is held to the tolerance alone.
DRIFT = 2.0

# A state within rounding of a quantisation edge falls to either side of it, and then every gate
# of its row moves by up to one step of the scale times a weight: 1 row in 60 at most was seen to
# (0.2 % of prose's rows, 1.7 % of g2p's), moving logits by 0.007. All other rows of an int8 graph
# agree as tightly as fp32. Carried on, such rows would drift apart, so each call starts from
# PyTorch's state.
EDGE_TOLERANCE = 2e-2
_EDGE_SHARE = 0.1

# A draw whose uniform lies this near an edge between two tokens may fall to either side.
_MARGIN = 1e-4


# Outputs that depend on the draw, which is checked by itself.
_DRAWN = ("next_token", "log_probability", "next_value")


class ParityMissed(Exception):
    """An exported graph does not compute what the PyTorch model computes."""


def check_parity(
    graphs: Sequence[Graph], folder: Path, vocabulary_sizes: dict[str, int], seed: int = 0
) -> dict[str, float]:
    """The largest deviation of each graph's file in ``folder`` from its PyTorch module.

    graphs: over the PyTorch model itself, not the copy made for export.
    vocabulary_sizes: by the name of each whole-number input, ids below it are drawn; and
        how many ``labels`` a tagger has.

    An int8 graph's deviation is that of its rows without a state on a quantisation edge.

    Raises ParityMissed for a number that is farther from PyTorch's x than
    TOLERANCE + TOLERANCE · |x| (a logit: with the largest |x| of its row), a wrongly drawn token,
    or a carried state that drifts farther from float64 than DRIFT allows.
    """
    return {
        graph.name: _GraphCheck(graph, folder, vocabulary_sizes, seed).worst() for graph in graphs
    }


class _GraphCheck:
    def __init__(
        self, graph: Graph, folder: Path, vocabulary_sizes: dict[str, int], seed: int
    ) -> None:
        self.graph = graph
        self.vocabulary_sizes = vocabulary_sizes
        self.random = np.random.default_rng(seed)
        self.is_quantised = any(isinstance(m, QuantisedLinear) for m in graph.module.modules())
        self.rows = self.edge_rows = 0
        self.drifts = bool(graph.state) and not self.is_quantised
        self.exact = deepcopy(graph.module).double() if self.drifts else graph.module
        self.session = onnxruntime.InferenceSession(
            folder / f"{graph.name}.onnx", providers=["CPUExecutionProvider"]
        )

    def worst(self) -> float:
        worst = max(self._carried(batch, time) for batch, time in SIZES)
        if self.edge_rows > _EDGE_SHARE * self.rows:
            raise ParityMissed(
                f"{self.graph.name}: {self.edge_rows} of {self.rows} rows deviate as if on a "
                f"quantisation edge, allowed is {_EDGE_SHARE:.0%}; nothing was written"
            )
        return worst

    def _carried(self, batch: int, time: int) -> float:
        """The largest deviation of a call over ROUNDS, each from the state of the one before.

        What carries a state in float32 goes on from its own as well, beside float64.
        """
        sizes = {BATCH: batch, TIME: time, RIGHT_TIME: time + 1}
        state = {port.name: self._random_state(port, sizes) for port in self.graph.state}
        ours, exact, worst = state, state, 0.0
        for _ in range(ROUNDS):
            sizes[ADJUSTED] = int(self.random.integers(0, batch + 1))
            inputs = {port.name: self._random_input(port, sizes) for port in self.graph.inputs}
            expected = self._pytorch(self.graph.module, inputs, state)
            got = self._onnx(inputs, state)
            worst = max(worst, self._compare({**inputs, **state}, expected, got))
            if self.drifts:
                drifted = self._onnx(inputs, ours)
                truth = self._pytorch(self.exact, _doubled(inputs), _doubled(exact))
                self._check_drift(truth, expected, drifted)
                ours, exact = _next_state(ours, drifted), _next_state(exact, truth)
            state = _next_state(state, expected)
        return worst

    def _check_drift(self, truth: Arrays, pytorch: Arrays, drifted: Arrays) -> None:
        for name in truth:
            allowed = DRIFT * np.abs(pytorch[name] - truth[name]).max(initial=0.0)
            delta = np.abs(truth[name] - drifted[name])
            if not (delta <= _allowed(name, truth[name], TOLERANCE) + allowed).all():
                raise ParityMissed(
                    f"{self.graph.name}: carried on, {name} drifts {delta.max():.2e} from float64, "
                    f"PyTorch {allowed / DRIFT:.2e}; nothing was written"
                )

    def _compare(self, inputs: Arrays, expected: Arrays, got: Arrays) -> float:
        """The largest deviation of the rows without a state on a quantisation edge."""
        self._check_shapes(expected, got)
        edge = self._on_an_edge(expected, got)
        if "next_token" in got:
            self._check_draw(expected["logits"], inputs, got, ~edge)
        self._largest(_rows(expected, edge), _rows(got, edge), EDGE_TOLERANCE)
        expected, got = _rows(expected, ~edge), _rows(got, ~edge)
        if "next_value" in got:
            self._check_value(inputs, got)
        return self._largest(expected, got, TOLERANCE)

    def _largest(self, expected: Arrays, got: Arrays, tolerance: float) -> float:
        return max(self._deviation(n, expected[n], got[n], tolerance) for n in expected)

    def _on_an_edge(self, expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
        """(batch,) rows that only a state on a quantisation edge explains; none in fp32."""
        rows = len(next(iter(got.values())))
        edge = np.zeros(rows, np.bool_)
        if self.is_quantised:
            for name in expected:
                delta = np.abs(expected[name] - got[name])
                is_near = delta <= _allowed(name, expected[name], TOLERANCE)
                edge |= ~is_near.reshape(rows, -1).all(axis=1)
            self.rows, self.edge_rows = self.rows + rows, self.edge_rows + int(edge.sum())
        return edge

    def _pytorch(self, module: nn.Module, inputs: Arrays, state: Arrays) -> Arrays:
        arguments: list[Any] = [torch.from_numpy(array) for array in inputs.values()]
        if state:
            arguments.append(tuple(torch.from_numpy(array) for array in state.values()))
        with torch.no_grad():
            outputs = module(*arguments)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        names = [port.name for port in self.graph.outputs]
        found = dict(zip(names, (output.numpy() for output in outputs), strict=True))
        return {k: v for k, v in found.items() if k not in _DRAWN}

    def _onnx(self, inputs: Arrays, state: Arrays) -> Arrays:
        names = [port.name for port in self.graph.outputs]
        return dict(zip(names, self.session.run(names, {**inputs, **state}), strict=True))

    def _check_shapes(self, expected: Arrays, got: Arrays) -> None:
        for name in expected:
            if expected[name].shape != got[name].shape:
                raise ParityMissed(
                    f"{self.graph.name}: {name} is {got[name].shape}, "
                    f"PyTorch's {expected[name].shape}"
                )

    def _deviation(
        self, name: str, expected: NDArray[Any], got: NDArray[Any], tolerance: float
    ) -> float:
        delta, allowed = np.abs(expected - got), _allowed(name, expected, tolerance)
        if not (delta <= allowed).all():
            # NaN is nowhere near anything, so it is the worst there can be.
            worst = np.argmax(np.nan_to_num(delta / allowed, nan=np.inf))
            raise ParityMissed(
                f"{self.graph.name}: {name} deviates by {delta.flat[worst]:.2e} on shape "
                f"{got.shape} where {allowed.flat[worst]:.2e} is allowed ({tolerance:.0e} + "
                f"{tolerance:.0e} · |x|, x {_scale_of(name)}); nothing was written"
            )
        return float(delta.max(initial=0.0))

    def _check_draw(
        self, logits: NDArray[Any], inputs: Arrays, got: Arrays, chosen: NDArray[np.bool_]
    ) -> None:
        """chosen: (batch,) the rows to compare."""
        suppressed = self.graph.module.get_buffer("suppressed").numpy()
        twin = draw_numpy(logits, suppressed, inputs)
        clear = chosen & (twin.margin > _MARGIN)
        if (twin.token[clear] != got["next_token"][clear]).any():
            raise ParityMissed(
                f"{self.graph.name}: drew {got['next_token'][clear].tolist()}, "
                f"NumPy draws {twin.token[clear].tolist()} from the same uniforms"
            )
        self._deviation(
            "log_probability",
            twin.log_probability[clear],
            got["log_probability"][clear],
            TOLERANCE,
        )

    def _check_value(self, inputs: Arrays, got: Arrays) -> None:
        """The value lies where the distribution, in float64, has reached the uniform number."""
        config: Any = self.graph.module.get_submodule("model").config
        errors = draw_errors(
            config.distribution, got["parameters"], inputs["log_scale"], got["next_value"],
            inputs["uniform"],
        )  # fmt: skip
        if not (errors <= _MARGIN).all():
            raise ParityMissed(
                f"{self.graph.name}: drew {got['next_value'].tolist()} from the uniforms "
                f"{inputs['uniform'].tolist()}, which misses by {errors.max():.1e} in probability"
            )

    def _random_state(self, port: GraphTensor, sizes: dict[str, int]) -> NDArray[Any]:
        shape = _shape(port, sizes)
        if port.name == "memory_mask":
            inside = self.random.integers(1, shape[1] + 1, size=(shape[0], 1))
            return (np.arange(shape[1]) < inside).astype(np.float32)
        if port.name == "previous_label":
            return self.random.integers(0, self.vocabulary_sizes["labels"] + 1, shape)
        if port.name == "memory_tokens":
            return self.random.integers(0, self.vocabulary_sizes["token"], shape)
        return self.random.uniform(-1, 1, shape).astype(np.float32)

    def _random_input(self, port: GraphTensor, sizes: dict[str, int]) -> NDArray[Any]:
        shape = _shape(port, sizes)
        if port.name == "lengths":
            return self.random.integers(1, sizes[TIME] + 1, shape)
        if port.name == "right_lengths":
            return self.random.integers(1, sizes[RIGHT_TIME] + 1, shape)
        if port.name == "vector":
            values = self.random.lognormal(0, 2, shape).astype(np.float32)
            if port.signed:
                values = np.where(self.random.random(shape) < 0.5, -values, values)
            if port.unknown:
                values = np.where(self.random.random(shape) < 0.25, np.float32("nan"), values)
            return values
        if port.name in self.vocabulary_sizes:
            return self.random.integers(1, self.vocabulary_sizes[port.name], shape)
        if port.name in GRAPH_PARAMETERS:
            parameter = GRAPH_PARAMETERS[port.name]
            return self.random.choice(np.array(parameter.parity, parameter.dtype), shape)
        if port.name in ("uniform", "retries"):
            return self.random.random(shape, dtype=np.float32)
        if port.name in ("series", "features", "value", "observed"):
            return self.random.uniform(-1, 1, shape).astype(np.float32)
        if port.name in ("frames", "frame"):
            return self.random.normal(0, 1, shape).astype(np.float32)
        if port.name == "adjusted":
            return np.sort(self.random.permutation(sizes[BATCH])[: sizes[ADJUSTED]])
        if port.name == "seen":
            return self.random.random(shape) < 0.3
        assert port.name == "bias", port.name
        banned = self.random.random(shape) < 0.1
        return np.where(banned, -np.inf, self.random.normal(0, 1, shape)).astype(np.float32)


def _allowed(name: str, expected: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """How far from each number of ``expected`` a graph's may be, in the shape of ``expected``."""
    scale = np.abs(expected)
    if name == "logits":
        # A logit near zero may be the sum of large terms: its row is its scale. What is
        # promised, states and log-probabilities, is held to each number's own.
        scale = np.broadcast_to(scale.max(axis=1, keepdims=True), scale.shape)
    allowed: NDArray[Any] = tolerance + tolerance * scale
    return allowed


def _scale_of(name: str) -> str:
    return "the largest logit of its row" if name == "logits" else "what PyTorch computes"


def _doubled(arrays: Arrays) -> Arrays:
    return {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }


def _rows(arrays: Arrays, chosen: NDArray[np.bool_]) -> Arrays:
    return {name: rows[chosen] for name, rows in arrays.items()}


def _shape(port: GraphTensor, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in port.shape)


def _next_state(state: Arrays, outputs: Arrays) -> Arrays:
    return {name: outputs.get(f"next_{name}", array) for name, array in state.items()}
