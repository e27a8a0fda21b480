"""Adapters of tensors: ids, vectors and states in; probabilities, logits and states out.

Logits are the natural logarithms of the probabilities, from which they differ by a constant a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.engine.requests import NextTokenDistribution, State, TagSnapshot
from service.oip.adapters import InferResult, ModelAdapter, about
from service.oip.tensors import Array, TensorMetadata, datatype_of
from service.serving.classifier import TextClassifierModel
from service.serving.fill_mask import FillItem, FillModel
from service.serving.generator import GeneratorModel
from service.serving.inputs import MAX_REQUEST_CHARACTERS, off_loop
from service.serving.model_info import ModelCard
from service.serving.stateful_step import NextTokenParams, look_ahead
from service.serving.tagger import TaggedToken, TaggerModel

# Numbers of one output: 16 MiB.
_MOST_NUMBERS = 2**22

# Of each number of an answer while it is made, as it was measured: the graph's own, the rows of
# them together, their logarithms, both as raw contents, in the message, and serialised twice.
NUMBER_BYTES = 64

_LENGTHS = (-1, 1)
_TOKEN = TensorMetadata("token", "INT64", (-1, 1), optional=True)

Pair = tuple[TensorMetadata, TensorMetadata]


class ClassifyTensors(ModelAdapter):
    def __init__(self, model: TextClassifierModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = _sequence("tokens", "lengths")
        self.outputs = probability_outputs(model.card.labels)

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        return len(inputs["tokens"]) * len(self.card.labels) * NUMBER_BYTES

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        rows = _rows(inputs, "tokens", "lengths")
        _check_answer_size(len(rows), len(self.card.labels), "tokens")
        with about("tokens"):
            found = await self.model.predict(rows)
        size = len(rows) * len(self.card.labels)
        return await _probable(size, lambda: np.array(found, np.float32))


class TagTensors(ModelAdapter):
    """What lies beyond a row's length is zero, and -inf among the logits."""

    def __init__(self, model: TaggerModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.keeps_sequences = model.stream is not None
        self.inputs = _sequence("tokens", "lengths")
        self.outputs = probability_outputs(model.card.labels, (-1, -1))

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        return inputs["tokens"].size * len(self.card.labels) * NUMBER_BYTES

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        rows = _rows(inputs, "tokens", "lengths")
        time, labels = inputs["tokens"].shape[1], len(self.card.labels)
        _check_answer_size(len(rows) * time, labels, "tokens")
        with about("tokens"):
            found = await self.model.predict(rows)
        return await _probable(len(rows) * time * labels, lambda: _filled_up(found, (time, labels)))

    async def go_on(
        self, inputs: Mapping[str, Array], settings: Any, state: TagSnapshot | None
    ) -> tuple[InferResult, TagSnapshot]:
        (ids,) = _rows(inputs, "tokens", "lengths")
        time, labels = inputs["tokens"].shape[1], self.card.labels
        _check_answer_size(time, len(labels), "tokens")
        with about("tokens"):
            self.model.check_ids(ids, "row 0")
            turn = await self.model.streams.turn(ids, [""] * len(ids), state, len(labels))
        size = time * len(labels)
        return await _probable(size, lambda: _spread(turn.tokens, labels, time)), turn.after


class FillTensors(ModelAdapter):
    """Each side of the blank begins with its marker and is read towards the blank."""

    def __init__(self, model: FillModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = (*_sequence("tokens", "lengths"), *_sequence("right", "right_lengths"))
        self.outputs = probability_outputs(model.card.labels)

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        return len(inputs["tokens"]) * len(self.card.labels) * NUMBER_BYTES

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        before = _rows(inputs, "tokens", "lengths")
        after = _rows(inputs, "right", "right_lengths")
        _check_answer_size(len(before), len(self.card.labels), "tokens")
        items = [FillItem(*sides) for sides in zip(before, after, strict=True)]
        found = await self.model.predict(items)
        return await _probable(len(items) * len(self.card.labels), lambda: np.stack(found))


class StepTensors(ModelAdapter):
    """What may follow after the tokens that a row reads.

    The state comes out beside it, and goes in again with the next tokens; with a sequence_id the
    server keeps it.
    """

    keeps_sequences = True

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.state = tuple(
            TensorMetadata(spec.name, datatype_of(spec.dtype), (-1, *spec.shape), optional=True)
            for spec in model.card.state
        )
        self.inputs = (*self.reads(model.card), *self.state)
        symbols = model.card.vocabulary
        self.outputs = (
            TensorMetadata("logits", "FP32", (-1, len(symbols)), labels=symbols),
            *(
                TensorMetadata(f"next_{port.name}", port.datatype, port.shape)
                for port in self.state
            ),
        )

    def reads(self, card: ModelCard) -> tuple[TensorMetadata, ...]:
        """The inputs beside the state."""
        raise NotImplementedError

    def rows(self, inputs: Mapping[str, Array]) -> list[tuple[tuple[int, ...], Any]]:
        """Of each row the tokens, and the source or the vector if there is one."""
        raise NotImplementedError

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        return self.batch(inputs) * self._numbers_a_row * NUMBER_BYTES

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        return await self._result_of(await self._look_ahead(inputs, self._starts(inputs)))

    async def go_on(
        self, inputs: Mapping[str, Array], settings: Any, state: State | None
    ) -> tuple[InferResult, State]:
        starts = self._starts(inputs)
        if state is not None:
            if starts[0] is not None:
                raise WrongInput(
                    f"input {self.state[0].name!r} is set, and the sequence has its own state; "
                    "leave one of the two"
                )
            starts = [state]
        (distribution,) = await self._look_ahead(inputs, starts)
        return await self._result_of([distribution]), distribution.state

    def _starts(self, inputs: Mapping[str, Array]) -> list[State | None]:
        """Each row's state: all of its tensors or none."""
        names = [port.name for port in self.state]
        given = [name for name in names if name in inputs]
        rows = self.batch(inputs)
        if not given:
            return [None] * rows
        if len(given) < len(names):
            missing = next(name for name in names if name not in inputs)
            raise WrongInput(
                f"input {missing!r} is missing, while {given[0]!r} is there; send the whole state"
            )
        return [{name: inputs[name][row] for name in names} for row in range(rows)]

    async def _look_ahead(
        self, inputs: Mapping[str, Array], starts: Sequence[State | None]
    ) -> list[NextTokenDistribution]:
        _check_answer_size(len(starts), self._numbers_a_row, self.inputs[0].name)
        all_params = [
            NextTokenParams(tokens, source, start)
            for (tokens, source), start in zip(self.rows(inputs), starts, strict=True)
        ]
        return await look_ahead(self.model, all_params)

    @property
    def _numbers_a_row(self) -> int:
        return sum(math.prod(port.shape[1:]) for port in self.outputs)

    async def _result_of(self, distributions: Sequence[NextTokenDistribution]) -> InferResult:
        size = len(distributions) * self._numbers_a_row
        return InferResult(await off_loop(size, lambda: self._stacked(distributions)))

    def _stacked(self, distributions: Sequence[NextTokenDistribution]) -> dict[str, Array]:
        outputs = {
            "logits": np.stack([distribution.log_probabilities for distribution in distributions])
        }
        for port in self.state:
            rows = [distribution.state[port.name] for distribution in distributions]
            outputs[f"next_{port.name}"] = np.stack(rows)
        return outputs


class PromptSteps(StepTensors):
    """Rows of tokens, of which the first is a prompt."""

    def reads(self, card: ModelCard) -> tuple[TensorMetadata, ...]:
        return _sequence("tokens", "lengths")

    def rows(self, inputs: Mapping[str, Array]) -> list[tuple[tuple[int, ...], Any]]:
        return [(tokens, None) for tokens in _rows(inputs, "tokens", "lengths")]


class SourceSteps(StepTensors):
    """A source first, then a token at a time."""

    def reads(self, card: ModelCard) -> tuple[TensorMetadata, ...]:
        return (*_sequence("source", "source_lengths", optional=True), _TOKEN)

    def rows(self, inputs: Mapping[str, Array]) -> list[tuple[tuple[int, ...], Any]]:
        tokens = _tokens(inputs, self.batch(inputs))
        if "source" in inputs or "source_lengths" in inputs:
            return list(zip(tokens, _rows(inputs, "source", "source_lengths"), strict=True))
        return [(row, None) for row in tokens]


class VectorSteps(StepTensors):
    """A vector first, then a token at a time."""

    def reads(self, card: ModelCard) -> tuple[TensorMetadata, ...]:
        vector = TensorMetadata("vector", "FP32", (-1, len(card.vector_fields)), optional=True)
        return vector, _TOKEN

    def rows(self, inputs: Mapping[str, Array]) -> list[tuple[tuple[int, ...], Any]]:
        tokens = _tokens(inputs, self.batch(inputs))
        if "vector" in inputs:
            return list(zip(tokens, inputs["vector"].tolist(), strict=True))
        return [(row, None) for row in tokens]


def _tokens(inputs: Mapping[str, Array], rows: int) -> list[tuple[int, ...]]:
    """What each row reads after its source, its vector or its state."""
    return [tuple(row) for row in inputs["token"].tolist()] if "token" in inputs else [()] * rows


def _sequence(tokens: str, lengths: str, optional: bool = False) -> Pair:
    return (
        TensorMetadata(tokens, "INT64", (-1, -1), optional),
        TensorMetadata(lengths, "INT64", _LENGTHS, optional),
    )


def probability_outputs(labels: tuple[str, ...], free: tuple[int, ...] = (-1,)) -> Pair:
    shape = (*free, len(labels))
    return tuple(  # type: ignore[return-value]
        TensorMetadata(name, "FP32", shape, labels=labels) for name in ("probabilities", "logits")
    )


def _rows(inputs: Mapping[str, Array], tokens: str, lengths: str) -> list[tuple[int, ...]]:
    """The ids of each row, without what lies beyond its length. Raises WrongInput."""
    for name in (tokens, lengths):
        if name not in inputs:
            raise WrongInput(f"input {name!r} is missing; send {tokens!r} and {lengths!r} together")
    ids, counts = inputs[tokens], inputs[lengths].reshape(-1)
    if ids.size > MAX_REQUEST_CHARACTERS:
        raise WrongInput(
            f"input {tokens!r} has {ids.size} elements; send at most {MAX_REQUEST_CHARACTERS} a "
            "request"
        )
    for row, count in enumerate(counts.tolist()):
        if not 1 <= count <= ids.shape[1]:
            raise WrongInput(
                f"input {lengths!r}: row {row} is {count}; {tokens!r} has {ids.shape[1]} a row"
            )
    return [tuple(row[:count]) for row, count in zip(ids.tolist(), counts.tolist(), strict=True)]


def _check_answer_size(tokens: int, labels: int, name: str) -> None:
    if tokens * labels > _MOST_NUMBERS:
        raise WrongInput(
            f"input {name!r}: the answer would hold {tokens} x {labels} numbers, and holds at most "
            f"{_MOST_NUMBERS}; send fewer rows"
        )


async def _probable(size: int, make: Callable[[], Array]) -> InferResult:
    """make: the probabilities. size: how many there are."""
    return await off_loop(size, lambda: with_logits(make()))


def with_logits(probabilities: Array) -> InferResult:
    with np.errstate(divide="ignore"):  # what cannot be has the logit -inf
        logits = np.log(probabilities)
    return InferResult({"probabilities": probabilities, "logits": logits})


def _filled_up(rows: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Rows of fewer tokens than the longest, as one array of ``shape`` a row."""
    filled = np.zeros((len(rows), *shape), np.float32)
    for number, row in enumerate(rows):
        filled[number, : len(row)] = row
    return filled


def _spread(tokens: Sequence[TaggedToken], labels: Sequence[str], time: int) -> Array:
    """Of tokens that have every label, likeliest first, the probabilities in the labels' order."""
    places = {label: place for place, label in enumerate(labels)}
    spread = np.zeros((1, time, len(labels)), np.float32)
    for number, token in enumerate(tokens):
        for label, probability in token.top:
            spread[0, number, places[label]] = probability
    return spread
