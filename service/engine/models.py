"""Served models as a caller sees them: text in, results out, and every refusal in between."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from service.engine.cards import ModelCard
from service.engine.errors import WrongInput
from service.engine.requests import Generation, Snapshot
from service.engine.resuming import ResumeTokens, ServedBundle
from service.engine.streams import TokenStream, run_batch
from service.engine.threads import EngineThread
from service.engine.wishes import GenerationRules, GenerationWish

MAX_TEXTS = 1024
MAX_REQUEST_CHARACTERS = 131_072
_SEEDS = 2**64
# Reading more text than this at once would hold up every stream's messages.
_INLINE_CHARACTERS = 8_192

Answer = TypeVar("Answer")


class Encoded(Protocol):
    @property
    def ids(self) -> list[int]: ...

    @property
    def unknown(self) -> int: ...


class TextCodec(Protocol):
    """Text to ids and back, as the model was trained with."""

    def encode(self, text: str) -> Encoded: ...

    def piece(self, token: int, first: bool) -> str: ...

    def longest_text(self, tokens: int) -> int:
        """Characters above which a text is refused unread."""


@dataclass(frozen=True)
class OpenStream:
    """A stream under way: read ``tokens``, and close it.

    echo: the prompt's tokens, where asked for. seal: makes a resume token of a snapshot.
    """

    tokens: TokenStream
    seed: int
    unknown_symbols: int
    echo: list[ScoredToken]
    seal: Callable[[Snapshot], bytes]
    codec: TextCodec

    def text_of(self, token: int, position: int) -> str:
        return self.codec.piece(token, position == 0)


@dataclass(frozen=True)
class ScoredToken:
    """log_probability: None for a token that follows nothing."""

    token: int
    text: str
    log_probability: float | None


@dataclass(frozen=True)
class ScoredText:
    tokens: list[ScoredToken]
    unknown_symbols: int


@dataclass(frozen=True)
class Classified:
    """Every label with its probability, the most probable first."""

    labels: list[tuple[str, float]]
    input_tokens: int
    unknown_symbols: int


@dataclass(frozen=True)
class PredictItem:
    """tokens: ids of one text."""

    tokens: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class ScoreItem:
    """The log-probability of each target after the token beside it.

    source: ids that prime the model first; empty for a generator.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    source: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        return len(self.tokens)


class _TextModel:
    """What every served model shares: its card and how it reads text."""

    def __init__(self, card: ModelCard, reader: TextCodec) -> None:
        self.card = card
        self.reader = reader

    def encode(self, text: str, what: str) -> Encoded:
        """Raises WrongInput for a text without tokens or above the model's limit."""
        return self._encode(self.reader, text, what, self.card.limits["input_tokens"])

    def _encode(self, codec: TextCodec, text: str, what: str, limit: int) -> Encoded:
        name = self.card.name
        if len(text) > codec.longest_text(limit):
            raise WrongInput(
                f"{what} has {len(text)} characters, model {name!r} accepts {limit} tokens; "
                "shorten it"
            )
        encoded = codec.encode(text)
        if not encoded.ids:
            raise WrongInput(f"{what} is empty; model {name!r} needs at least one token")
        if len(encoded.ids) > limit:
            raise WrongInput(
                f"{what} has {len(encoded.ids)} tokens, model {name!r} accepts {limit}; shorten it"
            )
        return encoded


class ClassifierModel(_TextModel):
    def __init__(self, card: ModelCard, reader: TextCodec, thread: EngineThread) -> None:
        super().__init__(card, reader)
        self.thread = thread

    async def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Raises WrongInput, QueueFull or EngineFailed."""
        size = _checked_size("texts", [len(text) for text in texts])
        encoded = await _off_loop(size, lambda: self._encode_all(texts))
        items = [PredictItem(tuple(part.ids)) for part in encoded]
        rows = await run_batch(self.thread, items)
        return [
            Classified(_ranked(self.card.labels, row), len(part.ids), part.unknown)
            for part, row in zip(encoded, rows, strict=True)
        ]

    def _encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.encode(text, f"texts[{i}]") for i, text in enumerate(texts)]


def _ranked(labels: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    pairs = zip(labels, probabilities, strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


@dataclass(frozen=True)
class Writer:
    """What a generating model writes with.

    begin_id, end_id, silent_ids: as GenerationModel. rows: how many streams decode at once.
    """

    codec: TextCodec
    begin_id: int | None
    end_id: int | None
    silent_ids: tuple[int, ...]
    vocabulary: int
    rows: int


class GeneratorModel(_TextModel):
    """Generates from a prompt or, where the writer has a begin_id, from a source.

    tokens_per_message: for requests that do not say; 0 leaves it to the pace of the thread.
    choose_seed: for requests without one. clock: the engine's, in seconds.
    """

    def __init__(
        self,
        card: ModelCard,
        reader: TextCodec,
        writer: Writer,
        thread: EngineThread,
        score_thread: EngineThread,
        resume_tokens: ResumeTokens,
        tokens_per_message: int = 0,
        clock: Callable[[], float] = time.monotonic,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
    ) -> None:
        super().__init__(card, reader)
        self.writer = writer.codec
        self.begin_id, self.end_id = writer.begin_id, writer.end_id
        self.thread = thread
        self.score_thread = score_thread
        self.resume_tokens = resume_tokens
        self.tokens_per_message = tokens_per_message
        self.clock = clock
        self.choose_seed = choose_seed
        self._rules = GenerationRules(
            card, writer.vocabulary, writer.silent_ids, writer.end_id, writer.rows
        )

    @property
    def reads_source(self) -> bool:
        return self.begin_id is not None

    async def generate(self, wish: GenerationWish) -> OpenStream:
        """Raises WrongInput, ResumeInvalid, ResumeRefused, QueueFull or EngineFailed."""
        bundle = ServedBundle(
            self.card.name, self.card.digest, self.card.precision, self.card.fingerprint
        )
        if wish.resume_token is None:
            if wish.echo and self.reads_source:
                raise WrongInput(
                    f"model {self.card.name!r} reads a source and has no prompt to echo; leave echo"
                )
            encoded = self._input(wish)
            unknown = encoded.unknown
            request = self._request(wish, encoded)
            echo = await self._echo(wish, encoded) if wish.echo else []
        else:
            snapshot = self.resume_tokens.open(
                wish.resume_token, bundle, wish.subject, wish.allow_inexact
            )
            unknown, echo = 0, []
            request = self._rules.resumed(wish, snapshot, self.clock())
        size = request.beam.width if request.beam else request.samples
        each = wish.tokens_per_message or self.tokens_per_message
        stream = TokenStream.open(self.thread, request, each, size)
        return OpenStream(
            stream,
            request.sampling.seed,
            unknown,
            echo,
            lambda snapshot: self.resume_tokens.seal(snapshot, bundle, wish.subject),
            self.writer,
        )

    def _request(self, wish: GenerationWish, encoded: Encoded) -> Generation:
        seed = wish.sampling.seed
        return self._rules.fresh(
            wish, encoded.ids, self.choose_seed() if seed is None else seed, self.clock()
        )

    async def _echo(self, wish: GenerationWish, encoded: Encoded) -> list[ScoredToken]:
        """The prompt's tokens, with their log-probabilities where those are asked for."""
        if wish.log_probabilities and len(encoded.ids) > 1:
            (scored,) = await self.score([(wish.prompt or "", "")])
            return scored.tokens
        return [
            ScoredToken(token, self.writer.piece(token, number == 0), None)
            for number, token in enumerate(encoded.ids)
        ]

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[ScoredText]:
        """The log-probabilities of texts, given as (text, source); source "" for none.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        size = _checked_size("items", [len(text) + len(source) for text, source in pairs])
        read = await _off_loop(size, lambda: self._score_items(pairs))
        rows = await run_batch(self.score_thread, [item for item, _ in read])
        return await _off_loop(
            size,
            lambda: [
                ScoredText(self._scored(item, row), unknown)
                for (item, unknown), row in zip(read, rows, strict=True)
            ],
        )

    def _input(self, wish: GenerationWish) -> Encoded:
        name, needs = self.card.name, "source" if self.reads_source else "prompt"
        text = wish.source if self.reads_source else wish.prompt
        if text is None:
            given = [k for k in ("prompt", "source", "vector") if getattr(wish, k) is not None]
            says = f"the request has a {given[0]}" if given else "the request has no input"
            raise WrongInput(f"model {name!r} takes a {needs}, {says}; set {needs!r}")
        return self.encode(text, needs)

    def _score_items(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[ScoreItem, int]]:
        return [
            self._score_item(text, source, f"items[{number}]")
            for number, (text, source) in enumerate(pairs)
        ]

    def _score_item(self, text: str, source: str, where: str) -> tuple[ScoreItem, int]:
        if not self.reads_source:
            if source:
                raise WrongInput(
                    f"{where}.source is set, model {self.card.name!r} scores texts alone; leave it"
                )
            encoded = self.encode(text, f"{where}.text")
            ids = encoded.ids
            if len(ids) < 2:
                raise WrongInput(
                    f"{where}.text has one token, and what follows nothing has no probability; "
                    "send at least two"
                )
            return ScoreItem(tuple(ids[:-1]), tuple(ids[1:])), encoded.unknown
        read = self.encode(source, f"{where}.source")
        limit = self.card.limits["output_tokens"]
        encoded = self._encode(self.writer, text, f"{where}.text", limit)
        assert self.begin_id is not None, "a model that reads a source begins with a marker"
        assert self.end_id is not None, "and ends with one"
        tokens, targets = (self.begin_id, *encoded.ids), (*encoded.ids, self.end_id)
        return ScoreItem(tokens, targets, tuple(read.ids)), read.unknown + encoded.unknown

    def _scored(self, item: ScoreItem, row: Sequence[float]) -> list[ScoredToken]:
        known = list(zip(item.targets, map(float, row), strict=True))
        every: list[tuple[int, float | None]] = [*known]
        if not self.reads_source:
            every.insert(0, (item.tokens[0], None))
        return [
            ScoredToken(token, self.writer.piece(token, number == 0), log_probability)
            for number, (token, log_probability) in enumerate(every)
        ]


def _checked_size(what: str, lengths: Sequence[int]) -> int:
    """The characters of all texts of a request together."""
    if not 1 <= len(lengths) <= MAX_TEXTS:
        raise WrongInput(f"{what} holds {len(lengths)} entries; send 1 to {MAX_TEXTS} a request")
    if sum(lengths) > MAX_REQUEST_CHARACTERS:
        raise WrongInput(
            f"{what} hold {sum(lengths)} characters together; send at most "
            f"{MAX_REQUEST_CHARACTERS} a request"
        )
    return sum(lengths)


async def _off_loop(characters: int, work: Callable[[], Answer]) -> Answer:
    """``work`` on much text, on a thread of its own; on little text, here."""
    return work() if characters <= _INLINE_CHARACTERS else await asyncio.to_thread(work)


ServedModel = ClassifierModel | GeneratorModel
