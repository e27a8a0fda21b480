"""Files of resume tokens: where a command's stream ended, for a state to be made of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from unroll.step_streams import StepChunk
from unroll.tag_streams import TagChunk
from unroll.types import OptionInvalid

Resumable = TypeVar("Resumable", StepChunk, TagChunk)


def with_token_kept(chunks: Iterable[Resumable], file: str | None) -> Iterator[Resumable]:
    """``chunks``, after the last of which the file holds the last resume token; None for no file.

    Raises OptionInvalid for a file that cannot be written, before anything is read, and where there
    is no token.
    """
    if file is not None:
        _write(file, b"", "ab")
    token = b""
    for chunk in chunks:
        for point in chunk.resume_points:
            token = point.token
        yield chunk
    if file is not None:
        if not token:
            raise OptionInvalid("the stream had no input, so there is no resume token to keep")
        _write(file, token, "wb")


def _write(file: str, content: bytes, mode: str) -> None:
    try:
        with open(file, mode) as opened:
            opened.write(content)
    except OSError as error:
        raise OptionInvalid(f"--resume-out: {file} cannot be written ({error.strerror})") from error


def read_token(file: str | None) -> bytes | None:
    """``-`` for standard input; None for no file. Raises OptionInvalid."""
    if file is None:
        return None
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise OptionInvalid(f"--resume-token: {file} cannot be read ({error.strerror})") from error
