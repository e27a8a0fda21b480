"""The fill-in model: a text with a blank in, the likeliest words out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine.errors import WrongInput
from service.engine.topk import Array, largest
from service.serving.inputs import ReadingModel, checked_size, off_loop
from service.serving.model_info import ModelCard
from service.serving.output_stream import run_batch
from service.serving.worker import EngineThread

if TYPE_CHECKING:
    from bundle.tokenizer import Tokenizer

MAX_TOP_WORDS = 100
_TOP_WORDS = 5  # for a request that does not say

# An underscore is a letter of a word to tokenizers, so the blank is found first.
_BLANK = re.compile("_{3,}")


@dataclass(frozen=True)
class FillItem:
    """Ids of both sides of a blank, each read towards it.

    tokens: the begin marker and what stands before. right: the end marker and what stands
    after, the last one first.
    """

    tokens: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def length(self) -> int:
        """Without the markers."""
        return len(self.tokens) + len(self.right) - 2


@dataclass(frozen=True)
class FilledBlank:
    """words: with their probabilities, the most probable first."""

    words: list[tuple[str, float]]
    input_tokens: int
    unknown_symbols: int


@dataclass(frozen=True)
class Markers:
    """The ids that stand before a text's first and after its last word."""

    begin_id: int
    end_id: int


class FillModel(ReadingModel):
    """Its card's labels are the words that it chooses among."""

    does = "fill blanks"

    def __init__(
        self, card: ModelCard, reader: Tokenizer, markers: Markers, thread: EngineThread
    ) -> None:
        super().__init__(card)
        self.reader = reader
        self.markers = markers
        self.thread = thread

    @property
    def calls(self) -> str:
        return "Fill"

    async def fill(self, texts: Sequence[str], top: int = 0) -> list[FilledBlank]:
        """top: how many words for each blank; 0 for 5.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        if top > MAX_TOP_WORDS:
            raise WrongInput(f"top_words is {top}; choose up to {MAX_TOP_WORDS}")
        top = top or _TOP_WORDS
        size = checked_size("texts", [len(text) for text in texts])
        read = await off_loop(size, lambda: self._read_all(texts))
        rows = await run_batch(self.thread, [item for item, _ in read])
        return await off_loop(
            sum(map(len, rows)),
            lambda: [
                FilledBlank(self._likeliest(row, top), item.length, unknown)
                for (item, unknown), row in zip(read, rows, strict=True)
            ],
        )

    async def predict(self, rows: Sequence[FillItem]) -> list[Array]:
        """The probability of each candidate, in their order, for each row's blank.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        for number, item in enumerate(rows):
            for side, ids in (("tokens", item.tokens), ("right", item.right)):
                # A marker of its own stands before each side's words.
                self.check_ids(ids, f"row {number} of {side}", self.card.limits["input_tokens"] + 1)
        return await run_batch(self.thread, rows)

    def _read_all(self, texts: Sequence[str]) -> list[tuple[FillItem, int]]:
        return [self._read(text, f"texts[{number}]") for number, text in enumerate(texts)]

    def _read(self, text: str, what: str) -> tuple[FillItem, int]:
        """The two sides of the blank, and how many of their symbols are unknown."""
        limit = self.card.limits["input_tokens"]
        self.check_unread(self.reader, text, what, limit)
        before, after = (self.reader.encode(side) for side in _sides(text, what))
        item = FillItem(
            (self.markers.begin_id, *before.ids), (self.markers.end_id, *reversed(after.ids))
        )
        if item.length:
            self.check_tokens(item.length, what, limit)
        return item, before.unknown + after.unknown

    def _likeliest(self, probabilities: Array, top: int) -> list[tuple[str, float]]:
        places = largest(probabilities, top)
        known = probabilities[places].tolist()
        return [(self.card.labels[k], p) for k, p in zip(places, known, strict=True)]


def _sides(text: str, what: str) -> list[str]:
    sides = _BLANK.split(text)
    if len(sides) != 2:
        has = f"{len(sides) - 1} blanks" if len(sides) > 1 else "no blank"
        raise WrongInput(
            f"{what} has {has}; mark the word to fill in, and no other, with three or more "
            "underscores"
        )
    return sides
