"""The online tagger: words in as they come, a label for each out."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from service.access.memory_budget import WORDS, MemoryBudget, Reservation
from service.engine.errors import WrongInput
from service.engine.online_tagging import OnlineTagEngine
from service.engine.requests import (
    NO_CHECKPOINTS,
    Checkpoint,
    Event,
    Finished,
    ResumePolicy,
    TagRequest,
    TagSnapshot,
    TokenMade,
)
from service.serving.inputs import MAX_REQUEST_CHARACTERS, off_loop
from service.serving.model_info import ModelCard
from service.serving.output_stream import TokenStream
from service.serving.resume_token import STREAM_TAG, ResumeTokens, ServedBundle
from service.serving.sampling_params import check_checkpoints, check_tokens_per_message
from service.serving.state_access import (
    StateChange,
    WatchParams,
    check_resumes,
    watch_of,
    with_changes,
)
from service.serving.tagger import TaggedToken, check_top_labels
from service.serving.worker import EngineThread

if TYPE_CHECKING:
    from bundle.tokenizer import Tokenizer

# Tokens that may wait for their labels before no more of a caller's requests are read.
MOST_WAITING = 1024
# Of a word that waits, its id and its label.
_WORD_BYTES = 512


@dataclass(frozen=True)
class TagStreamParams:
    """top: how many of the likeliest labels come beside each token.

    tokens_per_message: 0 for the server's choice. resume_token: None for a new stream.
    subject: who asks, as far as it is known.
    """

    top: int = 0
    tokens_per_message: int = 0
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    resume_token: bytes | None = None
    allow_inexact: bool = False
    subject: str = ""
    watch: WatchParams | None = None
    set_state: tuple[StateChange, ...] = ()


@dataclass(frozen=True)
class TagTurn:
    """Words that were labelled after others. after: where the stream is then."""

    tokens: Sequence[TaggedToken]
    after: TagSnapshot


@dataclass(frozen=True)
class TagMessage:
    """What has gathered since the last one. finished: in the last one only."""

    tokens: Sequence[TaggedToken]
    checkpoints: Sequence[TagSnapshot]
    finished: Finished | None

    def __bool__(self) -> bool:
        return bool(self.tokens or self.checkpoints or self.finished)


class TagStream:
    """A stream under way: push words, close_input(), read messages; close() it in any case.

    sign: makes a resume token of a snapshot. requests_read: how often words were pushed. held: of
    the budget, by the words that wait.
    """

    def __init__(
        self,
        model: TagStreams,
        events: TokenStream,
        sign: Callable[[TagSnapshot], bytes],
        held: Reservation,
    ) -> None:
        self.unknown_symbols = 0
        self.requests_read = 0
        self.sign = sign
        self._model = model
        self._events = events
        # As they were sent; a label takes the first one.
        self._words: deque[str] = deque()
        self._held = held
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def waiting(self) -> int:
        """Tokens without a label."""
        return len(self._words)

    async def push_text(self, text: str) -> None:
        """As push(), of the words of ``text``."""
        _check_characters("text", len(text))
        await self._push(await off_loop(len(text), lambda: self._model.reader.words_of(text)))

    async def push(self, words: Sequence[str]) -> None:
        """Have each word labelled; returns once there is room for more.

        Raises WrongInput, or Overloaded where the words of all streams take too much.
        """
        _check_characters("words", sum(map(len, words)))
        if "" in words:
            raise WrongInput(f"words[{list(words).index('')}] is empty; leave it out")
        await self._push(words)

    async def _push(self, words: Sequence[str]) -> None:
        if not words:
            self.requests_read += 1
            return
        arrived = self._model.clock()
        size = sum(map(len, words))
        encoded = await off_loop(size, lambda: self._model.reader.encode_words(words))
        # What is counted is pushed, wherever this is cancelled.
        self.unknown_symbols += encoded.unknown
        self.requests_read += 1
        await self._push_by_and_by(encoded.ids, words, arrived)

    async def _push_by_and_by(
        self, ids: Sequence[int], words: Sequence[str], arrived: float
    ) -> None:
        """As many at once as may wait: of a stream that is not read, little is kept."""
        place = 0
        try:
            while place < len(ids):
                end = min(place + MOST_WAITING, len(ids))
                self._model.budget.check(WORDS, (end - place) * _WORD_BYTES)
                self.push_ids(ids[place:end], words[place:end], arrived)
                place = end
                await self._has_room.wait()
        except asyncio.CancelledError:
            # A stop does not cut a request in two: what was counted goes on as a whole.
            if place < len(ids):
                self.push_ids(ids[place:], words[place:], arrived)
            raise

    def push_ids(self, ids: Sequence[int], words: Sequence[str], arrived: float) -> None:
        """Have each id, which stands for a word, labelled.

        arrived: when they came, on the engine's clock.
        """
        model = self._model
        self._held.change(len(words) * _WORD_BYTES)
        self._words.extend(words)
        self._watch_room()
        model.thread.do(partial(model.engine.push, tokens=ids, arrived=arrived), self._events.work)

    def _watch_room(self) -> None:
        if len(self._words) < MOST_WAITING:
            self._has_room.set()
        else:
            self._has_room.clear()

    def close_input(self, is_handed_over: bool = False) -> None:
        """No further words come; the stream ends once every word has its label.

        is_handed_over: further ones go elsewhere, and its last message says where it is.
        """
        close = partial(self._model.engine.close_input, is_handed_over=is_handed_over)
        self._model.thread.do(close, self._events.work)

    async def __aiter__(self) -> AsyncIterator[TagMessage]:
        """Raises EngineFailed or ServiceStopping when the engine gives the stream up."""
        async for events in self._events:
            message = self._message(events)
            self._watch_room()
            if message:
                yield message

    def _message(self, events: Sequence[Event]) -> TagMessage:
        last = events[-1]
        return TagMessage(
            [self._tagged(event) for event in events if type(event) is TokenMade],
            [_snapshot(event) for event in events if type(event) is Checkpoint],
            last if isinstance(last, Finished) else None,
        )

    def _tagged(self, made: TokenMade) -> TaggedToken:
        labels = self._model.card.labels
        top = tuple((labels[label], math.exp(value)) for label, value in made.top)
        probability = math.exp(made.log_probability)
        self._held.change(-_WORD_BYTES)
        return TaggedToken(
            self._words.popleft(), made.text, probability, made.position, top, made.state
        )

    def close(self) -> None:
        self._events.close()
        self._held.release()


class TagStreams:
    """Opens the streams of one tagger.

    budget: of the bytes that words which wait for their labels take.
    tokens_per_message: for callers that do not say; 0 leaves it to coalescing.
    clock: the engine's, in seconds.
    """

    def __init__(
        self,
        card: ModelCard,
        reader: Tokenizer,
        engine: OnlineTagEngine,
        thread: EngineThread,
        resume_tokens: ResumeTokens,
        budget: MemoryBudget,
        tokens_per_message: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.card = card
        self.reader = reader
        self.engine = engine
        self.thread = thread
        self.resume_tokens = resume_tokens
        self.tokens_per_message = tokens_per_message
        self.clock = clock

    def open(self, params: TagStreamParams) -> TagStream:
        """Raises WrongInput, ResumeInvalid, ResumeRefused, QueueFull or EngineFailed."""
        check_top_labels(params.top)
        check_tokens_per_message(params.tokens_per_message)
        check_checkpoints(params.checkpoints)
        check_resumes(params.set_state, params.resume_token is not None)
        if params.resume_token is None:
            return self._open(params, None)
        snapshot = self.resume_tokens.open_tags(
            params.resume_token, self._bundle, params.subject, params.allow_inexact
        )
        return self._open(params, with_changes(snapshot, params.set_state, self.card))

    async def turn(
        self, ids: Sequence[int], words: Sequence[str], before: TagSnapshot | None, top: int = 0
    ) -> TagTurn:
        """Label ``words``, whose ids these are, after those that led to ``before``.

        before: None for the first words. Nothing is kept here: the same call again gives the same.
        Raises WrongInput, QueueFull or EngineFailed.
        """
        arrived = self.clock()
        stream = self._open(TagStreamParams(top, checkpoints=ResumePolicy(at_end=True)), before)
        try:
            stream.push_ids(ids, words, arrived)
            stream.close_input()
            messages = [message async for message in stream]
        finally:
            stream.close()
        tokens = [token for message in messages for token in message.tokens]
        (checkpoint,) = [point for message in messages for point in message.checkpoints]
        return TagTurn(tokens, checkpoint)

    @property
    def _bundle(self) -> ServedBundle:
        return ServedBundle.of(self.card, STREAM_TAG)

    def _open(self, params: TagStreamParams, resumed: TagSnapshot | None) -> TagStream:
        watch = watch_of(params.watch, self.card)
        request = TagRequest(self.clock(), params.top, params.checkpoints, resumed, watch)
        each = params.tokens_per_message or self.tokens_per_message
        # First: a stream that was opened and then refused would keep its place for good.
        held = self.budget.reserve(WORDS, 0)
        return TagStream(
            self,
            TokenStream.open(self.thread, request, each),
            lambda snapshot: self.resume_tokens.sign(snapshot, self._bundle, params.subject),
            held,
        )


def _snapshot(checkpoint: Checkpoint) -> TagSnapshot:
    assert isinstance(checkpoint.snapshot, TagSnapshot), "a stream of labels has no other"
    return checkpoint.snapshot


def _check_characters(what: str, characters: int) -> None:
    if characters > MAX_REQUEST_CHARACTERS:
        raise WrongInput(
            f"{what} has {characters} characters; send at most {MAX_REQUEST_CHARACTERS} at once"
        )
