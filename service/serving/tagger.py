"""The tagger: texts or words in, a label for each token out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bundle.spans import LegalPaths, is_bio
from service.engine.errors import WrongInput
from service.engine.topk import Array, largest_of_each
from service.serving.embedder import Embedder
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
    from bundle.tokenizer import Tokenizer
    from service.serving.online_tagger import TagStreams

MAX_TOP_LABELS = 20
# Of one answer: what is sent beside each token is many times what was asked.
MAX_RETURNED_LABELS = 131_072


@dataclass(frozen=True)
class TagParams:
    """One of the two: a text to be split into tokens, or words, which are tokens already."""

    text: str
    words: Sequence[str]

    @property
    def characters(self) -> int:
        return len(self.text) + sum(map(len, self.words))


@dataclass(frozen=True, slots=True)
class TaggedToken:
    """text: as it was sent. position: in the text or the stream, from 0.

    top: the likeliest labels with their probabilities, the likeliest first. state: as TokenMade.
    """

    text: str
    label: str
    probability: float
    position: int
    top: tuple[tuple[str, float], ...] = ()
    state: bytes = b""


@dataclass(frozen=True)
class TaggedText:
    tokens: list[TaggedToken]
    unknown_symbols: int


@dataclass(frozen=True)
class _Read:
    words: Sequence[str]
    ids: Sequence[int]
    unknown: int


class TaggerModel(ReadingModel):
    """stream: labels tokens as they arrive; None for a model that cannot. embedder: likewise.

    Of labels that mark spans the likeliest sequence without an illegal transition is given.
    """

    does = "tag"

    def __init__(
        self,
        card: ModelCard,
        reader: Tokenizer,
        thread: EngineThread,
        stream: TagStreams | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        super().__init__(card)
        self.reader = reader
        self.thread = thread
        self.stream = stream
        self._embedder = embedder
        self.paths = LegalPaths(card.labels) if is_bio(card.labels) else None

    @property
    def calls(self) -> str:
        embed = ["Embed"] if self._embedder else []
        *others, last = ["Tag", *(["StreamTag"] if self.stream else []), *embed]
        return f"{', '.join(others)} or {last}" if others else last

    @property
    def embedder(self) -> Embedder:
        return self._embedder or super().embedder

    @property
    def streams(self) -> TagStreams:
        """Raises WrongInput for a model that cannot label a token before the next one."""
        if self.stream is None:
            raise WrongInput(
                f"model {self.card.name!r} needs the tokens to the right of each, too; call Tag "
                "with all of them"
            )
        return self.stream

    @property
    def state_maker(self) -> TagStreams:
        return self.streams

    async def tag(self, all_params: Sequence[TagParams], top: int = 0) -> list[TaggedText]:
        """top: how many of the likeliest labels come beside each token.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        check_top_labels(top)
        size = checked_size("items", [params.characters for params in all_params])
        read = await off_loop(size, lambda: self._read_all(all_params))
        labels = _checked_labels(read, top)
        rows = await run_batch(self.thread, [PredictItem(tuple(part.ids)) for part in read])
        return await off_loop(
            labels,
            lambda: [
                TaggedText(
                    tagged(part.words, row, self.card.labels, top, paths=self.paths), part.unknown
                )
                for part, row in zip(read, rows, strict=True)
            ],
        )

    async def predict(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """Probabilities (tokens, labels) for each row of ids.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        return await run_batch(self.thread, self.items_of(rows))

    def _read_all(self, all_params: Sequence[TagParams]) -> list[_Read]:
        return [self._read(params, f"items[{number}]") for number, params in enumerate(all_params)]

    def _read(self, params: TagParams, where: str) -> _Read:
        if bool(params.text) == bool(params.words):
            has = "both text and words" if params.text else "neither text nor words"
            raise WrongInput(f"{where} has {has}; send one of the two")
        limit = self.card.limits["input_tokens"]
        if params.text:
            self.check_unread(self.reader, params.text, f"{where}.text", limit)
        words = self.reader.words_of(params.text) if params.text else params.words
        self.check_tokens(len(words), f"{where}.{'text' if params.text else 'words'}", limit)
        if "" in words:
            raise WrongInput(f"{where}.words[{list(words).index('')}] is empty; leave it out")
        encoded = self.reader.encode_words(words)
        return _Read(words, encoded.ids, encoded.unknown)


def tagged(
    words: Sequence[str],
    probabilities: Array,
    labels: Sequence[str],
    top: int,
    first: int = 0,
    paths: LegalPaths | None = None,
) -> list[TaggedToken]:
    """probabilities: (tokens, labels). first: the position of the first token. paths: of labels
    that mark spans; without them each token gets its likeliest label.
    """
    places = largest_of_each(probabilities, max(1, top))
    worth = np.take_along_axis(probabilities, places, axis=1).tolist()
    chosen = places[:, 0] if paths is None else paths.best(probabilities)
    own = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0].tolist()
    return [
        TaggedToken(
            word,
            labels[label],
            probability,
            position,
            tuple((labels[k], p) for k, p in zip(best, known, strict=True)) if top else (),
        )
        for position, (word, label, probability, best, known) in enumerate(
            zip(words, chosen.tolist(), own, places.tolist(), worth, strict=True), start=first
        )
    ]


def check_top_labels(top: int) -> None:
    """Raises WrongInput."""
    if top > MAX_TOP_LABELS:
        raise WrongInput(f"top_labels is {top}; choose up to {MAX_TOP_LABELS}")


def _checked_labels(read: Sequence[_Read], top: int) -> int:
    """How many labels the answer holds."""
    tokens = sum(len(part.ids) for part in read)
    if tokens * top > MAX_RETURNED_LABELS:
        raise WrongInput(
            f"items have {tokens} tokens together, with {top} labels each to send; request at "
            f"most {MAX_RETURNED_LABELS} labels a request: fewer items or fewer top_labels"
        )
    return tokens * (1 + top)
