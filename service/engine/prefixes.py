"""Prompts and sources whose beginnings were read before: what an engine asks of a prefix cache.

A state is the same bits however what led to it was cut into chunks, and whatever was read beside
it: that is what the probe at load finds, and what a cache of states rests on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.engine.requests import State

# Fewer tokens are not worth a place in the cache, nor a prompt's being cut for them: to read so
# many takes about as long as to run the graph once more.
LEAST_TOKENS = 16
# So far apart states are kept while a prompt is read, at the ends of its chunks.
BETWEEN_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Found:
    """count: tokens that need not be read. state: after them; None where there are none. shared:
    tokens that others began with too, which may be more."""

    count: int
    state: State | None
    shared: int


class Prefixes(Protocol):
    """The states of one model. For the engine's thread."""

    def find(self, caller: str, path: bytes, whole: bool) -> Found:
        """What is known of a path for a caller. whole: of all of it, or nothing."""

    def keep(self, caller: str, path: bytes, state: State) -> None:
        """The state after a path; it must not be written to any more."""


@dataclass(slots=True)
class PrefixLookup:
    """A prompt that was looked up. path: all of it. kept: tokens up to the last state in the cache,
    or up to its beginning."""

    caller: str
    path: bytes
    kept: int = 0
