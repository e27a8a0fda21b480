"""Embeddings: texts in, the state that reading each one leaves out, as a vector of length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.errors import WrongInput
from service.engine.requests import State
from service.serving.generator_input import EncodedInput, TextInput
from service.serving.inputs import (
    MAX_TEXTS,
    PredictItem,
    ReadingModel,
    checked_size,
    off_loop,
)
from service.serving.model_info import ModelCard
from service.serving.output_stream import run_batch
from service.serving.state_access import HIDDEN, checked_tensors, watchable
from service.serving.worker import EngineThread

# Of one answer: 2 MiB as float32, below what gRPC's clients take unless told otherwise.
MAX_RETURNED_VALUES = 524_288
# Of a number of the state while it waits, and of one of the answer, which JSON writes out.
_STATE_BYTES, _VALUE_BYTES = 4, 40


@dataclass(frozen=True)
class Embedded:
    """values: (units,) float32, of Euclidean length 1, or all 0 where the state is."""

    values: NDArray[Any]
    input_tokens: int
    unknown_symbols: int


class Embedder(ReadingModel):
    """Of a model that reads texts and carries a state.

    input: how a text is read. thread: of an engine whose runner gives states (service/runtime).
    """

    does = "embed"

    def __init__(self, card: ModelCard, input: TextInput, thread: EngineThread) -> None:
        super().__init__(card)
        self.input = input
        self.thread = thread

    @property
    def calls(self) -> str:
        return "Embed"

    def answer_bytes(self, texts: int, tensors: Sequence[str]) -> int:
        """What the answer to so many texts takes at most. Raises WrongInput."""
        sizes = watchable(self.card)
        kept = sum(sizes.values()) * _STATE_BYTES
        units = sum(sizes[name] for name in self._chosen(tensors))
        return min(texts, MAX_TEXTS) * (kept + units * _VALUE_BYTES)

    async def embed(self, texts: Sequence[str], tensors: Sequence[str] = ()) -> list[Embedded]:
        """tensors: of the state, one after the other; none for the last layer's hidden state.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        names = self._chosen(tensors)
        size = checked_size("texts", [len(text) for text in texts])
        sizes = watchable(self.card)
        units = sum(sizes[name] for name in names)
        if len(texts) * units > MAX_RETURNED_VALUES:
            raise WrongInput(
                f"{len(texts)} texts of {units} values each are too many; request at most "
                f"{MAX_RETURNED_VALUES} values a request: fewer texts or fewer tensors"
            )
        encoded = await off_loop(size, lambda: self._encode_all(texts))
        states = await run_batch(self.thread, [PredictItem(tuple(p.ids)) for p in encoded])
        return await off_loop(
            len(texts) * units,
            lambda: [
                Embedded(_normalised(state, names), len(part.ids), part.unknown)
                for part, state in zip(encoded, states, strict=True)
            ],
        )

    def _chosen(self, tensors: Sequence[str]) -> tuple[str, ...]:
        """Raises WrongInput."""
        if tensors:
            return checked_tensors("tensors", tensors, watchable(self.card), self.card.name)
        sizes = watchable(self.card)
        return tuple(name for name in sizes if name.startswith(HIDDEN))[-1:] or tuple(sizes)

    def _encode_all(self, texts: Sequence[str]) -> list[EncodedInput]:
        return [self.input.read(self, text, f"texts[{i}]") for i, text in enumerate(texts)]


def _normalised(state: State, names: Sequence[str]) -> NDArray[Any]:
    values = np.concatenate([state[name].reshape(-1) for name in names]).astype(np.float64)
    # Exact, so that the bits depend on the values alone, and not on how a sum is blocked.
    length = math.sqrt(math.fsum((values * values).tolist()))
    return (values / length if length else values).astype(np.float32)
