"""Values at the edges of what a field may hold, and names that mean something to the service."""

from __future__ import annotations

import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tests import tiny

_SMALL = (0, 1, 2, 3, 7, 16, 17, 20, 21, 64, 65, 100, 1024, 1025)
_SIGNED = (*_SMALL, -1, -2, -(2**31), 2**31 - 1)
_WIDE = (2**31, 2**32, 2**32 - 1, 2**40, 2**62)
_FLOATS = (
    0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 100.0, 1e-3, 1e-45, 3.4e38, -3.4e38,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip

NUMBERS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: _SIGNED,
    FieldDescriptor.CPPTYPE_UINT32: (*_SMALL, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (*_SIGNED, *_WIDE, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT64: (*_SMALL, *_WIDE, 2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: (*_FLOATS, 1e308, -1e308, 5e-324),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (*range(14), -1, 77, 2**31 - 1),
}

_MODELS = (
    *tiny.NAMES,
    *(f"{name}.tensors" for name in tiny.NAMES),
    "gained", "gained.tensors",
    "", "nobody", ".tensors", "../letters", "letters/1", "LETTERS", "letters\0",
)  # fmt: skip
_VERSIONS = ("", "1", "01", "2", "0", "-1", "latest", "9" * 400)
_TENSORS = (
    "text", "prompt", "source", "vector", "tokens", "token", "lengths", "source_lengths", "right",
    "right_lengths", "state", "next_state", "label", "labels", "probability", "probabilities",
    "words", "logits", "log_probabilities", "finish_reason", "frame", "level", "gain", "nothing",
    "",
)  # fmt: skip
_DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
    "FP32", "FP64", "BF16", "BYTES", "STRING", "FP128", "fp32", "",
)  # fmt: skip
_PARAMETERS = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "classification",
    "binary_data", "triton_enable_empty_final_response", "triton_final_response", "max_tokens",
    "min_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop", "samples", "echo",
    "beam_width", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias",
    "allowed_tokens", "banned_tokens", "top_words", "top_labels", "resume_token", "config",
    "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "content_type",
    "unload_dependents", "file:1/model.onnx", "unknown", "", "typical_p",
)  # fmt: skip
_TEXTS = (
    "", " ", "a", "\0", "\n\t", "abc", "the food was not good", "good ___ food", "___", "___ ___",
    "_" * 5000, "e\u0301", "\u202eabc", "\U0001f600" * 3, "\ufeff", "ß", "İ", "ﬁ", "\u2028",
    "0", "-1", "0.5", "1e400", "nan", "inf", "true", "null", "{}", "[]", "[1,2", '{"latest":{}}',
    '{"version_policy":{"all":{}}}', '{"version_policy":{"specific":{"versions":[1]}}}',
    "[" * 2000, "%s%n", "' OR 1=1",
)  # fmt: skip

_NAMED: dict[str, tuple[str, ...]] = {
    "model": _MODELS,
    "model_name": _MODELS,
    "name": (*_MODELS, *_TENSORS),
    "version": _VERSIONS,
    "model_version": _VERSIONS,
    "datatype": _DATATYPES,
    "parameters": _PARAMETERS,
}
_ALL_TEXTS = (*_MODELS, *_VERSIONS, *_TENSORS, *_DATATYPES, *_PARAMETERS, *_TEXTS)
# The longest are more than a request may hold, and than a message may.
_LENGTHS = (300, 300, 5_000, 5_000, 140_000)


def text_for(choose: random.Random, field: str) -> str:
    """A value for a text field, or a key for a map, of this name."""
    draw = choose.random()
    if draw < 0.03:
        return choose.choice(("a", "é", "good ", "\U0001f600")) * choose.choice(_LENGTHS)
    if draw < 0.6 and field in _NAMED:
        return choose.choice(_NAMED[field])
    return choose.choice(_TEXTS if draw < 0.9 else _ALL_TEXTS)


def altered_number(choose: random.Random, field: FieldDescriptor, number: Any) -> Any:
    """One close to ``number``, or as it was where the field would not hold that."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not number
    near = choose.choice((number + 1, number - 1, 2 * number, number // 2, -number))
    edges = NUMBERS[field.cpp_type]
    return near if min(edges) <= near <= max(edges) else number


def altered_text(choose: random.Random, text: str) -> str:
    place = choose.randint(0, len(text))
    match choose.randrange(4):
        case 0:
            return text[:place]
        case 1:
            return text[:place] + choose.choice(_TEXTS) + text[place:]
        case 2:
            return text[:place] + chr(choose.choice((0, 32, 95, 0x301, 0x7F, 0x10FFFF))) + text
        case _:
            return text + text


def data_for(choose: random.Random) -> bytes:
    """A value for a field of bytes."""
    match choose.randrange(4):
        case 0:
            return choose.choice((b"", b"\0", b"\0" * 8, b"\xff" * 8, b"\xff" * 4))
        case 1:
            return choose.randbytes(choose.choice((1, 4, 8, 52, 104, 300)))
        case 2:
            # A tensor of texts: each with its length before it, which may be wrong.
            length = choose.choice((0, 1, 3, 4, 5, 2**31 - 1, 2**31, 2**32 - 1))
            return length.to_bytes(4, "little") + b"good"
        case _:
            return choose.choice((b"a", b"\xc3\xa9", b"\xc3")) * choose.choice(_LENGTHS)


def altered_data(choose: random.Random, data: bytes) -> bytes:
    match choose.randrange(5):
        case 0:
            return data[: choose.randint(0, len(data))]
        case 1:
            return data + choose.randbytes(choose.choice((1, 3, 4, 8)))
        case 2 if data:
            place = choose.randrange(len(data))
            return (
                data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :]
            )
        case 3:
            return data + data
        case _:
            return _with_a_number(choose, data)


def _with_a_number(choose: random.Random, data: bytes) -> bytes:
    """One element of a tensor of numbers, if it is one, becomes a number at an edge."""
    if choose.random() < 0.5:
        number = struct.pack("<q", choose.choice(NUMBERS[FieldDescriptor.CPPTYPE_INT64]))
    else:
        number = struct.pack("<f", choose.choice(_FLOATS))
    place = len(number) * choose.randint(0, max(0, len(data) // len(number) - 1))
    return data[:place] + number + data[place + len(number) :]
