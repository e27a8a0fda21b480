"""Within Envoy: several workers behind one port, and which of them a call goes to.

The process that started Envoy sends a socket to each worker over one of its own, with orders as
JSON, a datagram each: add (with the socket), rest and wake (no calls for now, and again), ping
(which is answered), stop.

A call goes to the worker with the fewest open calls, so that one connection with many calls uses
all of them. Requests that may belong to a sequence of the Open Inference Protocol are bound to
their connection instead: its state is kept by one worker.

Imported within Envoy: nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import OrderedDict, deque
from collections.abc import Awaitable
from functools import partial
from typing import Any

from service.envoy.relay import (
    LINGER_SECONDS,
    RESET,
    Receive,
    Relay,
    Scope,
    Send,
    ServiceLost,
    end_envoy,
)

# Of an order's datagram, which brings one socket at most.
_MOST_ORDER_BYTES = 4096
# Connections whose worker is remembered: as many as Envoy may have, and some that have closed.
_MOST_BOUND = 8192

# For the beginning of a request's body, before it is bound unseen: a caller may wait for headers
# before it sends anything.
_FIRST_SECONDS = 0.05
# Methods and paths that take sequences end so: ModelInfer, ModelStreamInfer, …/infer.
_TAKES_SEQUENCES = b"nfer"
# The name of the parameter stands in the request as it is, in protobuf as in JSON.
_SEQUENCE = b"sequence_id"
_ENCODINGS = (b"grpc-encoding", b"content-encoding", b"connect-content-encoding")
_PLAIN = (b"identity", b"")

_LOST = "the worker that served the call has ended; send the request again"
_NONE = "no worker is ready; send the request again"
_UNAVAILABLE = b"14"

Peer = tuple[str, int] | None
Event = dict[str, Any]


class Balancer:
    """A Server over workers that come and go. orders: the socket that brings them."""

    def __init__(self, orders: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders = orders
        orders.setblocking(False)
        self._loop.add_reader(orders, self._read_orders)
        # By number of the worker, all and those that take calls now.
        self._workers: dict[int, Relay] = {}
        self._awake: dict[int, Relay] = {}
        self._bound: OrderedDict[Peer, int] = OrderedDict()
        self._turn = 0
        # Calls whose first bytes have not come, by when they are waited for no more.
        self._unbegun: deque[tuple[float, asyncio.Future[None]]] = deque()

    def tell_port(self, port: int) -> None:
        self._orders.send(json.dumps({"listening": port}).encode())

    # -- orders --------------------------------------------------------------------------------

    def _read_orders(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._orders, _MOST_ORDER_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # whoever started Envoy has ended
                self._loop.remove_reader(self._orders)
                end_envoy()
                return
            order = json.loads(data)
            if order["do"] == "add":
                self._loop.create_task(self._add(order["worker"], descriptors[0]))
            elif order["do"] == "ping":
                self._orders.send(b"{}")
            elif order["do"] == "stop":
                self._loop.call_later(LINGER_SECONDS, end_envoy)
            else:
                self._set_awake(order["worker"], order["do"] == "wake")

    async def _add(self, number: int, descriptor: int) -> None:
        relay: Relay | None = None

        def ended() -> None:
            self._drop(number, relay)

        _, relay = await self._loop.create_connection(
            lambda: Relay(ended), sock=socket.socket(fileno=descriptor)
        )
        self._workers[number] = self._awake[number] = relay

    def _set_awake(self, number: int, is_awake: bool) -> None:
        if is_awake and number in self._workers:
            self._awake[number] = self._workers[number]
        elif not is_awake:
            self._awake.pop(number, None)

    def _drop(self, number: int, relay: Relay | None) -> None:
        """A worker has ended; its calls end, those of others go on."""
        for workers in (self._workers, self._awake):
            if workers.get(number) is relay:
                del workers[number]
        for call in list(relay.calls.values()) if relay else ():
            call.lose()

    # -- calls ---------------------------------------------------------------------------------

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _TAKES_SEQUENCES in scope["raw_path"]:
            first = _future(receive())
            if not first.done():
                await self._begun(first)
            may_be_bound = _may_be_of_sequence(scope, first)
            relay = self._of_connection(scope["client"]) if may_be_bound else self._least()
            receive = _again(first, receive)
        else:
            relay = self._least()
        if relay is None:
            await _answer_unavailable(scope, send, None, _NONE)
            return
        try:
            await relay.serve(scope, receive, send)
        except ServiceLost as lost:
            await _answer_unavailable(scope, send, lost.has_trailers, _LOST)

    def _begun(self, first: asyncio.Future[Event]) -> asyncio.Future[None]:
        """Done once ``first`` is, or has taken too long. One timer for all: calls are many."""
        begun = self._loop.create_future()
        first.add_done_callback(partial(_settle, begun))
        if not self._unbegun:
            self._loop.call_later(_FIRST_SECONDS, self._give_up)
        self._unbegun.append((self._loop.time() + _FIRST_SECONDS, begun))
        return begun

    def _give_up(self) -> None:
        now = self._loop.time()
        while self._unbegun and (self._unbegun[0][1].done() or self._unbegun[0][0] <= now):
            _settle(self._unbegun.popleft()[1])
        if self._unbegun:
            self._loop.call_at(self._unbegun[0][0], self._give_up)

    def _least(self) -> Relay | None:
        """With the fewest open calls; among equals, each in its turn."""
        awake = list(self._awake.values())
        if not awake:
            return None
        self._turn = turn = (self._turn + 1) % len(awake)
        return min(awake[turn:] + awake[:turn], key=_open_calls)

    def _of_connection(self, peer: Peer) -> Relay | None:
        """Always the same one, as long as it runs."""
        number = self._bound.get(peer)
        if number is None or number not in self._workers:
            relay = self._least()
            if relay is None:
                return None
            number = next(n for n, found in self._awake.items() if found is relay)
            self._bound[peer] = number
            if len(self._bound) > _MOST_BOUND:
                self._bound.popitem(last=False)
        self._bound.move_to_end(peer)
        return self._workers[number]


def _open_calls(relay: Relay) -> int:
    return len(relay.calls)


def _may_be_of_sequence(scope: Scope, first: asyncio.Future[Event]) -> bool:
    """Whether a request names a sequence, or may do so where it is not seen: in what is
    compressed, masked (a WebSocket's frames) or yet to come."""
    if not first.done():
        return True
    event = first.result()
    if event["type"] != "http.request":
        return False
    # In protobuf parameters come before tensors.
    if event.get("more_body", False) and not _is_grpc(scope):
        return True
    if _SEQUENCE in event.get("body", b""):
        return True
    return any(
        (name in _ENCODINGS and value not in _PLAIN) or name == b"sec-websocket-key"
        for name, value in scope["headers"]
    )


def _settle(begun: asyncio.Future[None], _: object = None) -> None:
    if not begun.done():
        begun.set_result(None)


def _future(event: Awaitable[Event]) -> asyncio.Future[Event]:
    # Of a request without a body the event is there already, and no future.
    return event if asyncio.isfuture(event) else asyncio.ensure_future(event)


def _again(first: asyncio.Future[Event], receive: Receive) -> Receive:
    """``receive``, with the event that was asked for already before all others."""
    pending = [first]

    def receive_again() -> Awaitable[Event]:
        return pending.pop() if pending else receive()

    return receive_again


def _is_grpc(scope: Scope) -> bool:
    kind: bytes = next((v for name, v in scope["headers"] if name == b"content-type"), b"")
    return kind.startswith(b"application/grpc") and not kind.startswith(b"application/grpc-web")


async def _answer_unavailable(
    scope: Scope, send: Send, has_trailers: bool | None, message: str
) -> None:
    """As the response has it that has started; None for none yet.

    Raises ConnectionAbortedError where nothing but a reset can say so.
    """
    put = partial(_put, send)
    if has_trailers is None and not _is_grpc(scope):
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
        await put(type="http.response.start", status=503, headers=headers)
        await put(type="http.response.body", body=message.encode() + b"\n", more_body=False)
        return
    if has_trailers is False:
        raise ConnectionAbortedError(RESET)
    if has_trailers is None:
        headers = [(b"content-type", b"application/grpc")]
        await put(type="http.response.start", status=200, headers=headers, trailers=True)
    await put(type="http.response.body", body=b"", more_body=False)
    status = [(b"grpc-status", _UNAVAILABLE), (b"grpc-message", message.encode())]
    await put(type="http.response.trailers", headers=status, more_trailers=False)


async def _put(send: Send, **event: Any) -> None:
    sent = send(event)
    if sent is not None:  # pyvoy's is a future where it has to wait, else nothing
        await sent
