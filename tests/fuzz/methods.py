"""Every method of the services that are fuzzed, by their descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from unroll.inference import grpc_service_pb2
from unroll.v1 import unroll_pb2


@dataclass(frozen=True)
class Method:
    """path: /PACKAGE.SERVICE/NAME. takes_stream, gives_stream: of messages, not one."""

    path: str
    request: type[Message]
    response: type[Message]
    takes_stream: bool
    gives_stream: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def reads(self, data: bytes) -> bool:
        """Whether ``data`` is a message of the kind that the method takes."""
        try:
            self.request.FromString(data)
        except DecodeError:
            return False
        return True


def _methods_of(service: ServiceDescriptor) -> Iterator[Method]:
    for method in service.methods:
        yield Method(
            f"/{service.full_name}/{method.name}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )


UNROLL = {m.name: m for m in _methods_of(unroll_pb2.DESCRIPTOR.services_by_name["UnrollService"])}
INFERENCE = {
    m.name: m
    for m in _methods_of(grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
}
BY_PATH = {m.path: m for m in (*UNROLL.values(), *INFERENCE.values())}
