"""What goes into a stream of tags and comes out of it, and its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from unroll.types import ResumePoint, TaggedToken, to_resume_point, to_tagged_token
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
    """tokens: that were labelled. Times in seconds, from the first token sent.

    handed_over: the server stops before the caller has sent its last token; it has answered
    requests_read of them. Only where the caller does without carry_on. Of a stream that was
    carried on with, tokens are those of all its calls, unknown_symbols those that servers told
    at their ends, and times the first that one told.
    """

    tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float
    handed_over: bool = False
    requests_read: int = 0


@dataclass(frozen=True)
class TagPiece:
    """One message of a stream of tags; end: in the last one."""

    tokens: list[TaggedToken]
    resume_points: list[ResumePoint]
    end: TagStreamEnd | None


def to_start(model: str, options: TagStreamOptions) -> pb.StreamTagStart:
    """Raises ValueError for a number its field cannot hold."""
    rest: dict[str, Any] = dict(options)
    return pb.StreamTagStart(
        model=model,
        model_version=rest.pop("version", ""),
        top_labels=rest.pop("top", 0),
        **rest,
    )


def to_request(part: Part, skip: int = 0) -> pb.StreamTagRequest:
    """skip: of its words, how many are not sent."""
    if isinstance(part, str):
        return pb.StreamTagRequest(text=part)
    return pb.StreamTagRequest(words=pb.Words(words=part[skip:] if skip else part))


def to_tag_piece(response: pb.StreamTagResponse) -> TagPiece:
    return TagPiece(
        [to_tagged_token(token) for token in response.tokens],
        [to_resume_point(point) for point in response.resume_points],
        to_tag_end(response) if response.HasField("usage") else None,
    )


def to_tag_end(response: pb.StreamTagResponse) -> TagStreamEnd:
    usage = response.usage
    return TagStreamEnd(
        usage.output_tokens,
        usage.unknown_symbols,
        usage.queue_seconds,
        usage.time_to_first_token_seconds,
        response.handed_over,
        response.requests_read,
    )
