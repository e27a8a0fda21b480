"""The classifier: texts in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.serving.inputs import (
    PredictItem,
    ReadingModel,
    checked_size,
    off_loop,
)
from service.serving.model_info import ModelCard
from service.serving.output_stream import run_batch
from service.serving.worker import EngineThread

if TYPE_CHECKING:
    from bundle.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True)
class Classified:
    """probabilities: of the model's labels, in their order."""

    labels: Sequence[str]
    probabilities: Sequence[float]
    input_tokens: int
    unknown_symbols: int

    def ranked(self) -> list[tuple[str, float]]:
        """Every label with its probability, the most probable first."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def best(self) -> tuple[str, float]:
        """The first of them."""
        probability = max(self.probabilities)
        return self.labels[self.probabilities.index(probability)], probability


class ClassifierModel(ReadingModel):
    does = "classify"

    def __init__(self, card: ModelCard, reader: Tokenizer, thread: EngineThread) -> None:
        super().__init__(card)
        self.reader = reader
        self.thread = thread

    @property
    def calls(self) -> str:
        return "Classify"

    async def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Raises WrongInput, QueueFull or EngineFailed."""
        size = checked_size("texts", [len(text) for text in texts])
        encoded = await off_loop(size, lambda: self._encode_all(texts))
        items = [PredictItem(tuple(part.ids)) for part in encoded]
        rows = await run_batch(self.thread, items)
        return [
            Classified(self.card.labels, row, len(part.ids), part.unknown)
            for part, row in zip(encoded, rows, strict=True)
        ]

    async def predict(self, rows: Sequence[Sequence[int]]) -> list[Sequence[float]]:
        """The probability of each label, in their order, for rows of ids.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        return await run_batch(self.thread, self.items_of(rows))

    def _encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.read(self.reader, text, f"texts[{i}]") for i, text in enumerate(texts)]
