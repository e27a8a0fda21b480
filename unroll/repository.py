"""The calls of the inference protocol that load and unload models.

Their messages are declared here, not taken from ``unroll.inference``: a process registers the
messages of that protocol once, and a program may have tritonclient's. Only fields that the client
uses are here; a test compares them with the protocol.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
_Field = descriptor_pb2.FieldDescriptorProto
# Names and numbers of fields by message; all hold texts, but for the index's entries.
MESSAGES = {
    "RepositoryModelLoadRequest": {"model_name": 2},
    "RepositoryModelLoadResponse": {},
    "RepositoryModelUnloadRequest": {"model_name": 2},
    "RepositoryModelUnloadResponse": {},
    "RepositoryIndexRequest": {},
    "ModelIndex": {"name": 1, "version": 2, "state": 3, "reason": 4},
}
INDEX_MODELS = 1


def _classes() -> dict[str, Any]:
    """Message classes by name, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="repository", package="unroll.repository", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number in fields.items():
            message.field.add(
                name=field, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
            )
    file.message_type.add(name="RepositoryIndexResponse").field.add(
        name="models",
        number=INDEX_MODELS,
        type=_Field.TYPE_MESSAGE,
        type_name=".unroll.repository.ModelIndex",
        label=_Field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"unroll.repository.{message.name}")
        )
        for message in file.message_type
    }


CLASSES = _classes()
LoadRequest = CLASSES["RepositoryModelLoadRequest"]
UnloadRequest = CLASSES["RepositoryModelUnloadRequest"]
IndexRequest = CLASSES["RepositoryIndexRequest"]


class RepositoryStub:
    """As generated stubs are. channel: of grpc or grpc.aio."""

    def __init__(self, channel: Any) -> None:
        self.RepositoryModelLoad = _method(channel, "RepositoryModelLoad")
        self.RepositoryModelUnload = _method(channel, "RepositoryModelUnload")
        self.RepositoryIndex = _method(channel, "RepositoryIndex")


def _method(channel: Any, name: str) -> Any:
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=CLASSES[f"{name}Request"].SerializeToString,
        response_deserializer=CLASSES[f"{name}Response"].FromString,
    )
