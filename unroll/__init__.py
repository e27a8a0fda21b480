"""Python client of unroll.v1: ``Client`` (synchronous) and ``AsyncClient``.

The stubs lie beside it, in ``unroll.v1`` and ``unroll.inference``: whoever imports them alone,
as the service does, loads nothing of the client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unroll.channel import NO_RETRIES, RETRIES, Retries, TargetInvalid, Tls
    from unroll.clients import AsyncClient, Client
    from unroll.tag_streams import TagPiece, TagStreamEnd, TagStreamOptions
    from unroll.types import (
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

_HOMES = {
    "NO_RETRIES": "unroll.channel",
    "RETRIES": "unroll.channel",
    "Retries": "unroll.channel",
    "TargetInvalid": "unroll.channel",
    "Tls": "unroll.channel",
    "AsyncClient": "unroll.clients",
    "Client": "unroll.clients",
    "TagPiece": "unroll.tag_streams",
    "TagStreamEnd": "unroll.tag_streams",
    "TagStreamOptions": "unroll.tag_streams",
    "Answer": "unroll.types",
    "Beam": "unroll.types",
    "Classification": "unroll.types",
    "FilledBlank": "unroll.types",
    "GenerateOptions": "unroll.types",
    "Piece": "unroll.types",
    "RequestFailed": "unroll.types",
    "ResumePoint": "unroll.types",
    "SampleEnd": "unroll.types",
    "Sampling": "unroll.types",
    "ScoredText": "unroll.types",
    "TaggedText": "unroll.types",
    "TaggedToken": "unroll.types",
    "Token": "unroll.types",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
