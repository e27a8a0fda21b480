"""The messages and calls of the Open Inference Protocol: ``protocol.ModelInferRequest``, …

They are built from ``protocol.binpb`` (a FileDescriptorSet, ``make proto``) in a descriptor pool
of their own, not from generated modules. Whatever else the process has loaded, another copy of
the protocol (tritonclient has one) or another release of protobuf, is no conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    content = (files(__package__) / "protocol.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(content).file:  # what is imported comes first
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()


def __getattr__(name: str) -> Any:
    """The class of a message of the protocol, by its name (PEP 562)."""
    try:
        return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def data_type_name(number: int) -> str:
    """The name of a value of model_config.proto's DataType, such as TYPE_FP32.

    Raises ValueError where the enum has no such value.
    """
    return str(EnumTypeWrapper(_POOL.FindEnumTypeByName(f"{PACKAGE}.DataType")).Name(number))


class Stub:
    """The calls of GRPCInferenceService on a channel, each an attribute by its name."""

    def __init__(self, channel: grpc.Channel) -> None:
        for method in _POOL.FindServiceByName(SERVICE).methods:
            setattr(self, method.name, _call(channel, method))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{SERVICE} has no call {name!r}")


def _call(channel: grpc.Channel, method: Any) -> Callable[..., Any]:
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call: Callable[..., Any] = kinds[method.client_streaming, method.server_streaming](
        f"/{SERVICE}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    return call
