"""The probe at load: whether rows are independent of their batch, and the fingerprint.

Kernels differ between CPUs, onnxruntime builds and providers; what is promised to callers is
what was found on this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class ProbeResult:
    """fingerprint: sha256 of what every graph computed for one row."""

    batch_invariant: bool
    fingerprint: str


def probe(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    vocabulary: int,
    wide: Mapping[str, onnxruntime.InferenceSession] | None = None,
) -> ProbeResult:
    """Run each graph on made-up rows, one alone and several together, whole and cut in two.

    Raises OutputNotFinite: such a model would answer with NaN.

    vocabulary: ids below it are valid for every graph, as tokens and as labels.
    wide: sessions on more threads, which must compute what their namesakes do.
    """
    wide = wide or {}
    hashed, invariant = hashlib.sha256(), True
    for name in sorted(sessions):
        outputs = list(_outputs(name, sessions[name], vocabulary))
        alone, *batched = outputs
        batched += _outputs(name, wide[name], vocabulary) if name in wide else []
        for part in alone:
            hashed.update(part.tobytes())
        invariant &= all(
            a.tobytes() == b.tobytes()
            for together in batched
            for a, b in zip(alone, together, strict=True)
        )
        invariant &= _cut_changes_nothing(sessions[name], vocabulary)
    return ProbeResult(invariant, hashed.hexdigest())


def _outputs(
    graph: str, session: onnxruntime.InferenceSession, vocabulary: int
) -> Iterator[Sequence[NDArray[Any]]]:
    """What row 0 gives alone, then in each batch."""
    feed = _feed(session, max(_BATCHES), vocabulary)
    names = [port.name for port in session.get_outputs()]
    for rows in (1, *_BATCHES):
        outputs = session.run(None, {name: array[:rows] for name, array in feed.items()})
        for name, output in zip(names, outputs, strict=True):
            if not _is_finite(name, output):
                raise OutputNotFinite(f"graph {graph!r} computes NaN or infinity as {name!r}")
        yield [output[0] for output in outputs]


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
    if port.name.endswith("lengths"):
        return np.full(shape, _TIME, dtype)
    if port.name in GRAPH_PARAMETERS:
        return np.full(shape, GRAPH_PARAMETERS[port.name].probe, dtype)
    if dtype is np.int64:
        return random.integers(1, vocabulary, shape)
    if dtype is np.bool_ or port.name == "bias":
        return np.zeros(shape, dtype)
    if port.name == "memory_mask":
        return np.ones(shape, dtype)
    least = -1 if len(shape) > 1 and port.name != "vector" else 0
    return random.uniform(least, 1, shape).astype(dtype)
