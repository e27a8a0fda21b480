"""The gate of foreign graphs: what is served against plain onnxruntime on the original files.

Streams begin and end at different steps, so batches of every size and order meet carried states
that are not zero. Each row is compared with the same row alone, bit for bit, and each stream with
the original graphs, stepped the way their own callers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.foreign.errors import ImportRefused
from export.foreign.rewrite import Prepared, Rewritten, is_link, names_of
from export.foreign.surgery import open_model, real_inputs
from export.foreign.trial import CLOSE, Port, constant_of, largest, random_of, worst_of

Array = NDArray[Any]
Arrays = dict[str, Array]

STREAMS = 16
STEPS = 10
# Streams begin at steps 0 to 3 and last 4 to 9.
_LATEST, _SHORTEST = 4, 4

# Of the largest number of a tensor: what the rewritten graph may differ from the original by, for
# one row. It is another graph to onnxruntime's optimiser, and equal in all that was tried.
TOLERANCE = 1e-4


@dataclass
class Verdict:
    """rows: largest |a row among others - the row alone| of each output, and relative to the
    largest number of it; NaN where one of the two was. original: the same against the original,
    stepped by itself.
    """

    rows: dict[str, float] = field(default_factory=dict)
    relative: dict[str, float] = field(default_factory=dict)
    original: dict[str, float] = field(default_factory=dict)
    relative_original: dict[str, float] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        return not any(self.rows.values())

    @property
    def is_close(self) -> bool:
        return worst_of(*self.relative.values()) <= CLOSE

    @property
    def is_the_original(self) -> bool:
        return worst_of(*self.relative_original.values()) <= TOLERANCE

    @property
    def difference(self) -> float:
        return worst_of(*self.rows.values())

    def worst(self, figures: Mapping[str, float]) -> tuple[str, float]:
        """The output that is furthest off, one that is NaN before all others, and by how much."""
        return max(figures.items(), key=lambda item: (math.isnan(item[1]), item[1]))

    def add(self, other: Verdict) -> None:
        """Take what is worse in ``other``."""
        for figures, more in (
            (self.rows, other.rows),
            (self.relative, other.relative),
            (self.original, other.original),
            (self.relative_original, other.relative_original),
        ):
            for name, value in more.items():
                figures[name] = worst_of(figures.get(name, 0.0), value)


class Original:
    """The original files, run as their own callers run them: one row, contexts kept, constants
    given, states passed on."""

    def __init__(self, stages: Sequence[Prepared], paths: Sequence[Path]) -> None:
        self.stages = stages
        self.sessions = [open_model(str(path)) for path in paths]
        self.ports = [_ports(path) for path in paths]

    def first_state(self) -> dict[tuple[str, str], Array]:
        state: dict[tuple[str, str], Array] = {}
        for stage in self.stages:
            for name in stage.mapping.states:
                port = stage.found.inputs[name]
                zeros = np.zeros(port.shape, port.dtype)
                given = stage.initial.get(name)
                state[stage.name, name] = (
                    zeros if given is None else given.reshape(port.shape).astype(port.dtype)
                )
            for name in stage.mapping.contexts:
                port = stage.context_port(name)
                state[stage.name, f"{name}:context"] = np.zeros(port.shape, port.dtype)
        return state

    def step(
        self,
        frames: Mapping[str, Array],
        state: Mapping[tuple[str, str], Array],
        chosen: Mapping[tuple[str, str], float],
    ) -> tuple[Arrays, dict[tuple[str, str], Array]]:
        """frames: of one row. chosen: values of constants by graph and input, not the first one."""
        answers: Arrays = {}
        after: dict[tuple[str, str], Array] = {}
        links: Arrays = {}
        for stage, session, ports in zip(self.stages, self.sessions, self.ports, strict=True):
            feed: Arrays = {}
            for name, outer in stage.frames.items():
                port = stage.frame_port(name)
                row = links[outer] if is_link(outer, self.stages) else frames[outer]
                row = row.reshape(port.shape)
                if name in stage.mapping.contexts:
                    kept = stage.mapping.contexts[name]
                    row = np.concatenate((state[stage.name, f"{name}:context"], row), axis=-1)
                    after[stage.name, f"{name}:context"] = row[..., row.shape[-1] - kept :]
                feed[name] = row
            for name in stage.mapping.states:
                feed[name] = state[stage.name, name]
            for name, values in stage.mapping.constants.items():
                value = chosen.get((stage.name, name), values[0])
                feed[name] = constant_of(ports[name], value)
            outputs = [port.name for port in session.get_outputs()]
            found = dict(zip(outputs, session.run(outputs, feed), strict=True))
            for name, port in stage.found.outputs.items():
                links[f"{stage.name}.{name}"] = found[name].reshape(port.row_shape)
                if name in stage.answers:
                    answers[stage.answers[name]] = links[f"{stage.name}.{name}"]
            for name, output in stage.mapping.states.items():
                after[stage.name, name] = found[output]
        return answers, after


def _ports(path: Path) -> dict[str, Any]:
    model = onnx.load_model(str(path), load_external_data=False)
    return {port.name: port for port in real_inputs(model.graph)}


def check(
    session: onnxruntime.InferenceSession,
    rewritten: Rewritten,
    original: Original,
    chosen: Mapping[tuple[str, str], float],
    ids: int = 2,
    seed: int = 0,
) -> Verdict:
    """session: of the rewritten graph, from its file. chosen: as Original.step has it. ids: whole
    numbers below it are fed.

    Raises ImportRefused where ordinary frames give NaN, or it does not run.
    """
    return _Check(session, rewritten, original, chosen, ids, seed).verdict()


class _Check:
    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        rewritten: Rewritten,
        original: Original,
        chosen: Mapping[tuple[str, str], float],
        ids: int,
        seed: int,
    ) -> None:
        self.ids = ids
        names = names_of(original.stages).shared
        self.shared = {names[place]: value for place, value in chosen.items()}
        self.session = session
        self.rewritten = rewritten
        self.original = original
        self.chosen = chosen
        self.random = np.random.default_rng(seed)
        self.outputs = [spec.name for spec in rewritten.outputs]
        self.specs = {spec.name: spec for spec in rewritten.inputs}
        self.found = Verdict()
        self.scale: dict[str, float] = {}
        self.delta: dict[str, float] = {}

    def verdict(self) -> Verdict:
        states = [self._zeros() for _ in range(STREAMS)]
        theirs = [self.original.first_state() for _ in range(STREAMS)]
        begins = [stream % _LATEST for stream in range(STREAMS)]
        lasts = [_SHORTEST + stream % (STEPS - _SHORTEST) for stream in range(STREAMS)]
        for step in range(STEPS):
            running = [s for s in range(STREAMS) if begins[s] <= step < begins[s] + lasts[s]]
            if step % 2:
                running.reverse()
            # All of them, and a part, so that every size of batch is met.
            for part in (running[: step + 1], running[step + 1 :]):
                if part:
                    self._step(part, states, theirs)
        self._relate()
        return self.found

    def _step(
        self,
        running: Sequence[int],
        states: list[Arrays],
        theirs: list[dict[tuple[str, str], Array]],
    ) -> None:
        frames = [self._frames() for _ in running]
        several = self._run(frames, [states[stream] for stream in running])
        for row, stream in enumerate(running):
            alone = self._run([frames[row]], [states[stream]])
            answers, theirs[stream] = self.original.step(frames[row], theirs[stream], self.chosen)
            for name in self.outputs:
                one, among = alone[name][0], several[name][row]
                self._note(self.found.rows, name, one, among)
                if name in answers:
                    self._note(self.found.original, name, answers[name], one)
            states[stream] = {
                state.name: alone[f"next_{state.name}"][0] for state in self.rewritten.state
            }

    def _note(self, figures: dict[str, float], name: str, one: Array, other: Array) -> None:
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            raise ImportRefused(
                f"{name!r} is NaN or infinite after ordinary frames (around 0, deviation 0.3); a "
                "stream of such a model would be of no use"
            )
        figures[name] = worst_of(figures.get(name, 0.0), largest(one, other))
        wide = np.abs(one.astype(np.float64)).max(initial=0.0)
        self.scale[name] = max(self.scale.get(name, 0.0), float(wide))

    def _relate(self) -> None:
        for figures, relative in (
            (self.found.rows, self.found.relative),
            (self.found.original, self.found.relative_original),
        ):
            for name, value in figures.items():
                relative[name] = value / self.scale[name] if self.scale[name] else value

    def _zeros(self) -> Arrays:
        return {s.name: np.zeros(s.shape, s.dtype) for s in self.rewritten.state}

    def _frames(self) -> Arrays:
        found = {}
        for name in self.rewritten.frames:
            spec = self.specs[name]
            shape = tuple(size for size in spec.shape[1:] if isinstance(size, int))
            found[name] = random_of(Port(name, spec.dtype, shape), shape, self.random, self.ids)
        return found

    def _run(self, frames: Sequence[Arrays], states: Sequence[Arrays]) -> Arrays:
        feed = {name: np.stack([row[name] for row in frames]) for name in self.rewritten.frames}
        feed |= {
            state.name: np.stack([row[state.name] for row in states])
            for state in self.rewritten.state
        }
        for shared in self.rewritten.shared:
            spec = self.specs[shared.name]
            value = self.shared.get(shared.name, shared.choices[0])
            shape = [size for size in spec.shape if isinstance(size, int)]
            feed[shared.name] = np.full(shape, value, spec.dtype)
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
