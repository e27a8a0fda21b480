"""The methods of services, from their descriptors: what each reads, writes and is answered by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from service.rpc.call import ServerCall

# Of one request, or of an iterator of them. Returns the answer, or None where all were written.
Behaviour = Callable[[Any, ServerCall], Awaitable[Message | None]]


@dataclass(frozen=True, eq=False)
class Method:
    """One method of a service.

    reads_several, writes_several: whether the caller, the server streams. is_multiplexed: whether
    its behaviour gets each request as bytes and admits it itself, since a call of it holds many
    that are answered side by side. is_admitted: whether calls pass admission; health and
    reflection are for everybody. is_safe: whether a call changes nothing, as its option
    idempotency_level says.
    """

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    behaviour: Behaviour
    reads_several: bool = False
    writes_several: bool = False
    is_multiplexed: bool = False
    is_admitted: bool = True
    is_safe: bool = False

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def methods_of(
    service: ServiceDescriptor,
    servicer: object,
    multiplexed: tuple[str, ...] = (),
    is_admitted: bool = True,
    name: str = "",
) -> Iterator[Method]:
    """Those of ``service`` that ``servicer`` has. multiplexed: names. name: of the service where
    it is served under another one."""
    for method in service.methods:
        behaviour = getattr(servicer, method.name, None)
        if behaviour is None:
            continue
        yield Method(
            name or service.full_name,
            method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            behaviour,
            method.client_streaming,
            method.server_streaming,
            method.name in multiplexed,
            is_admitted,
            method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
        )
