"""Python client of unroll.v1: ``Client`` (synchronous) and ``AsyncClient``."""

from client.clients import AsyncClient, Client
from client.results import (
    Answer,
    Classification,
    Piece,
    RequestFailed,
    Sampling,
    ScoredText,
    Token,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Classification",
    "Client",
    "Piece",
    "RequestFailed",
    "Sampling",
    "ScoredText",
    "Token",
]
