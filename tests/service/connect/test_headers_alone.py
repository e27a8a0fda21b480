"""The relay serves requests without a body, whose receive() is no future."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from service.envoy.frames import Kind
from service.envoy.relay import Relay

SCOPE = {
    "method": "GET",
    "raw_path": b"/",
    "query_string": b"",
    "http_version": "1.1",
    "scheme": "http",
    "headers": [],
}


class Value:
    """An awaitable that has its event already, as pyvoy's is."""

    def __init__(self, event: dict[str, Any]) -> None:
        self._event = event

    def __await__(self) -> Generator[None, None, dict[str, Any]]:
        yield from ()
        return self._event


def test_a_call_without_a_body_is_relayed_and_watched_until_its_caller_leaves():
    async def run() -> list[int]:
        relay, posted, has_left = Relay(lambda: None), [], False
        relay.post = lambda frame: posted.append(frame[8])

        def receive() -> Value:
            gone = {"type": "http.disconnect"}
            return Value(gone if has_left else {"type": "http.request", "body": b""})

        async def send(event: dict[str, Any]) -> None:
            raise AssertionError(f"nothing is answered: {event}")

        serving = asyncio.create_task(relay.serve(SCOPE, receive, send))
        await asyncio.sleep(0.3)  # several looks whether the caller is there
        assert not serving.done()
        has_left = True
        await asyncio.wait_for(serving, 10)
        return posted

    assert asyncio.run(run()) == [Kind.OPEN, Kind.BODY_END, Kind.GONE]
