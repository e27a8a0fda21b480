"""Changes to a request that stays true to itself: shapes, elements and counts agree as before.

What checks a request's form lets these pass, so that they come to what checks and runs it.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from tests.fuzz.edges import altered_text
from unroll.inference import grpc_service_pb2 as pb

_TIMES = (0, 2, 3, 17, 33, 70, 300, 1025)
_MOST_BYTES = 200_000
_PACKED = {"INT64": "q", "FP32": "f"}
_IDS = (0, 1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, -1, 64, 65, 2**31, 2**63 - 1, -(2**63))
_REALS = (
    0.0, -0.0, 0.5, -1.0, 120.0, 1e-45, 1e30, -1e30, 3e38, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
# Parameters, each with what is good and what is just beyond: of generation, of every request.
_OF_GENERATION: dict[str, tuple[Any, ...]] = {
    "max_tokens": (1, "5", 60.0, 400, 401, 0),
    "min_tokens": (0, 3, "60", 400),
    "temperature": (0.0, "0.7", 1, 0.009, 100.0, 101.0),
    "top_k": (0, 1, "4", 2**32 - 1),
    "top_p": (1.0, 0.01, "0.5", 0.0, 1.1),
    "min_p": (0.0, 0.5, 1.0, 1.1),
    "typical_p": (1.0, 0.01, "0.5", 0.0, 1.1),
    "seed": (0, "7", 2**63 - 1, "18446744073709551615", "18446744073709551616"),
    "repetition_penalty": (0.01, 1.5, 100.0, 0.0),
    "frequency_penalty": (-2.0, 2, 2.1),
    "presence_penalty": (-2, 2.0, -2.1),
    "stop": ("a", '["a", "bc"]', "[]", "", '[""]', '["\\ud800"]'),
    "allowed_tokens": ("[]", "[1, 2]", "[0]", "[15]", "[16]", f"[{10**30}]"),
    "banned_tokens": ("[]", "[1]", str(list(range(16)))),
    "logit_bias": ("{}", '{"1": 100}', '{"2": -101}', '{"3": NaN}', '{"1": Infinity}'),
    "tokens_per_message": (0, 1, "3", 1024, 1025),
}
_OF_ALL: dict[str, tuple[Any, ...]] = {
    "sequence_id": (1, 7, "a", "s", 0, "", 2.0),
    "sequence_start": (True, False, "true"),
    "sequence_end": (True, False, 1),
    "timeout": (1, 200, 5000, "60000000", 0),
    "triton_enable_empty_final_response": (True, False),
}
_KINDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def change(choose: random.Random, request: pb.ModelInferRequest) -> None:
    """One such change; a request without inputs has its settings changed alone."""
    way = choose.randrange(3) if request.inputs else 0
    if way == 0:
        _set(choose, request)
    elif way == 1:
        stretch(choose, request)
    else:
        _revalue(choose, request, choose.randrange(len(request.inputs)))


def _set(choose: random.Random, request: pb.ModelInferRequest) -> None:
    generates = any(tensor.name in ("prompt", "source", "vector") for tensor in request.inputs)
    known = _OF_GENERATION if generates and choose.random() < 0.7 else _OF_ALL
    name = choose.choice(sorted(known))
    value = choose.choice(known[name])
    setattr(request.parameters[name], _KINDS[type(value)], value)


def stretch(choose: random.Random, request: pb.ModelInferRequest) -> None:
    """Repeat every input along its batch, or one of them along its time."""
    times = choose.choice(_TIMES)
    if request.ByteSize() * times > _MOST_BYTES:
        times = 2
    places = range(len(request.inputs))
    if choose.random() < 0.6:
        for place in places:
            _repeat(request, place, 0, times)
    else:
        _repeat(request, choose.choice(places), 1, times)


def _repeat(request: pb.ModelInferRequest, place: int, axis: int, times: int) -> None:
    tensor = request.inputs[place]
    if len(tensor.shape) <= axis or not abs(tensor.shape[axis] * times) < 2**63:
        return
    tensor.shape[axis] *= times
    if place < len(request.raw_input_contents):
        request.raw_input_contents[place] *= times
    for _, elements in tensor.contents.ListFields():
        elements[:] = [*elements] * times


def _revalue(choose: random.Random, request: pb.ModelInferRequest, place: int) -> None:
    """Another element somewhere in the input."""
    tensor = request.inputs[place]
    for _, elements in tensor.contents.ListFields():
        number = choose.randrange(len(elements))
        elements[number] = _other(choose, tensor.datatype, elements[number])
    if place < len(request.raw_input_contents):
        raw = request.raw_input_contents[place]
        request.raw_input_contents[place] = _with_another(choose, tensor.datatype, raw)


def _other(choose: random.Random, datatype: str, element: Any) -> Any:
    if isinstance(element, bytes):
        return altered_text(choose, element.decode(errors="replace")).encode()
    return choose.choice(_REALS if datatype == "FP32" else _IDS)


def _with_another(choose: random.Random, datatype: str, raw: bytes) -> bytes:
    if datatype not in _PACKED:
        return _text_of(altered_text(choose, raw[4:].decode(errors="replace")))
    form = _PACKED[datatype]
    elements = list(struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw))
    if elements:
        elements[choose.randrange(len(elements))] = _other(choose, datatype, 0)
    return struct.pack(f"<{len(elements)}{form}", *elements)


def _text_of(text: str) -> bytes:
    """One element of BYTES."""
    data = text.encode()
    return len(data).to_bytes(4, "little") + data
