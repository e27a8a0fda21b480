"""A client of WebSocket that sends what it is told to, well formed or not."""

from __future__ import annotations

import json
import os
import socket
from base64 import b64encode
from hashlib import sha1
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Refused(Exception):
    """status: of HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


def frame(opcode: int, payload: bytes, is_last: bool = True, mask: bytes | None = None) -> bytes:
    """Masked, as a client's are. mask: of four bytes, None for random ones."""
    mask = mask or os.urandom(4)
    size = len(payload)
    if size < 126:
        head = bytes((0x80 * is_last | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 * is_last | opcode, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 * is_last | opcode, 0x80 | 127)) + size.to_bytes(8)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Socket:
    """Raises Refused where the handshake is."""

    def __init__(self, target: str, path: str, *protocols: str, **headers: str) -> None:
        host, _, port = target.partition(":")
        self._connection = socket.create_connection((host, int(port)), 20)
        self._key = b64encode(os.urandom(16)).decode()
        named = {
            "host": target,
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-key": self._key,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if protocols:
            named["sec-websocket-protocol"] = ", ".join(protocols)
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {named[name]}" for name in named), "", ""]
        self._connection.sendall("\r\n".join(lines).encode())
        self._incoming = self._connection.makefile("rb")
        self.headers = self._read_head()
        self.has_closed = False

    def _read_head(self) -> dict[str, str]:
        status = int(self._incoming.readline().split()[1])
        headers = {}
        while line := self._incoming.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if status != 101:
            self.end()
            raise Refused(status)
        accepted = b64encode(sha1(self._key.encode() + GUID).digest()).decode()
        assert headers["sec-websocket-accept"] == accepted
        return headers

    def send(self, message: dict[str, Any] | bytes | str) -> None:
        if isinstance(message, bytes):
            self.send_raw(frame(BINARY, message))
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            self.send_raw(frame(TEXT, text.encode()))

    def close(self, code: int) -> None:
        self.has_closed = True
        self.send_raw(frame(CLOSE, code.to_bytes(2) + b"enough"))

    def send_raw(self, data: bytes) -> None:
        self._connection.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The kind of a frame, which is never in parts, and what it holds."""
        first, size = self._incoming.read(2)
        assert first & 0xF0 == 0x80
        if size > 125:
            size = int.from_bytes(self._incoming.read(2 if size == 126 else 8))
        return first & 0x0F, self._incoming.read(size)

    def until_closed(self, shuts: bool) -> bytes:
        """Whatever still comes. shuts: nothing more is sent, and the server is to see it."""
        if shuts:
            self._connection.shutdown(socket.SHUT_WR)
        try:
            return self._incoming.read()
        finally:
            self.end()

    def rest(self, waits: bool = True) -> tuple[list[Any], int, str]:
        """The messages to the end, JSON read; the close's code and reason.

        waits: for the server to close the connection.
        """
        messages: list[Any] = []
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                if not self.has_closed:
                    self.send_raw(frame(CLOSE, payload[:2]))
                assert not waits or self._incoming.read() == b"", "more after the close"
                self.end()
                return messages, int.from_bytes(payload[:2]), payload[2:].decode()
            messages.append(json.loads(payload) if opcode == TEXT else payload)

    def end(self) -> None:
        self._incoming.close()
        self._connection.close()
