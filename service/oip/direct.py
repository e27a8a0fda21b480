"""Responses that leave where they arise, without the tasks that wait for their call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.oip.adapters import InferResult
from service.varint import varint
from unroll.inference import grpc_service_pb2 as pb

_RESPONSE = pb.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
_RAW = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
# Of a field of bytes, or of a message.
_WIRE_TYPE = 2


@dataclass(frozen=True)
class DirectCall:
    """A call of ModelStreamInfer. has_room: whether all that was said in it before is written, and
    it takes more now. write_now: a response that is serialized already."""

    has_room: Callable[[], bool]
    write_now: Callable[[bytes], None]


class DirectResponses:
    """Of one request that is answered raw.

    outputs: that are wanted, by name. head_of: a response of such a result, serialized, all but
    the raw contents, which come last in it.
    """

    def __init__(
        self, call: DirectCall, outputs: Sequence[str], head_of: Callable[[InferResult], bytes]
    ) -> None:
        self.has_room = call.has_room
        self.outputs = outputs
        self.head_of = head_of
        self._write_now = call.write_now

    def write(self, head: bytes, contents: Sequence[bytes]) -> None:
        """contents: of each output, in their order."""
        parts = [b"", head]
        for raw in contents:
            parts += (_before(_RAW, len(raw)), raw)
        parts[0] = _before(_RESPONSE, sum(map(len, parts)))
        self._write_now(b"".join(parts))


@lru_cache(maxsize=4096)
def _before(field: int, size: int) -> bytes:
    """What comes before so many bytes of a field, as protobuf writes it."""
    return varint(field << 3 | _WIRE_TYPE) + varint(size)
