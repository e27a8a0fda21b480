"""gzip of what is answered, where the caller takes it and it is worth its time."""

from __future__ import annotations

import asyncio
import gzip

GZIP = b"gzip"
# Less than that is about as long compressed; more than that is compressed on a thread.
_LEAST_BYTES, _INLINE_BYTES = 1_024, 16_384
# The fastest, which costs half of what the default does for about a tenth more bytes.
_LEVEL = 1


def takes_gzip(accepted: bytes) -> bool:
    """accepted: a header such as Accept-Encoding."""
    for part in accepted.lower().split(b","):
        name, _, quality = part.strip().partition(b";")
        if name.strip() == GZIP:
            return quality.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def is_worth_it(data: bytes) -> bool:
    return len(data) >= _LEAST_BYTES


async def compressed(data: bytes) -> bytes:
    if len(data) <= _INLINE_BYTES:
        return gzip.compress(data, _LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, data, _LEVEL, mtime=0)
