"""Whole numbers as protobuf writes them: seven bits a byte, the lowest first.

Messages that leave at every step are put together of bytes made once and the lengths between them
(protobuf.dev/programming-guides/encoding, "Base 128 Varints").
"""

from __future__ import annotations

_SHORT = [bytes((value,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """value: not negative."""
    if value < 0x80:
        return _SHORT[value]
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
