"""REST as a protocol of the port: each request becomes a call of GRPCInferenceService."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from service.access.codes import Code
from service.access.memory_budget import ANSWERS, REQUESTS, MemoryBudget
from service.asgi.events import Headers, Receive, Scope, Send, header
from service.asgi.http import HttpCalls, headers_of, http_status
from service.asgi.request import Body
from service.engine.errors import RequestError, WrongInput
from service.oip.adapters import ModelAdapter
from service.oip.infer import InferHandler
from service.rest import routes
from service.rest.control import Groups, Operation
from service.rest.encoding import encoded
from service.rest.generate import read_generate, write_generate
from service.rest.infer_request import WantedForm, read_infer
from service.rest.infer_response import element_count, response_bytes, write_infer
from service.rest.json_body import parsed_bytes, read_object, written
from service.rest.openapi import document
from service.rest.routes import Generate, Infer
from service.rpc.status import OK, Status, status_of
from service.services import INFER_STREAM_OF_ONE, INFERENCE
from service.serving.inputs import off_loop
from unroll.inference import grpc_service_pb2 as pb

_HEADER_LENGTH = "inference-header-content-length"
_JSON, _BINARY = b"application/json", b"application/octet-stream"
_EVENTS = b"text/event-stream; charset=utf-8"
_STREAM_HEADERS: Headers = [(b"content-type", _EVENTS), (b"cache-control", b"no-cache")]
# Of a body, handed on at once.
_PART_BYTES = 65_536
# The last event of a stream that failed, for a caller that may not be reading.
_LAST_EVENT_SECONDS = 5.0

Made = TypeVar("Made")


class RestProtocol:
    """handler: knows the models whose tensors ``generate`` needs. budget: of the bytes that
    requests and answers take."""

    def __init__(self, calls: HttpCalls, handler: InferHandler, budget: MemoryBudget) -> None:
        self._calls = calls
        self._handler = handler
        self._budget = budget

    def openapi(self) -> dict[str, Any]:
        """As Described has it."""
        return document()

    def speaks(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path == routes.PREFIX or path.startswith(f"{routes.PREFIX}/")

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send)
        route = routes.find(scope["raw_path"].decode("latin-1"))
        if route is None:
            await exchange.answer(404, {"error": f"there is nothing at {scope['path'][:200]!r}"})
            return
        target = route.by_method.get("GET" if exchange.is_head else scope["method"])
        if target is None:
            allowed = ", ".join(route.by_method)
            error = {"error": f"this path takes {allowed}, not {scope['method'][:20]}"}
            await exchange.answer(405, error, [(b"allow", allowed.encode())])
        elif isinstance(target, Operation):
            await self._operate(exchange, target, route.groups)
        elif isinstance(target, Infer):
            await self._infer(exchange, route.groups)
        elif target.is_stream:
            await self._generate_stream(exchange, target, route.groups)
        else:
            await self._generate(exchange, target, route.groups)

    # -- everything but inference --------------------------------------------------------------

    async def _operate(self, exchange: _Exchange, operation: Operation, groups: Groups) -> None:
        async def read(body: Body) -> Message:
            if exchange.scope["method"] != "POST":
                return operation.request(groups, {})
            return await self._read(
                exchange, body, lambda data: operation.request(groups, read_object(data))
            )

        response, status = await self._call(exchange, operation.rpc, read)
        if response is None:
            await exchange.refuse(status)
        else:
            await exchange.answer(*operation.answer(groups, response))

    async def _read(self, exchange: _Exchange, body: Body, make: Callable[[bytes], Made]) -> Made:
        """What ``make`` makes of the body, which is charged with all that takes."""
        data = await body.whole(exchange.content_encoding)
        with self._budget.reserve(REQUESTS, parsed_bytes(data)):
            return await off_loop(len(data), lambda: _made(make, data))

    async def _call(
        self, exchange: _Exchange, rpc: str, read: Callable[[Body], Any]
    ) -> tuple[Any, Status]:
        path = f"/{INFERENCE}/{rpc}"
        return await self._calls.call(exchange.scope, exchange.receive, path, read, _nobody)

    # -- inference -----------------------------------------------------------------------------

    async def _infer(self, exchange: _Exchange, groups: Groups) -> None:
        wanted = WantedForm()

        async def read(body: Body) -> Message:
            nonlocal wanted
            length = _header_length(exchange.scope)
            name, version = groups["name"], groups.get("version", "")
            request, wanted = await self._read(
                exchange, body, lambda data: read_infer(name, version, data, length)
            )
            return request

        response, status = await self._call(exchange, "ModelInfer", read)
        if response is None:
            await exchange.refuse(status)
            return

        async def answer() -> None:
            made = await off_loop(element_count(response), lambda: write_infer(response, wanted))
            if made.json_bytes is None:
                await exchange.send_body(200, made.content, _JSON)
            else:
                headers = [(_HEADER_LENGTH.encode(), b"%d" % made.json_bytes)]
                await exchange.send_body(200, made.content, _BINARY, headers)

        await self._answer_charged(exchange, response, answer)

    async def _answer_charged(
        self, exchange: _Exchange, response: pb.ModelInferResponse, answer: Callable[[], Any]
    ) -> None:
        """The call has ended well, and its message is charged; its JSON takes more than that."""
        try:
            with self._budget.reserve(ANSWERS, response_bytes(response)):
                await answer()
        except RequestError as error:
            await exchange.refuse(status_of(error))

    async def _read_generate(
        self, exchange: _Exchange, body: Body, target: Generate, groups: Groups
    ) -> tuple[pb.ModelInferRequest, ModelAdapter]:
        name, version = groups["name"], groups.get("version", "")
        _, adapter = self._handler.find(name, version)
        request = await self._read(
            exchange,
            body,
            lambda data: read_generate(name, version, data, adapter, target.is_stream),
        )
        return request, adapter

    async def _generate(self, exchange: _Exchange, target: Generate, groups: Groups) -> None:
        adapter: ModelAdapter | None = None

        async def read(body: Body) -> Message:
            nonlocal adapter
            request, adapter = await self._read_generate(exchange, body, target, groups)
            return request

        response, status = await self._call(exchange, "ModelInfer", read)
        if response is None:
            await exchange.refuse(status)
            return
        assert adapter is not None, "what was answered was read"
        outputs = adapter.outputs

        async def answer() -> None:
            make = lambda: written(write_generate(response, outputs))  # noqa: E731
            content = await off_loop(element_count(response), make)
            await exchange.send_body(200, content, _JSON)

        await self._answer_charged(exchange, response, answer)

    async def _generate_stream(self, exchange: _Exchange, target: Generate, groups: Groups) -> None:
        adapter: ModelAdapter | None = None
        events = _Events(exchange)

        async def read(body: Body) -> Message:
            nonlocal adapter
            request, adapter = await self._read_generate(exchange, body, target, groups)
            return request

        async def write(response: Message) -> None:
            assert adapter is not None, "what is answered was read"
            assert isinstance(response, pb.ModelInferResponse)
            await events.write(write_generate(response, adapter.outputs))

        _, status = await self._calls.call(
            exchange.scope, exchange.receive, INFER_STREAM_OF_ONE, read, write
        )
        await events.end(status)


@dataclass
class _Exchange:
    """A request of HTTP and its response."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def is_head(self) -> bool:
        """HEAD is GET, and nothing but the headers is sent."""
        return bool(self.scope["method"] == "HEAD")

    @property
    def content_encoding(self) -> bytes:
        encoding = header(self.scope, b"content-encoding").strip().lower()
        return b"" if encoding == b"identity" else encoding

    async def answer(self, status: int, found: Any, headers: Headers | None = None) -> None:
        """found: None for a response without a body."""
        await self.send_body(status, b"" if found is None else written(found), _JSON, headers)

    async def refuse(self, status: Status) -> None:
        headers = headers_of(status)
        if status.code is Code.UNAUTHENTICATED:
            headers = [*headers, (b"www-authenticate", b"Bearer")]
        await self.answer(_status_of(status), {"error": status.message}, headers)

    async def send_body(
        self, status: int, content: bytes, content_type: bytes, headers: Headers | None = None
    ) -> None:
        body, more = await encoded(self.scope, content)
        every = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            *more,
            *(headers or ()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": every})
        last = max(0, len(body) - 1) // _PART_BYTES * _PART_BYTES
        for place in range(0, 0 if self.is_head else last, _PART_BYTES):
            part = body[place : place + _PART_BYTES]
            await self.send({"type": "http.response.body", "body": part, "more_body": True})
        rest = b"" if self.is_head else body[last:]
        await self.send({"type": "http.response.body", "body": rest, "more_body": False})


class _Events:
    """Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._has_started = False

    async def write(self, found: Any) -> None:
        if not self._has_started:
            self._has_started = True
            start = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
            await self._exchange.send(start)
        # No line of JSON holds a line break, which would end the event.
        await self._body(b"data: %b\n\n" % written(found), True)

    async def end(self, status: Status) -> None:
        """A refusal before the first event is one as of any request; later it is an event."""
        if status is not OK and not self._has_started:
            await self._exchange.refuse(status)
            return
        try:
            async with asyncio.timeout(_LAST_EVENT_SECONDS):
                if status is not OK:
                    await self.write({"error": status.message})
                await self._body(b"", False)
        except TimeoutError:
            pass  # nobody reads it: the response is cut off, as its connection is

    async def _body(self, body: bytes, has_more: bool) -> None:
        event = {"type": "http.response.body", "body": body, "more_body": has_more}
        await self._exchange.send(event)


def _status_of(status: Status) -> int:
    """That of its code, but where sending the same again is of no use: clients try 429 again."""
    if status.code is Code.RESOURCE_EXHAUSTED and status.retry_after_seconds is None:
        return 413
    return http_status(status)


def _made(make: Callable[[bytes], Made], data: bytes) -> Made:
    """Raises WrongInput for what is nested too deeply to be gone through, too."""
    try:
        return make(data)
    except RecursionError as error:
        raise WrongInput("the request is nested too deeply; send less within less") from error


def _header_length(scope: Scope) -> int | None:
    """Raises WrongInput."""
    text = header(scope, _HEADER_LENGTH.encode())
    if not text:
        return None
    if not (text.isdigit() and len(text) <= 10):
        raise WrongInput(
            f"Inference-Header-Content-Length is {text[:80].decode('latin-1')!r}; send the length "
            "of the request's JSON in bytes"
        )
    return int(text)


async def _nobody(message: Message) -> None:
    raise AssertionError("a method with one response writes none")
