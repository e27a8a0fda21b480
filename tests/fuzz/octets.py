"""Changes to a message's bytes, most of which leave no message: what no stub would send."""

from __future__ import annotations

import random
from collections.abc import Callable

# Wire types: a varint, eight bytes, bytes with their length, four bytes; 3, 4, 6, 7 are none.
_UNKNOWN_FIELD = 1000


def _flip(choose: random.Random, data: bytearray, _: bytes) -> None:
    for _ in range(choose.choice((1, 1, 2, 8))):
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _truncate(choose: random.Random, data: bytearray, _: bytes) -> None:
    del data[choose.randrange(len(data)) :]


def _cut_out(choose: random.Random, data: bytearray, _: bytes) -> None:
    start = choose.randrange(len(data))
    del data[start : start + choose.randint(1, 8)]


def _insert(choose: random.Random, data: bytearray, _: bytes) -> None:
    place = choose.randint(0, len(data))
    data[place:place] = choose.randbytes(choose.choice((1, 2, 8, 100)))


def _splice(choose: random.Random, data: bytearray, other: bytes) -> None:
    """The head of one message and the tail of another."""
    data[choose.randint(0, len(data)) :] = other[choose.randint(0, len(other)) :]


def _join(choose: random.Random, data: bytearray, other: bytes) -> None:
    """Fields come twice: the last one counts, or both do."""
    data.extend(other)


def _lengthen(choose: random.Random, data: bytearray, _: bytes) -> None:
    """Somewhere, which may be a length or a number, stands a varint of any size."""
    place = choose.randrange(len(data))
    length = choose.choice((0, 1, 127, 128, 2**31 - 1, 2**32, 2**63, 2**64 - 1, 2**69))
    data[place : place + 1] = varint(length)


def _add_unknown(choose: random.Random, data: bytearray, _: bytes) -> None:
    """A field that the message does not have, mostly a well-formed one."""
    wire_type = choose.choice((0, 0, 1, 2, 2, 5, 3, 4, 6))
    content = {
        0: varint(choose.getrandbits(64)),
        1: choose.randbytes(8),
        2: varint(5) + choose.randbytes(5),
        5: choose.randbytes(4),
    }.get(wire_type, b"")
    data.extend(varint((_UNKNOWN_FIELD + choose.randrange(100)) << 3 | wire_type) + content)


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


_CHANGES: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip, _flip, _truncate, _cut_out, _insert, _splice, _join, _lengthen, _add_unknown,
)  # fmt: skip


def mutated(choose: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` with one change to its bytes. other: a message that parts come from."""
    changed = bytearray(data)
    change = choose.choice(_CHANGES) if data else choose.choice((_insert, _join, _add_unknown))
    change(choose, changed, other)
    return bytes(changed)
