"""Datatypes of the protocol, and tensors as raw buffers and as typed contents.

Arrays are NumPy's; BYTES are arrays of objects, each bytes. BF16 has no NumPy type: its bits
are stored as uint16.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.protocol import InferTensorContents

BYTES = "BYTES"
# The field of InferTensorContents that holds each datatype.
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
# These have no field of typed contents.
RAW_ONLY = ("FP16", "BF16")
DATATYPES = (*FIELDS, *RAW_ONLY)
_NUMPY: dict[str, str] = {
    "BOOL": "?",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
    BYTES: "O",
} | {
    f"{kind}{8 * size}": f"<{letter}{size}"
    for kind, letter in (("INT", "i"), ("UINT", "u"))
    for size in (1, 2, 4, 8)
}


class Malformed(ValueError):
    """Contents that are not the tensor they claim to be."""


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Little-endian; object for BYTES."""
    return np.dtype(_NUMPY[datatype])


def item_size(datatype: str) -> int:
    """Bytes of an element in a raw buffer; of BYTES, the length that precedes it."""
    return 4 if datatype == BYTES else dtype_of(datatype).itemsize


def to_array(datatype: str, values: Any) -> NDArray[Any]:
    """Values as JSON holds them, nested lists and words, as an array of ``datatype``."""
    if datatype == BYTES:
        words = np.array(values, dtype=object)
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words.flat]
        return _objects(encoded, words.shape)
    if datatype == "BF16":
        return (np.array(values, "<f4").view("<u4") >> 16).astype("<u2")
    return np.array(values, dtype_of(datatype))


def _objects(items: list[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def to_raw(datatype: str, array: NDArray[Any]) -> bytes:
    """Row-major, little-endian; before each element of BYTES its length in four bytes."""
    if datatype == BYTES:
        return b"".join(struct.pack("<I", len(word)) + word for word in array.flat)
    return array.astype(dtype_of(datatype)).tobytes()


def from_raw(datatype: str, shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    """Raises Malformed where the buffer is not exactly ``shape``."""
    count = _elements(shape)
    if datatype == BYTES:
        return _objects(_split(raw, count), shape)
    if len(raw) != count * item_size(datatype):
        size = item_size(datatype)
        raise Malformed(f"{len(raw)} bytes for {count} elements of {size} bytes")
    return np.frombuffer(raw, dtype_of(datatype)).reshape(shape)


def _split(raw: bytes, count: int) -> list[bytes]:
    """The elements of a buffer of BYTES."""
    words, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise Malformed(f"{len(raw) - at} bytes at the end hold no length")
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            left = len(raw) - at - 4
            raise Malformed(f"an element of {length} bytes where {left} are left")
        words.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    if len(words) != count:
        raise Malformed(f"{len(words)} elements for a shape that holds {count}")
    return words


def to_contents(datatype: str, array: NDArray[Any]) -> InferTensorContents:
    """The typed contents of ``array``. Raises KeyError for the datatypes that are raw only."""
    return InferTensorContents(**{FIELDS[datatype]: array.ravel().tolist()})


def from_contents(
    datatype: str, shape: tuple[int, ...], contents: InferTensorContents
) -> NDArray[Any]:
    """Raises Malformed where another field is filled, or not as many elements as ``shape`` has."""
    if datatype not in FIELDS:
        raise Malformed(f"{datatype} has no typed contents")
    others = [field.name for field, _ in contents.ListFields() if field.name != FIELDS[datatype]]
    if others:
        raise Malformed(f"{datatype} in {', '.join(others)}, not in {FIELDS[datatype]}")
    values = list(getattr(contents, FIELDS[datatype]))
    if len(values) != _elements(shape):
        raise Malformed(f"{len(values)} elements for a shape that holds {_elements(shape)}")
    return to_array(datatype, values).reshape(shape)


def _elements(shape: tuple[int, ...]) -> int:
    """In whole numbers that cannot overflow. Raises Malformed for a negative dimension."""
    count = 1
    for size in shape:
        if size < 0:
            raise Malformed(f"a dimension of {size}")
        count *= size
    return count


def agree(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equal, floating point up to rounding that another order of the same sums may give."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one, other))
