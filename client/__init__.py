"""Python client of unroll.v1: ``Client`` (synchronous) and ``AsyncClient``."""

from client.channel import NO_RETRIES, RETRIES, Retries, TargetInvalid, Tls
from client.clients import AsyncClient, Client
from client.tag_streams import TagPiece, TagStreamEnd, TagStreamOptions
from client.types import (
    Answer,
    Beam,
    Classification,
    FilledBlank,
    GenerateOptions,
    Piece,
    RequestFailed,
    ResumePoint,
    SampleEnd,
    Sampling,
    ScoredText,
    TaggedText,
    TaggedToken,
    Token,
)

__all__ = [
    "NO_RETRIES",
    "RETRIES",
    "Answer",
    "AsyncClient",
    "Beam",
    "Classification",
    "Client",
    "FilledBlank",
    "GenerateOptions",
    "Piece",
    "RequestFailed",
    "ResumePoint",
    "Retries",
    "SampleEnd",
    "Sampling",
    "ScoredText",
    "TagPiece",
    "TagStreamEnd",
    "TagStreamOptions",
    "TaggedText",
    "TaggedToken",
    "TargetInvalid",
    "Tls",
    "Token",
]
