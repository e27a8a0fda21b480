"""What a front end costs with nothing behind it: servers that return the bytes of a request.

python -m bench.peers.echo serves with grpc.aio; ``app`` is the same as an ASGI application, for
pyvoy. Neither parses or makes a message.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

CALL, STREAM = "/bench.Echo/Call", "/bench.Echo/Stream"
# What a stream returns the request's message as often as.
MESSAGES = 128

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Of gRPC over HTTP/2: whether the message is compressed, and its length, big-endian.
_PREFIX = struct.Struct(">BI")
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
_END = {"type": "http.response.body", "body": b"", "more_body": False}
_TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """ASGI 3, with the extension http.response.trailers."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    message = _body_of(await _read(receive))
    chunk = {"type": "http.response.body", "body": _framed(message), "more_body": True}
    await send(_START)
    for _ in range(MESSAGES if scope["path"] == STREAM else 1):
        await send(chunk)
    await send(_END)
    await send(_TRAILERS)


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _read(receive: Receive) -> bytes:
    event = await receive()
    body: bytes = event.get("body", b"")
    while event.get("more_body"):
        event = await receive()
        body += event.get("body", b"")
    return body


def _body_of(framed: bytes) -> bytes:
    return framed[_PREFIX.size :]


def _framed(message: bytes) -> bytes:
    return _PREFIX.pack(0, len(message)) + message


async def _call(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return request


async def _stream(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    for _ in range(MESSAGES):
        yield request


async def serve() -> None:
    """With grpc.aio on a free port, until the process is ended."""
    server = grpc.aio.server()
    service, method = CALL.strip("/").split("/")
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(_call),
        STREAM.rsplit("/", 1)[1]: grpc.unary_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: gRPC on port {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
