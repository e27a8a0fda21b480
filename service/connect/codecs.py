"""Messages as callers write them: protobuf as it is, or JSON by protobuf's canonical mapping.

https://protobuf.dev/programming-guides/json/, and beyond it null in a list of numbers for NaN, as
JSON writes what is missing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from service.access.memory_budget import ANSWERS, REQUESTS, MemoryBudget
from service.engine.errors import WrongInput

# Beyond so many bytes a message is converted on a thread, and what that takes is counted: the
# objects of Python that stand for the JSON, most of them for the smallest values.
_INLINE_BYTES = 8_192
_REQUEST_FACTOR, _ANSWER_FACTOR = 24, 12
_FRACTIONS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


class Codec(Protocol):
    """name: as content types end with. is_text: whether what it writes is text."""

    name: str
    is_text: bool

    async def read(self, data: bytes, message: type[Message]) -> bytes:
        """``data`` as protobuf. Raises WrongInput or Overloaded."""

    async def write(self, message: Message) -> bytes:
        """Raises Overloaded."""


class ProtoCodec:
    """Protobuf's own bytes, which methods read."""

    name, is_text = "proto", False

    async def read(self, data: bytes, message: type[Message]) -> bytes:
        return data

    async def write(self, message: Message) -> bytes:
        data: bytes = message.SerializeToString()
        return data


class JsonCodec:
    """budget: of the bytes that large conversions take while they run."""

    name, is_text = "json", True

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget

    async def read(self, data: bytes, message: type[Message]) -> bytes:
        if len(data) <= _INLINE_BYTES:
            return from_json(data, message)
        with self._budget.reserve(REQUESTS, _REQUEST_FACTOR * len(data)):
            return await asyncio.to_thread(from_json, data, message)

    async def write(self, message: Message) -> bytes:
        size = message.ByteSize()
        if size <= _INLINE_BYTES:
            return to_json(message)
        with self._budget.reserve(ANSWERS, _ANSWER_FACTOR * size):
            return await asyncio.to_thread(to_json, message)


# What reading an object into a message ends with; the last two, which are not documented, for a
# whole number that no float holds and for a name with half of a surrogate pair.
_NO_MESSAGE = (
    json_format.ParseError, ValueError, TypeError, RecursionError, OverflowError, SystemError,
)  # fmt: skip


def from_json(data: bytes, message: type[Message]) -> bytes:
    """The message of that type, serialized. Raises WrongInput, which names the field."""
    try:
        text = data.decode()
        if not text.lstrip().startswith("{"):
            raise ValueError("it is no object")
        parsed = _parsed(text, message())
        serialized: bytes = parsed.SerializeToString()
    except _NO_MESSAGE as error:
        raise WrongInput(
            f"the request is no JSON of {message.DESCRIPTOR.full_name}: {_one_line(error)}"
        ) from error
    return serialized


def _parsed(text: str, message: Message) -> Message:
    """Raises _NO_MESSAGE."""
    if "null" not in text:
        return json_format.Parse(text, message)
    content = json.loads(text, object_pairs_hook=_unique)
    return json_format.ParseDict(_without_gaps(content, message.DESCRIPTOR), message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in an object")
    return found


def _without_gaps(content: Any, message: Descriptor) -> Any:
    """The JSON of a ``message`` with "NaN" for each null in a list of numbers with a fraction."""
    if not isinstance(content, dict):
        return content
    for field in message.fields:
        for name in {field.name, field.json_name} & content.keys():
            value, kind = content[name], field.message_type
            if isinstance(value, list) and field.cpp_type in _FRACTIONS:
                content[name] = ["NaN" if number is None else number for number in value]
            elif kind is not None and not kind.GetOptions().map_entry:
                for part in value if isinstance(value, list) else [value]:
                    _without_gaps(part, kind)
    return content


def to_json(message: Message) -> bytes:
    text = json_format.MessageToDict(message)
    return json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "it is nested too deep" if "recursion" in text else text
