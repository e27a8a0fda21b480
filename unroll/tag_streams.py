"""What goes into a stream of tags and comes out of it, and its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from unroll.types import (
    ResumePoint,
    StateChange,
    TaggedToken,
    Watch,
    to_changes,
    to_resume_point,
    to_tagged_token,
    to_watch,
)
from unroll.v1 import unroll_pb2 as pb

# A text, which the server splits into tokens, or tokens already.
Part = str | Sequence[str]


class TagStreamOptions(TypedDict, total=False):
    """Options of stream_tag.

    top: number of the most probable labels beside each token, 0 to 20. All others, watch and
    set_state too, are as those of generate; resume_at_end: once the caller has sent its last token
    and has got every answer.
    """

    top: int
    tokens_per_message: int
    resume_every: int
    resume_at_end: bool
    resume_token: bytes | None
    allow_inexact: bool
    version: str
    watch: Watch | None
    set_state: Sequence[StateChange]


@dataclass(frozen=True)
class TagStreamEnd:
    """How a stream of tags ended. tokens: number labelled. Times in seconds, from the first token.

    handed_over: the server stops before the caller has sent its last token; it has answered
    requests_read requests. Only without failover. After a failover, tokens are those of all calls,
    unknown_symbols those that servers reported at their ends, and times the first reported.
    """

    tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float
    handed_over: bool = False
    requests_read: int = 0


@dataclass(frozen=True)
class TagChunk:
    """One message of a stream of tags; end: in the last one."""

    tokens: list[TaggedToken]
    resume_points: list[ResumePoint]
    end: TagStreamEnd | None


def to_start(model: str, options: TagStreamOptions) -> pb.StreamTagStart:
    """Raises ValueError for a number its field cannot hold."""
    rest: dict[str, Any] = dict(options)
    watch = rest.pop("watch", None)
    return pb.StreamTagStart(
        model=model,
        model_version=rest.pop("version", ""),
        top_labels=rest.pop("top", 0),
        watch=None if watch is None else to_watch(watch),
        set_state=to_changes(rest.pop("set_state", ())),
        **rest,
    )


def to_request(part: Part, skip: int = 0) -> pb.StreamTagRequest:
    """skip: number of its first words that are left out."""
    if isinstance(part, str):
        return pb.StreamTagRequest(text=part)
    return pb.StreamTagRequest(words=pb.Words(words=part[skip:] if skip else part))


def to_tag_chunk(response: pb.StreamTagResponse) -> TagChunk:
    return TagChunk(
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
