"""The probe at load: whether rows are independent of their batch, and the fingerprint.

Kernels differ between CPUs, onnxruntime builds and providers; what is promised to callers is
what was found on this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bundle.manifest import ADJUSTED_INPUTS
from bundle.sampling import GRAPH_PARAMETERS
from service.runtime.sessions import NUMPY_TYPES

Feed = dict[str, NDArray[Any]]


class OutputNotFinite(Exception):
    """A graph computes NaN or infinity from ordinary inputs; the message names its output."""


# Batches that rows are compared in: beside the single row's kernel, each way of blocking.
_BATCHES = (2, 5, 16)
_TIME = 3
# Along time, with the free axis second.
_SEQUENCES = ("tokens", "targets", "series", "features")
_LOGARITHMS = ("log_probability", "log_probabilities")
# How the first rows of a step that draws are drawn, beside what the table says of the probe: each
# goes another way through the sampler. One of them has a bias and penalties.
_WAYS: tuple[Mapping[str, float], ...] = (
    {},
    {"typical_p": 1.0, "top_p": 0.9, "temperature": 0.8},
    {"typical_p": 1.0, "repetition_penalty": 1.3},
    {"typical_p": 1.0, "top_k": 3, "min_p": 0.01},
    {"typical_p": 1.0, "temperature": 0.0},
)
_ADJUSTED_ROW = 2


@dataclass(frozen=True)
class ProbeResult:
    """fingerprint: sha256 of what every graph computed for rows alone."""

    batch_invariant: bool
    fingerprint: str


def probe(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    vocabulary: int,
) -> ProbeResult:
    """Run each graph on made-up rows, alone and several together, whole and cut in two.

    Raises OutputNotFinite: such a model would answer with NaN.

    vocabulary: ids below it are valid for every graph, as tokens and as labels.
    """
    hashed, invariant = hashlib.sha256(), True
    for name in sorted(sessions):
        feed = _feed(sessions[name], max(_BATCHES), vocabulary)
        alone = _alone(name, sessions[name], feed)
        for row in alone:
            for part in row:
                hashed.update(part.tobytes())
        invariant &= _together_is_alone(name, sessions[name], feed, alone)
        invariant &= _cut_changes_nothing(sessions[name], vocabulary)
    return ProbeResult(invariant, hashed.hexdigest())


def computes_alike(
    parts: Sequence[onnxruntime.InferenceSession],
    whole: onnxruntime.InferenceSession,
    vocabulary: int,
) -> bool:
    """Whether the parts of a graph give the bits that ``whole`` gives for the same outputs. A part
    may read what those before it gave.

    vocabulary: as probe() has it.
    """
    feed = _feed(whole, max(_BATCHES), vocabulary)
    names = [port.name for part in parts for port in part.get_outputs()]
    for size in (1, *_BATCHES):
        rows = _rows(feed, 0, size)
        theirs = dict(zip(names, whole.run(names, rows), strict=True))
        ours: Feed = {}
        for part in parts:
            known = {**rows, **ours}
            made = [port.name for port in part.get_outputs()]
            read = {port.name: known[port.name] for port in part.get_inputs()}
            ours |= zip(made, part.run(made, read), strict=True)
        if any(ours[name].tobytes() != theirs[name].tobytes() for name in names):
            return False
    return True


def _alone(
    graph: str, session: onnxruntime.InferenceSession, feed: Feed
) -> list[Sequence[NDArray[Any]]]:
    """What the first row gives alone; of a step that draws, each of the first rows."""
    rows = len(_WAYS) if ADJUSTED_INPUTS[0] in feed else 1
    found = [_run(graph, session, _rows(feed, row, row + 1)) for row in range(rows)]
    return [[output[0] for output in outputs] for outputs in found]


def _together_is_alone(
    graph: str,
    session: onnxruntime.InferenceSession,
    feed: Feed,
    alone: Sequence[Sequence[NDArray[Any]]],
) -> bool:
    for size in (1, *_BATCHES):
        outputs = _run(graph, session, _rows(feed, 0, size))
        for row, expected in enumerate(alone[:size]):
            for one, output in zip(expected, outputs, strict=True):
                if one.tobytes() != output[row].tobytes():
                    return False
    return True


def _run(graph: str, session: onnxruntime.InferenceSession, feed: Feed) -> list[NDArray[Any]]:
    """Raises OutputNotFinite."""
    outputs: list[NDArray[Any]] = session.run(None, feed)
    for port, output in zip(session.get_outputs(), outputs, strict=True):
        if not _is_finite(port.name, output):
            raise OutputNotFinite(f"graph {graph!r} computes NaN or infinity as {port.name!r}")
    return outputs


def _rows(feed: Feed, start: int, end: int) -> Feed:
    """The rows from ``start`` on, those below ``end``."""
    part = {name: array[start:end] for name, array in feed.items()}
    if ADJUSTED_INPUTS[0] in feed:
        count = int(start <= _ADJUSTED_ROW < end)
        part |= {name: feed[name][:count] for name in ADJUSTED_INPUTS}
        part[ADJUSTED_INPUTS[0]] = part[ADJUSTED_INPUTS[0]] - start
    return part


def _is_finite(name: str, output: NDArray[Any]) -> bool:
    """-inf is the logarithm of what has no probability at all; nothing else may be infinite."""
    if name in _LOGARITHMS:
        return bool((output < np.inf).all())
    return bool(np.isfinite(output).all())


def _cut_changes_nothing(session: onnxruntime.InferenceSession, vocabulary: int) -> bool:
    """Whether a sequence read in two pieces, the state carried, ends in the same state.

    True for a graph that carries none, or reads one token.
    """
    feed = _feed(session, 1, vocabulary)
    names = [port.name for port in session.get_outputs() if port.name.startswith("next_")]
    carried = [name for name in names if name.removeprefix("next_") in feed]
    if not carried or "lengths" not in feed:
        return True
    whole = session.run(carried, feed)
    state: Feed = {}
    for piece in (slice(0, 1), slice(1, _TIME)):
        part = {k: v[:, piece] if k in _SEQUENCES else v for k, v in feed.items()} | state
        part["lengths"] = np.array([piece.stop - piece.start], np.int64)
        after = session.run(carried, part)
        state = {n.removeprefix("next_"): a for n, a in zip(carried, after, strict=True)}
    return all(a.tobytes() == b.tobytes() for a, b in zip(whole, state.values(), strict=True))


def _feed(session: onnxruntime.InferenceSession, rows: int, vocabulary: int) -> Feed:
    random = np.random.Generator(np.random.Philox(key=7))
    return {port.name: _input(port, rows, vocabulary, random) for port in session.get_inputs()}


def _input(
    port: onnxruntime.NodeArg, rows: int, vocabulary: int, random: np.random.Generator
) -> NDArray[Any]:
    shape = [rows, *(_TIME if isinstance(axis, str) else axis for axis in port.shape[1:])]
    dtype = NUMPY_TYPES[port.type]
    if port.name in ADJUSTED_INPUTS:
        return _adjusted(port.name, shape[1:], random)
    if port.name.endswith("lengths"):
        return np.full(shape, _TIME, dtype)
    if port.name in GRAPH_PARAMETERS:
        parameter = GRAPH_PARAMETERS[port.name]
        column = np.full(shape, parameter.probe, dtype)
        ways = [way.get(parameter.name, parameter.probe) for way in _WAYS]
        column[: len(_WAYS)] = ways[:rows]
        return column
    if dtype is np.int64:
        return random.integers(1, vocabulary, shape)
    if port.name == "memory_mask":
        return np.ones(shape, dtype)
    least = -1 if len(shape) > 1 and port.name not in ("vector", "retries") else 0
    return random.uniform(least, 1, shape).astype(dtype)


def _adjusted(name: str, shape: Sequence[int], random: np.random.Generator) -> NDArray[Any]:
    """Of one row, _ADJUSTED_ROW."""
    if name == "bias":
        return random.normal(0, 1, (1, *shape)).astype(np.float32)
    return random.random((1, *shape)) < 0.3 if name == "seen" else np.array([_ADJUSTED_ROW])
