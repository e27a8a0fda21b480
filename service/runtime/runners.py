"""Runs a model's graphs on arrays: padding, state, I/O binding. Knows nothing of requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bundle.manifest import ADJUSTED_INPUTS, StateTensor
from bundle.sampling import GRAPH_PARAMETERS
from bundle.vocabulary import PADDING_ID
from service.runtime.session_pair import FindSession, SessionPair, TimedPair
from service.runtime.sessions import NUMPY_TYPES
from service.runtime.width import Width
from service.step_buffers import StepBuffers

Array = NDArray[Any]
State = Mapping[str, Array]

# Rows of a step from which more threads can be faster than one; and prompts, of those that go on.
WIDE_ROWS = 32
WIDE_PROMPTS = 8
# Of runs of a size, those that look whether it would be faster on the other number of threads:
# neither is part of the slowest hundredth of the gaps between two tokens.
_LOOK_EVERY_STEPS, _LOOK_EVERY_PROMPTS = 256, 128

# Tokens, padding counted, of one piece of a score: what a cancelled call may still cost, and
# what a score graph holds features and logits for.
_SCORE_PIECE = 4096

# Tokens of a prompt that one layer reads before the next one does.
_PIECE = 64

# Bindings that are kept: one of each size, which with rows that adjust their logits are many.
_MOST_STEPS = 8192

# Attention takes another kernel for a single query, which rounds otherwise: no piece is shorter.
_LEAST_SCORED = 2


class Sequenced(Protocol):
    @property
    def tokens(self) -> Sequence[int]: ...


class TwoSided(Sequenced, Protocol):
    """What stands before a blank and, from its end, what stands after it."""

    @property
    def right(self) -> Sequence[int]: ...


class Framed(Protocol):
    @property
    def frames(self) -> Array:
        """(time, channels) float32"""


class Scorable(Sequenced, Protocol):
    @property
    def targets(self) -> Sequence[int]: ...

    @property
    def source(self) -> Sequence[Any]: ...

    @property
    def state(self) -> State | None: ...

    @property
    def keeps_state(self) -> bool: ...


class PredictRunner:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, items: Sequence[Sequenced]) -> Iterator[list[list[float] | None]]:
        """The probabilities of each item's labels, in one piece; None where they are NaN."""
        feed = _padded([item.tokens for item in items])
        (rows,) = self.session.run(["probabilities"], feed)
        yield [None if row is None else row.tolist() for row in _finite(rows)]


class FramesRunner:
    """As PredictRunner, of sequences of frames."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, items: Sequence[Framed]) -> Iterator[list[list[float] | None]]:
        feed = _padded_frames([item.frames for item in items])
        (rows,) = self.session.run(["probabilities"], feed)
        yield [None if row is None else row.tolist() for row in _finite(rows)]


class TagRunner:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, items: Sequence[Sequenced]) -> Iterator[list[Array | None]]:
        """The probabilities (tokens, labels) of each item, in one piece; None if one is NaN."""
        feed = _padded([item.tokens for item in items])
        (rows,) = self.session.run(["probabilities"], feed)
        yield _finite([row[: len(item.tokens)] for row, item in zip(rows, items, strict=True)])


class FillRunner:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, items: Sequence[TwoSided]) -> Iterator[list[Array | None]]:
        """The probabilities (candidates,) for each item's blank, in one piece; None if one is
        NaN."""
        feed = _padded([item.tokens for item in items])
        right = _padded([item.right for item in items])
        feed |= {"right": right["tokens"], "right_lengths": right["lengths"]}
        (rows,) = self.session.run(["probabilities"], feed)
        yield _finite(rows)


class Prefiller:
    """Reads prompts or sources: many tokens at once, ragged rows padded to the longest.

    A graph that reads a vector gets each row's values instead.
    """

    def __init__(
        self, session: SessionPair | onnxruntime.InferenceSession, state: Sequence[StateTensor]
    ) -> None:
        self.sessions = session if isinstance(session, SessionPair) else SessionPair(session)
        self._graph = TimedPair(self.sessions, _LOOK_EVERY_PROMPTS)
        self.state = state
        ports = self.sessions.narrow
        self.outputs = [port.name for port in ports.get_outputs()]
        wanted = {port.name for port in ports.get_inputs()}
        self.reads_vector = "vector" in wanted
        self.carried = [tensor for tensor in state if tensor.name in wanted]

    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        """The state after each row of tokens, from its state or from zeros."""
        feed = {"vector": np.array(tokens, np.float32)} if self.reads_vector else _padded(tokens)
        feed |= _stacked(self.carried, states)
        longest = max(map(len, tokens))
        # A few prompts that go on are long, and stay on one thread: they are read for seconds, in
        # which others want a core, and a chunk would take once as long as it was cut for and once
        # twice that.
        may_be_wide = len(tokens) >= WIDE_PROMPTS or all(state is None for state in states)
        made = self._graph.run(len(tokens), longest, self.outputs, feed, may_be_wide)
        found = dict(zip(self.outputs, made, strict=True))
        after = {name.removeprefix("next_"): rows for name, rows in found.items()}
        # Copies: a view would keep the whole batch in memory for as long as one stream waits.
        return [{name: rows[i].copy() for name, rows in after.items()} for i in range(len(tokens))]


class SeriesPrefiller:
    """Reads series: of each step the value before it, whether there is one, and its features."""

    def __init__(
        self, session: SessionPair | onnxruntime.InferenceSession, state: Sequence[StateTensor]
    ) -> None:
        self.sessions = session if isinstance(session, SessionPair) else SessionPair(session)
        self._graph = TimedPair(self.sessions, _LOOK_EVERY_PROMPTS)
        self.state = state
        self.outputs = [port.name for port in self.sessions.narrow.get_outputs()]

    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        """The state after each row of steps, (time, 2 + features) each, from its state."""
        lengths = np.array([len(row) for row in tokens], np.int64)
        padded = np.zeros((len(tokens), int(lengths.max()), len(tokens[0][0])), np.float32)
        for row, steps in zip(padded, tokens, strict=True):
            row[: len(steps)] = steps
        feed = {
            "series": np.ascontiguousarray(padded[:, :, :2]),
            "features": np.ascontiguousarray(padded[:, :, 2:]),
            "lengths": lengths,
            **_stacked(self.state, states),
        }
        made = self._graph.run(len(tokens), int(lengths.max()), self.outputs, feed)
        found = dict(zip(self.outputs, made, strict=True))
        after = {name.removeprefix("next_"): rows for name, rows in found.items()}
        return [
            {**(state or {}), **{name: rows[i].copy() for name, rows in after.items()}}
            for i, state in enumerate(states)
        ]


class PromptReader(Protocol):
    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        """The state after each row of tokens, from its state or from the first one (None)."""


class UnreadPrompts:
    """For a model that carries no state: nothing of a prompt outlives it but its last token."""

    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        return [{} for _ in tokens]


class GenerateRunner:
    """Prefills, and steps a batch through I/O bindings that are made once for each size."""

    def __init__(
        self, prefiller: PromptReader, step: SessionPair | onnxruntime.InferenceSession
    ) -> None:
        self.prefiller = prefiller
        self.sessions = step if isinstance(step, SessionPair) else SessionPair(step)
        self.sides: tuple[StepBuffers, ...] = ()
        self._steps: dict[tuple[int, int, int, bool, bool], Callable[[], None]] = {}
        self._widths: dict[int, Width] = {}  # by powers of two of rows

    def attach(self, sides: tuple[StepBuffers, StepBuffers]) -> None:
        self.sides = sides
        self._steps.clear()

    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        return self.prefiller.prefill(tokens, states)

    def step(self, side: int, rows: int) -> None:
        width, is_wide = None, False
        if rows >= WIDE_ROWS and self.sessions.find_wide() is not None:
            width = self._widths.get(rows.bit_length())
            if width is None:
                width = self._widths[rows.bit_length()] = Width(_LOOK_EVERY_STEPS)
            is_wide = width.is_wide()
        use = self.sides[side].use
        size = (side, rows, use.adjusted, use.reports, is_wide)
        step = self._steps.get(size)
        if step is None:
            if len(self._steps) == _MOST_STEPS:
                self._steps.clear()
            session = self.sessions.of_width(is_wide)
            step = self._steps[size] = bound_step(session, self.sides[side], rows)
        if width is None:
            step()
            return
        started = time.perf_counter()
        step()
        width.ran(is_wide, (time.perf_counter() - started) / rows)


def bound_step(
    session: onnxruntime.InferenceSession, buffers: StepBuffers, rows: int
) -> Callable[[], None]:
    """A run of the first ``rows`` rows of these arrays, which are read and written in place, and
    of as much of the others as their use says now."""
    use = buffers.use
    binding = session.io_binding()
    written = {**buffers.outputs, **buffers.reports} if use.reports else buffers.outputs
    for arrays, count, bind in (
        (inputs_read(session, buffers.inputs), rows, binding.bind_input),
        (inputs_read(session, buffers.adjusted), use.adjusted, binding.bind_input),
        (written, rows, binding.bind_output),
    ):
        for name, array in arrays.items():
            part = array[:count]
            bind(name, "cpu", 0, part.dtype.type, part.shape, part.ctypes.data)
    return partial(session.run_with_iobinding, binding)


def inputs_read(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Those that the graph has: one of an older export lacks newer sampling parameters, and a part
    of a step all of them."""
    read = {port.name for port in session.get_inputs()}
    return {name: array for name, array in inputs.items() if name in read}


class SteppedPrefiller:
    """Reads prompts token by token through a step graph, many prompts side by side.

    For a step graph in int8: there is no sequence operator in int8, and its steps are faster
    than the fp32 one. Whatever it draws on the way is left.

    rows: prompts that are read together. state_path: of the step what makes its next state, with
    the same bits, as open_state_path() has it; a few prompts are read by that.
    """

    def __init__(
        self,
        step: SessionPair | onnxruntime.InferenceSession,
        state: Sequence[StateTensor],
        rows: int = 64,
        state_path: Sequence[onnxruntime.InferenceSession] = (),
    ) -> None:
        self.sessions = step if isinstance(step, SessionPair) else SessionPair(step)
        self.rows = rows
        carried = [tensor.name for tensor in state if tensor.carried]
        shapes = {port.name: port for port in self.sessions.narrow.get_inputs()}
        made = {
            name: np.zeros((rows, *port.shape[1:]), NUMPY_TYPES[port.type])
            for name, port in shapes.items()
            if name not in carried
        }
        self._adjusted = {name: made.pop(name) for name in ADJUSTED_INPUTS if name in made}
        self._controls = made
        for name, parameter in GRAPH_PARAMETERS.items():
            if name in shapes:
                self._controls[name][:] = parameter.neutral
        self._sets = tuple(
            {
                name: np.zeros((rows, *port.shape[1:]), NUMPY_TYPES[port.type])
                for name, port in shapes.items()
                if name in carried
            }
            for _ in range(2)
        )
        self._steps: dict[tuple[int, int, bool], Callable[[], None]] = {}
        self._layers = _Layers(state_path, state, rows) if state_path else None

    def prefill(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State | None]
    ) -> list[State]:
        """The state after each row of tokens, from its state or from zeros."""
        # Longest first: whoever is done leaves the end of the batch.
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        after: dict[int, State] = {}
        for start in range(0, len(order), self.rows):
            part = order[start : start + self.rows]
            found = self._read([tokens[i] for i in part], [states[i] for i in part])
            after.update(zip(part, found, strict=True))
        return [after[i] for i in range(len(tokens))]

    def _read(self, tokens: Sequence[Sequence[int]], states: Sequence[State | None]) -> list[State]:
        is_wide = len(tokens) >= WIDE_ROWS and self.sessions.find_wide() is not None
        if self._layers is not None and not is_wide:
            return self._layers.read(tokens, states)
        for row, state in enumerate(states):
            for name, rows in self._sets[0].items():
                rows[row] = 0 if state is None else state[name]
        lengths = [len(row) for row in tokens]
        running = len(tokens)
        for place in range(lengths[0]):
            while lengths[running - 1] <= place:
                running -= 1
            self._controls["token"][:running] = [row[place] for row in tokens[:running]]
            self._step(place % 2, running, is_wide and running >= WIDE_ROWS)()
        # A row's last step wrote the set that the step after it would have read.
        return [
            {name: rows[row].copy() for name, rows in self._sets[length % 2].items()}
            for row, length in enumerate(lengths)
        ]

    def _step(self, side: int, rows: int, is_wide: bool) -> Callable[[], None]:
        step = self._steps.get((side, rows, is_wide))
        if step is None:
            written = {f"next_{name}": array for name, array in self._sets[1 - side].items()}
            read = {**self._controls, **self._sets[side]}
            buffers = StepBuffers(read, written, self._adjusted)
            session = self.sessions.of_width(is_wide)
            step = self._steps[side, rows, is_wide] = bound_step(session, buffers, rows)
        return step


class _Layer:
    """One part of a state path: two sets of its own state, which take turns, and what it reads."""

    def __init__(
        self, session: onnxruntime.InferenceSession, state: Sequence[StateTensor], rows: int
    ) -> None:
        made = {port.name.removeprefix("next_") for port in session.get_outputs()}
        own = [tensor for tensor in state if tensor.name in made]
        self.sets = tuple({t.name: np.zeros((rows, *t.shape), t.dtype) for t in own} for _ in "01")
        shapes = {f"next_{t.name}": (t.shape, t.dtype) for t in state}
        read = {port.name for port in session.get_inputs()}
        # What the layers before it made of the same token.
        self.given = {
            name: np.zeros((rows, *shape), dtype)
            for name, (shape, dtype) in shapes.items()
            if name in read
        }
        self.token = np.zeros(rows, np.int64)
        self._session = session
        self._steps: dict[tuple[int, int], Callable[[], None]] = {}

    def step(self, side: int, rows: int) -> None:
        step = self._steps.get((side, rows))
        if step is None:
            written = {f"next_{name}": array for name, array in self.sets[1 - side].items()}
            read = {"token": self.token, **self.given, **self.sets[side]}
            step = self._steps[side, rows] = bound_step(
                self._session, StepBuffers(read, written), rows
            )
        step()


class _Layers:
    """Reads prompts layer by layer: all of a piece by the first, then by the second, …

    What a token costs of a few prompts is to bring the weights to the processor. Those of one layer
    stay in its nearest caches from token to token, where those of all layers do not.
    """

    def __init__(
        self,
        sessions: Sequence[onnxruntime.InferenceSession],
        state: Sequence[StateTensor],
        rows: int,
    ) -> None:
        self._layers = [_Layer(session, state, rows) for session in sessions]
        self._tokens = np.zeros((_PIECE, rows), np.int64)
        wanted = {name for layer in self._layers for name in layer.given}
        # Of each layer what later ones read, for each token of a piece.
        self._made = [
            {
                f"next_{name}": np.zeros((_PIECE, *array.shape), array.dtype)
                for name, array in layer.sets[0].items()
                if f"next_{name}" in wanted
            }
            for layer in self._layers
        ]

    def read(self, tokens: Sequence[Sequence[int]], states: Sequence[State | None]) -> list[State]:
        """The state after each row of tokens, the longest first."""
        for layer in self._layers:
            for row, state in enumerate(states):
                for name, rows in layer.sets[0].items():
                    rows[row] = 0 if state is None else state[name]
        lengths = [len(row) for row in tokens]
        for start in range(0, lengths[0], _PIECE):
            self._read_piece(tokens, lengths, start)
        # A row's last step wrote the set that the step after it would have read.
        return [
            {
                name: rows[row].copy()
                for layer in self._layers
                for name, rows in layer.sets[length % 2].items()
            }
            for row, length in enumerate(lengths)
        ]

    def _read_piece(
        self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], start: int
    ) -> None:
        end = min(start + _PIECE, lengths[0])
        for row, ids in enumerate(tokens):
            piece = ids[start:end]
            self._tokens[: len(piece), row] = piece
        made: dict[str, Array] = {}
        for layer, kept in zip(self._layers, self._made, strict=True):
            running = len(tokens)
            for place in range(start, end):
                while lengths[running - 1] <= place:
                    running -= 1
                layer.token[:running] = self._tokens[place - start, :running]
                for name, rows in layer.given.items():
                    rows[:running] = made[name][place - start, :running]
                side = place % 2
                layer.step(side, running)
                for name, rows in kept.items():
                    after = layer.sets[1 - side][name.removeprefix("next_")]
                    rows[place - start, :running] = after[:running]
            made |= kept


def generate_runner(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    state: Sequence[StateTensor],
    wide: Mapping[str, FindSession] | None = None,
    state_path: Sequence[onnxruntime.InferenceSession] = (),
) -> GenerateRunner:
    """From the sessions of one model by role; without ``prime``, prompts go through ``step``,
    or nowhere where there is no state.

    wide: what finds sessions of the same graphs on more threads, for large batches. state_path: as
    SteppedPrefiller has it.
    """
    pairs = {role: SessionPair(session) for role, session in sessions.items()}
    pairs |= {role: SessionPair(sessions[role], find) for role, find in (wide or {}).items()}
    return GenerateRunner(_prefiller(pairs, state, state_path), pairs["step"])


def _prefiller(
    sessions: Mapping[str, SessionPair],
    state: Sequence[StateTensor],
    state_path: Sequence[onnxruntime.InferenceSession],
) -> PromptReader:
    if "prime" in sessions:
        reads = {port.name for port in sessions["prime"].narrow.get_inputs()}
        reader = SeriesPrefiller if "series" in reads else Prefiller
        return reader(sessions["prime"], state)
    if not state:
        return UnreadPrompts()
    return SteppedPrefiller(sessions["step"], state, state_path=state_path)


def prompt_reader(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    state: Sequence[StateTensor],
    state_path: Sequence[onnxruntime.InferenceSession] = (),
) -> PromptReader:
    """Of these sessions, with arrays of its own: for a thread beside the one that steps.

    state_path: as SteppedPrefiller has it.
    """
    by_role = {role: SessionPair(session) for role, session in sessions.items()}
    return _prefiller(by_role, state, state_path)


class ScoreRunner:
    """prefiller: reads the sources or vectors; None for a model that scores texts alone."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        state: Sequence[StateTensor],
        prefiller: PromptReader | None,
    ) -> None:
        self.session = session
        self.state = state
        self.prefiller = prefiller
        self.outputs = [port.name for port in session.get_outputs()]

    def run(self, items: Sequence[Scorable]) -> Iterator[list[list[float] | State | None] | None]:
        """The log-probability of each target, or the state after the tokens of an item that keeps
        it; yields None between chunks, then all of them, and None for an item of which one number
        is NaN. The log-probability of what cannot be is -inf.

        State is carried from chunk to chunk. Rows that have ended leave before the next one:
        a row of length 0 would lose its state.
        """
        scores: list[list[float]] = [[] for _ in items]
        states = self._first_states(items)
        running = [i for i, item in enumerate(items) if item.tokens]
        start = 0
        while running:
            end = start + max(1, _SCORE_PIECE // len(running))
            feed = _padded([items[i].tokens[start:end] for i in running], _LEAST_SCORED)
            targets = [items[i].targets[start:end] for i in running]
            feed["targets"] = _padded(targets, _LEAST_SCORED)["tokens"]
            feed |= _stacked(self.state, [states[i] for i in running])
            found = dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
            for row, i in enumerate(running):
                count = len(items[i].tokens[start:end])
                scores[i].extend(found["log_probabilities"][row, :count].tolist())
                states[i] = self._next_state(states[i], found, row)
            running = [i for i in running if len(items[i].tokens) > end]
            start = end
            if running:
                yield None
        yield [
            self._kept(state) if item.keeps_state else score if sum(score) < math.inf else None
            for item, score, state in zip(items, scores, states, strict=True)
        ]

    def _kept(self, state: State | None) -> State | None:
        """Copies, which do not keep the batch in memory; None where what is carried is NaN or
        infinite."""
        if state is None:
            return {}
        if not all(np.isfinite(state[t.name]).all() for t in self.state if t.carried):
            return None
        return {name: part.copy() for name, part in state.items()}

    def _first_states(self, items: Sequence[Scorable]) -> list[State | None]:
        states = [item.state for item in items]
        fresh = [i for i, state in enumerate(states) if state is None]
        if self.prefiller is not None and fresh:
            sources = [items[i].source for i in fresh]
            found = self.prefiller.prefill(sources, [None] * len(fresh))
            for i, state in zip(fresh, found, strict=True):
                states[i] = state
        return states

    def _next_state(self, state: State | None, found: Mapping[str, Array], row: int) -> State:
        before = state or {}
        return {
            tensor.name: found[f"next_{tensor.name}"][row]
            if tensor.carried
            else before[tensor.name]
            for tensor in self.state
        }


def _finite(rows: Iterable[Array]) -> list[Array | None]:
    """The rows as they are, None in place of one that holds NaN or infinity."""
    return [row if np.isfinite(row).all() else None for row in rows]


def _padded(tokens: Sequence[Sequence[int]], least: int = 1) -> dict[str, Array]:
    """tokens (rows, longest, or ``least`` if that is more) and lengths (rows,)"""
    lengths = np.array([len(row) for row in tokens], np.int64)
    padded = np.full((len(tokens), max(least, int(lengths.max()))), PADDING_ID, np.int64)
    for row, ids in zip(padded, tokens, strict=True):
        row[: len(ids)] = ids
    return {"tokens": padded, "lengths": lengths}


def _padded_frames(sequences: Sequence[Array]) -> dict[str, Array]:
    """frames (rows, longest, channels) and lengths (rows,)"""
    lengths = np.array([len(frames) for frames in sequences], np.int64)
    padded = np.zeros((len(sequences), int(lengths.max()), sequences[0].shape[1]), np.float32)
    for row, frames in zip(padded, sequences, strict=True):
        row[: len(frames)] = frames
    return {"frames": padded, "lengths": lengths}


def _stacked(tensors: Sequence[StateTensor], states: Sequence[State | None]) -> dict[str, Array]:
    """The rows' states as one batch, zeros where a row has none yet."""
    batch = {t.name: np.zeros((len(states), *t.shape), t.dtype) for t in tensors}
    for row, state in enumerate(states):
        if state is not None:
            for name, rows in batch.items():
                rows[row] = state[name]
    return batch
