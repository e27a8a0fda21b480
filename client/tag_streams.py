"""What goes into a stream of tags and comes out of it, and its messages."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, TypedDict

from client.results import ResumePoint, TaggedToken, to_tagged_token
from unroll.v1 import unroll_pb2 as pb

# A text, which the server splits into tokens, or tokens already.
Part = str | Sequence[str]


class TagStreamOptions(TypedDict, total=False):
    """What a call of stream_tag may say, as StreamTagStart in proto/unroll/v1/unroll.proto."""

    top: int
    tokens_per_message: int
    resume_every: int
    resume_at_end: bool
    resume_token: bytes | None
    allow_inexact: bool
    version: str


@dataclass(frozen=True)
class TagStreamEnd:
    """tokens: that were labelled. Times in seconds, from the first token sent."""

    tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float


@dataclass(frozen=True)
class TagPiece:
    """One message of a stream of tags; end: in the last one."""

    tokens: list[TaggedToken]
    resume_points: list[ResumePoint]
    end: TagStreamEnd | None


class Sending:
    """The requests of one call, made as its parts come.

    What the caller's iterable raises ends what is sent; check() raises it again.
    """

    def __init__(self, model: str, options: TagStreamOptions) -> None:
        """Raises ValueError for a number its field cannot hold."""
        rest: dict[str, Any] = dict(options)
        self._start = pb.StreamTagStart(
            model=model,
            model_version=rest.pop("version", ""),
            top_labels=rest.pop("top", 0),
            **rest,
        )
        self._failure: Exception | None = None

    def requests(self, parts: Iterable[Part]) -> Iterator[pb.StreamTagRequest]:
        yield pb.StreamTagRequest(start=self._start)
        try:
            for part in parts:
                yield _request(part)
        except Exception as error:
            self._failure = error

    async def requests_of(
        self, parts: AsyncIterable[Part], answered: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[pb.StreamTagRequest]:
        """answered: waits until the server has taken the start or refused it."""
        yield pb.StreamTagRequest(start=self._start)
        try:
            # What is sent into a call that was refused would hide why (grpc#36066).
            await answered()
            async for part in parts:
                yield _request(part)
        except Exception as error:
            self._failure = error

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure


def _request(part: Part) -> pb.StreamTagRequest:
    if isinstance(part, str):
        return pb.StreamTagRequest(text=part)
    return pb.StreamTagRequest(words=pb.Words(words=part))


def to_tag_piece(response: pb.StreamTagResponse) -> TagPiece:
    return TagPiece(
        [to_tagged_token(token) for token in response.tokens],
        [ResumePoint(p.sample, p.token, p.next_position) for p in response.resume_points],
        _to_end(response.usage) if response.HasField("usage") else None,
    )


def _to_end(usage: pb.Usage) -> TagStreamEnd:
    return TagStreamEnd(
        usage.output_tokens,
        usage.unknown_symbols,
        usage.queue_seconds,
        usage.time_to_first_token_seconds,
    )
