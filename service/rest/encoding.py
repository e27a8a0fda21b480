"""Compressed responses, for callers that take them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from service.asgi.events import Headers, Scope, header
from service.serving.inputs import off_loop

# What is smaller does not get smaller by as much as its header takes.
_LEAST_BYTES = 1024
_LEVEL = 1
# In the order of preference; zlib's window bits of each.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


def accepted(scope: Scope) -> str:
    """The encoding that ``accept-encoding`` allows a response; empty for none."""
    weights = {}
    for part in header(scope, b"accept-encoding").decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter)
    others = weights.get("*", 0.0)
    best = max(_WINDOW_BITS, key=lambda name: weights.get(name, others))
    return best if weights.get(best, others) > 0 else ""


def _weight(parameter: str) -> float:
    """RFC 9110, section 12.4.2; what cannot be read is no preference."""
    name, _, value = parameter.strip().partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 1.0


async def encoded(scope: Scope, body: bytes) -> tuple[bytes, Headers]:
    """The body as it is sent, and the headers that say so."""
    encoding = accepted(scope)
    if not encoding or len(body) < _LEAST_BYTES:
        return body, []
    compressed = await off_loop(len(body), _compress(body, _WINDOW_BITS[encoding]))
    headers = [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    return compressed, headers


def _compress(body: bytes, window_bits: int) -> Callable[[], bytes]:
    def compress() -> bytes:
        compressing = zlib.compressobj(_LEVEL, wbits=window_bits)
        return compressing.compress(body) + compressing.flush()

    return compress
