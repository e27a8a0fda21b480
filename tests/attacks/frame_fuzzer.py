"""Random frames, valid and not, drawn from a seed: what one connection sends, as steps of bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.attacks.frames import PREFACE, header_block
from unroll.v1 import unroll_pb2 as pb

_UNROLL = "/unroll.v1.UnrollService"
# Calls that work, so that what is done to them meets work under way.
_CALLS = [
    (f"{_UNROLL}/Classify", pb.ClassifyRequest(model="nationality", texts=["Ada"])),
    (f"{_UNROLL}/ListModels", pb.ListModelsRequest()),
    (f"{_UNROLL}/Generate", pb.GenerateRequest(model="prose", prompt="In the", max_tokens=200)),
    (f"{_UNROLL}/StreamTag", pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online"))),
    ("/inference.GRPCInferenceService/ModelStreamInfer", pb.ListModelsRequest()),
    ("/grpc.health.v1.Health/Watch", pb.ListModelsRequest()),
    ("/nobody/knows", pb.ListModelsRequest()),
]
_ODD_HEADERS = [
    ("grpc-timeout", "1m"), ("grpc-timeout", "-5x"), ("grpc-encoding", "gzip"),
    ("content-length", "3"), ("x-bin", "!"), ("grpc-encoding", "nobody"), ("Upper", "case"),
    ("connection", "close"), (":late", "pseudo"), ("x", "\x00\r\n"),
]  # fmt: skip
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED = 0x4, 0x8
_KINDS = 12  # of frames, two of them unknown
_MOST_STEPS = 30


class FrameFuzzer:
    """Draws connections: draw(number) is always the same for one seed."""

    def __init__(self, seed: str) -> None:
        self.seed = seed

    def draw(self, number: int) -> list[bytes]:
        """What connection ``number`` sends, in the steps in which it does."""
        drawing = _Drawing(random.Random(f"{self.seed}/{number}"))
        return drawing.connection()


class _Drawing:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next = 1

    def connection(self) -> list[bytes]:
        opening = PREFACE + (self._settings() if self._rng.random() < 0.9 else b"")
        steps = [self._step() for _ in range(self._rng.randint(3, _MOST_STEPS))]
        if self._rng.random() < 0.1:
            opening = self._mutated(opening)
        if self._rng.random() < 0.3:
            steps.append(self._truncated(self._step()))
        return [opening, *steps]

    def _step(self) -> bytes:
        makers: Sequence[Callable[[], bytes]] = (
            self._call, self._call, self._call, self._data, self._reset, self._window,
            self._settings, self._ping, self._priority, self._continuation, self._go_away,
            self._random_frame, self._trailers, self._split_headers,
        )  # fmt: skip
        made = self._rng.choice(makers)()
        return self._mutated(made) if self._rng.random() < 0.15 else made

    # -- frames of calls ------------------------------------------------------------------------

    def _call(self) -> bytes:
        path, request = self._rng.choice(_CALLS)
        number, self._next = self._next, self._next + 2
        extra = [self._rng.choice(_ODD_HEADERS)] if self._rng.random() < 0.2 else []
        flags = _END_HEADERS | (_END_STREAM if self._rng.random() < 0.1 else 0)
        headers = _frame(_HEADERS, flags, number, header_block(path, extra))
        return headers + self._body(number, request.SerializeToString())

    def _body(self, number: int, message: bytes) -> bytes:
        length = len(message) if self._rng.random() < 0.8 else self._rng.choice((0, 2**32 - 1))
        body = bytes([self._rng.random() < 0.05]) + length.to_bytes(4, "big") + message
        return self._data_frame(number, body, end=self._rng.random() < 0.7)

    def _data_frame(self, number: int, data: bytes, *, end: bool) -> bytes:
        flags = _END_STREAM if end else 0
        if self._rng.random() < 0.3:
            padding = self._rng.randint(0, 255)
            # At times there is more of it than there is frame.
            length = padding if self._rng.random() < 0.8 else 0
            data, flags = bytes([padding]) + data + bytes(length), flags | _PADDED
        return _frame(_DATA, flags, number, data)

    def _data(self) -> bytes:
        data = self._rng.randbytes(self._rng.choice((0, 1, 5, 100, 16_384)))
        return self._data_frame(self._any_call(), data, end=self._rng.random() < 0.3)

    def _reset(self) -> bytes:
        return _frame(_RESET, 0, self._any_call(), self._rng.randrange(16).to_bytes(4, "big"))

    def _trailers(self) -> bytes:
        return _frame(_HEADERS, _END_HEADERS | _END_STREAM, self._any_call(), b"\x88")

    def _split_headers(self) -> bytes:
        """Headers and their continuation, at times with a frame between that may not be there."""
        number, self._next = self._next, self._next + 2
        block = header_block(self._rng.choice(_CALLS)[0])
        cut = self._rng.randrange(len(block))
        first = _frame(_HEADERS, 0, number, block[:cut])
        between = self._window() if self._rng.random() < 0.3 else b""
        return first + between + _frame(_CONTINUATION, _END_HEADERS, number, block[cut:])

    def _continuation(self) -> bytes:
        return _frame(_CONTINUATION, 0, self._any_call(), b"\x88")

    # -- frames of the connection ---------------------------------------------------------------

    def _window(self) -> bytes:
        grant = self._rng.choice((0, 1, 100, 65_535, 2**31 - 1))
        return _frame(
            _WINDOW_UPDATE, 0, self._rng.choice((0, self._any_call())), grant.to_bytes(4, "big")
        )

    def _settings(self) -> bytes:
        pairs = [
            (self._rng.randint(0, 8), self._rng.choice((0, 1, 100, 16_384, 65_535, 2**32 - 1)))
            for _ in range(self._rng.randint(0, 4))
        ]
        payload = b"".join(key.to_bytes(2, "big") + n.to_bytes(4, "big") for key, n in pairs)
        mine = _frame(_SETTINGS, 0, 0, payload)
        return mine + _frame(_SETTINGS, _ACK, 0, b"") if self._rng.random() < 0.8 else mine

    def _ping(self) -> bytes:
        return _frame(_PING, self._rng.choice((0, 1)), 0, self._rng.randbytes(self._odd(8)))

    def _priority(self) -> bytes:
        """At times of a call that depends on itself."""
        number = self._any_call()
        depends = self._rng.choice((0, number, number + 2))
        return _frame(_PRIORITY, 0, number, depends.to_bytes(4, "big") + bytes(1))

    def _go_away(self) -> bytes:
        if self._rng.random() < 0.8:  # it ends everything
            return b""
        return _frame(_GOAWAY, 0, 0, self._rng.randbytes(self._odd(8)))

    def _random_frame(self) -> bytes:
        kind, flags = self._rng.randrange(_KINDS), self._rng.randrange(256)
        number = self._rng.choice((0, 2, self._any_call(), 2**31 - 1))
        return _frame(kind, flags, number, self._rng.randbytes(self._rng.choice((0, 4, 5, 8, 300))))

    # -- what is done to them -------------------------------------------------------------------

    def _any_call(self) -> int:
        """One that was begun, or was not, or cannot be."""
        return self._rng.choice((max(1, self._next - 2), self._rng.randrange(1, self._next + 4), 0))

    def _odd(self, usual: int) -> int:
        return usual if self._rng.random() < 0.8 else self._rng.randrange(20)

    def _mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._rng.randint(1, 3) if changed else 0):
            changed[self._rng.randrange(len(changed))] = self._rng.randrange(256)
        return bytes(changed)

    def _truncated(self, data: bytes) -> bytes:
        return data[: self._rng.randrange(len(data) + 1)]


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
    return head + payload
