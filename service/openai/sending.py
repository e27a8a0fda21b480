"""JSON to callers, in parts that each have their time: nothing here waits forever to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.asgi.events import Event, Headers, Send

_PART = 65_536


def patient(send: Send, seconds: float) -> Send:
    """``send`` for what follows a call, which has no limit any more. Each event has ``seconds``.

    What it returns raises TimeoutError.
    """

    async def send_within(event: Event) -> None:
        async with asyncio.timeout(seconds):
            await send(event)

    return send_within


async def send_json(
    send: Send, status: int, body: bytes, more_headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *more_headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for at in range(0, len(body), _PART):
        has_more = at + _PART < len(body)
        part = body[at : at + _PART]
        await send({"type": "http.response.body", "body": part, "more_body": has_more})
