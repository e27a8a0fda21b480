"""Bugs that are planted into a service, so that the checks can be seen to find them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from service.engine.requests import TokenMade, TokensMade
from service.serving.model_manager import ModelControl
from service.serving.output_stream import TokenStream
from service.serving.resume_token import ResumeTokens
from service.serving.sequences import Sequences
from service.serving.worker import EngineThread

EVERY = 5


def _sometimes() -> Callable[[], bool]:
    counter = itertools.count(1)
    return lambda: next(counter) % EVERY == 0


@contextmanager
def drop_token() -> Iterator[None]:
    """A token of a stream is lost on its way."""
    put, is_time = TokenStream.put, _sometimes()

    def lossy(stream: TokenStream, event: Any) -> None:
        if type(event) is TokensMade:
            for made in event.one_by_one():
                lossy(stream, made)
        elif not (type(event) is TokenMade and event.position == 7 and is_time()):
            put(stream, event)

    with patch.object(TokenStream, "put", lossy):
        yield


@contextmanager
def keep_row() -> Iterator[None]:
    """A call that ended keeps its place in the engine."""
    release, is_time = EngineThread.release, _sometimes()

    def forgetful(thread: EngineThread, work: Any, size: int = 1) -> None:
        if not is_time():
            release(thread, work, size)

    with patch.object(EngineThread, "release", forgetful):
        yield


@contextmanager
def go_on_too_late() -> Iterator[None]:
    """A resumed stream skips a token."""
    opened = ResumeTokens.open

    def skipping(tokens: ResumeTokens, *arguments: Any) -> Any:
        snapshot = opened(tokens, *arguments)
        object.__setattr__(snapshot, "made", snapshot.made + 1)
        return snapshot

    with patch.object(ResumeTokens, "open", skipping):
        yield


@contextmanager
def stale_sequence() -> Iterator[None]:
    """A sequence goes on from the state before its last request."""
    keep, is_time = Sequences._keep, _sometimes()

    def stale(sequences: Sequences, key: Any, sequence: Any, version: Any, state: Any) -> None:
        is_first = sequence.state is None
        keep(sequences, key, sequence, version, state)
        if not is_first and state is not None and is_time():
            sequence.state = sequence.before
        sequence.before = sequence.state

    with patch.object(Sequences, "_keep", stale):
        yield


@contextmanager
def half_load() -> Iterator[None]:
    """A model is removed before what replaces it is ready."""
    prepare = ModelControl._prepare

    async def hasty(control: ModelControl, name: str, folders: Any) -> Any:
        if control.registry.versions(name):
            control.registry.withdraw(name)
            await asyncio.sleep(0.05)
        return await prepare(control, name, folders)

    with patch.object(ModelControl, "_prepare", hasty):
        yield


BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    bug.__name__: bug for bug in (drop_token, keep_row, go_on_too_late, stale_sequence, half_load)
}
