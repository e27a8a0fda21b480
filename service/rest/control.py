"""Everything but inference: requests of paths and JSON, responses as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.rest import json_body
from service.rest.json_body import Object, quoted, refuse
from service.rest.parameters import set_repository_parameters
from unroll.inference import grpc_service_pb2 as pb

Groups = Mapping[str, str]
# Of a probe's answer that is no: the protocol wants a status of 4xx there, as Triton sends it.
_NOT_READY = 400


@dataclass(frozen=True)
class Operation:
    """One call: rpc, the method's name; request, its message, from the parts of the path and the
    object in the body; answer, the status and the JSON of its response (None: no body)."""

    rpc: str
    request: Callable[[Groups, Object], Message]
    answer: Callable[[Groups, Any], tuple[int, Any]]


def plain(message: Message) -> Object:
    """Fields by name: what is unset as its default, other messages and choices where they are set.

    Whole numbers of 64 bits are numbers, unlike in protobuf's own JSON: so Triton's clients read
    them.
    """
    found: Object = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        found[field.name] = _plain_field(field, getattr(message, field.name))
    return found


def _plain_field(field: FieldDescriptor, value: Any) -> Any:
    if not field.is_repeated:
        return _plain_value(field, value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return {str(name): _plain_value(kind, value[name]) for name in value}
    return [_plain_value(field, one) for one in value]


def _plain_value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode("utf8", "replace") if isinstance(value, bytes) else value


def _all_of(groups: Groups, response: Message) -> tuple[int, Any]:
    return 200, plain(response)


def _nothing(groups: Groups, response: Message) -> tuple[int, Any]:
    return 200, None


def _live(groups: Groups, response: pb.ServerLiveResponse) -> tuple[int, Any]:
    return 200 if response.live else _NOT_READY, {"live": response.live}


def _ready(groups: Groups, response: pb.ServerReadyResponse) -> tuple[int, Any]:
    return 200 if response.ready else _NOT_READY, {"ready": response.ready}


def _model_ready(groups: Groups, response: pb.ModelReadyResponse) -> tuple[int, Any]:
    found = {"name": groups["name"], "ready": response.ready}
    if response.ready:
        return 200, found
    return _NOT_READY, found | {"error": f"model {quoted(groups['name'])} is not ready"}


def _index_request(groups: Groups, body: Object) -> Message:
    json_body.only(body, ("ready",))
    ready = json_body.member(body, "ready", bool, "true or false")
    return pb.RepositoryIndexRequest(
        repository_name=groups.get("repository", ""), ready=bool(ready)
    )


def _index(groups: Groups, response: pb.RepositoryIndexResponse) -> tuple[int, Any]:
    return 200, [plain(model) for model in response.models]


def _load_request(kind: type[Any]) -> Callable[[Groups, Object], Message]:
    def request(groups: Groups, body: Object) -> Message:
        json_body.only(body, ("parameters",))
        made: Message = kind(
            repository_name=groups.get("repository", ""), model_name=groups["name"]
        )
        set_repository_parameters(made.parameters, json_body.nested(body, "parameters"))
        return made

    return request


def _log_request(groups: Groups, body: Object) -> Message:
    request = pb.LogSettingsRequest()
    for name, value in body.items():
        setting = request.settings[json_body.checked_text(name, "a setting's name")]
        what = f"setting {quoted(name)}"
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, str):
            setting.string_param = json_body.checked_text(value, what)
        elif isinstance(value, int) and 0 <= value < 2**32:
            setting.uint32_param = value
        else:
            refuse(what, value, "a truth, a whole number or a string")
    return request


def _log_settings(groups: Groups, response: pb.LogSettingsResponse) -> tuple[int, Any]:
    return 200, {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in sorted(response.settings.items())
    }


def _of_model(kind: type[Any]) -> Callable[[Groups, Object], Message]:
    def request(groups: Groups, body: Object) -> Message:
        made: Message = kind(name=groups.get("name", ""), version=groups.get("version", ""))
        return made

    return request


def _empty(kind: type[Any]) -> Callable[[Groups, Object], Message]:
    """Whatever the path and the body say, such as of a method that is not offered."""
    return lambda groups, body: kind()


LIVE = Operation("ServerLive", _empty(pb.ServerLiveRequest), _live)
READY = Operation("ServerReady", _empty(pb.ServerReadyRequest), _ready)
MODEL_READY = Operation("ModelReady", _of_model(pb.ModelReadyRequest), _model_ready)
SERVER = Operation("ServerMetadata", _empty(pb.ServerMetadataRequest), _all_of)
MODEL = Operation("ModelMetadata", _of_model(pb.ModelMetadataRequest), _all_of)
CONFIG = Operation(
    "ModelConfig",
    _of_model(pb.ModelConfigRequest),
    lambda groups, response: (200, plain(response.config)),
)
STATISTICS = Operation("ModelStatistics", _of_model(pb.ModelStatisticsRequest), _all_of)
INDEX = Operation("RepositoryIndex", _index_request, _index)
LOAD = Operation("RepositoryModelLoad", _load_request(pb.RepositoryModelLoadRequest), _nothing)
UNLOAD = Operation(
    "RepositoryModelUnload", _load_request(pb.RepositoryModelUnloadRequest), _nothing
)
LOG = Operation("LogSettings", _log_request, _log_settings)
TRACE = Operation("TraceSetting", _empty(pb.TraceSettingRequest), _all_of)


def shared_memory(kind: str, what: str) -> Operation:
    """kind: System or Cuda. what: Status, Register or Unregister."""
    rpc = f"{kind}SharedMemory{what}"
    return Operation(rpc, _empty(getattr(pb, f"{rpc}Request")), _all_of)
