"""Python client of unroll.v1: ``Client`` (synchronous) and ``AsyncClient``."""

from client.clients import AsyncClient, Client
from client.results import (
    Answer,
    Beam,
    Classification,
    GenerateOptions,
    Piece,
    RequestFailed,
    ResumePoint,
    SampleEnd,
    Sampling,
    ScoredText,
    Token,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Beam",
    "Classification",
    "Client",
    "GenerateOptions",
    "Piece",
    "RequestFailed",
    "ResumePoint",
    "SampleEnd",
    "Sampling",
    "ScoredText",
    "Token",
]
