"""OpenAPI's words for methods and messages: JSON as protobuf's canonical mapping has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.connect.errors import NAMES
from service.rpc.methods import Method
from service.rpc.status import OK

Schema = dict[str, Any]

_ERROR = "connect.Error"
_ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["code"],
    "properties": {
        "code": {"type": "string", "enum": [n for code, n in NAMES.items() if code is not OK.code]},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": {"type": "string"},
                    "value": {"type": "string", "contentEncoding": "base64"},
                    "debug": {},
                },
            },
        },
    },
}
_NOT_FINITE = ["NaN", "Infinity", "-Infinity"]
_FIELD = FieldDescriptor


def document_of(methods: Iterable[Method]) -> dict[str, Any]:
    """Paths and schemas of those with one message each way."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Schema] = {_ERROR: _ERROR_SCHEMA}
    for method in methods:
        if method.reads_several or method.writes_several:
            continue
        request, response = method.request.DESCRIPTOR, method.response.DESCRIPTOR
        _describe(request, schemas)
        _describe(response, schemas)
        paths[method.path] = {
            "post": {
                "tags": [method.service],
                "operationId": f"{method.service}.{method.name}",
                "requestBody": {"required": True, "content": _json_of(request.full_name)},
                "responses": {
                    "200": {"description": "The answer", "content": _json_of(response.full_name)},
                    "default": {"description": "Why there is none", "content": _json_of(_ERROR)},
                },
            }
        }
    return {"paths": paths, "components": {"schemas": schemas}}


def _json_of(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(name)}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _describe(message: Descriptor, schemas: dict[str, Schema]) -> None:
    """``message`` and every one in it, in ``schemas``."""
    if message.full_name in schemas:
        return
    properties: dict[str, Schema] = {}
    schemas[message.full_name] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    for field in message.fields:
        properties[field.json_name] = _of_field(field, schemas)


def _of_field(field: FieldDescriptor, schemas: dict[str, Schema]) -> Schema:
    if not field.is_repeated:
        return _of_value(field, schemas)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        values = _of_value(entry.fields_by_name["value"], schemas)
        return {"type": "object", "additionalProperties": values, **_keys(entry)}
    items = _of_value(field, schemas)
    if field.cpp_type in (_FIELD.CPPTYPE_FLOAT, _FIELD.CPPTYPE_DOUBLE):
        items = {"anyOf": [*items["anyOf"], {"type": "null"}]}  # which is NaN
    return {"type": "array", "items": items}


def _keys(entry: Descriptor) -> Schema:
    """Of a map: JSON has texts alone for keys."""
    kind = entry.fields_by_name["key"].cpp_type
    if kind == _FIELD.CPPTYPE_STRING:
        return {}
    if kind == _FIELD.CPPTYPE_BOOL:
        return {"propertyNames": {"enum": ["true", "false"]}}
    return {"propertyNames": {"pattern": "^-?[0-9]+$"}}


def _of_value(field: FieldDescriptor, schemas: dict[str, Schema]) -> Schema:
    match field.cpp_type:
        case _FIELD.CPPTYPE_MESSAGE:
            _describe(field.message_type, schemas)
            return _reference(field.message_type.full_name)
        case _FIELD.CPPTYPE_ENUM:
            return {"type": "string", "enum": [each.name for each in field.enum_type.values]}
        case _FIELD.CPPTYPE_BOOL:
            return {"type": "boolean"}
        case _FIELD.CPPTYPE_STRING if field.type == _FIELD.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        case _FIELD.CPPTYPE_STRING:
            return {"type": "string"}
        case _FIELD.CPPTYPE_INT32:
            return {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
        case _FIELD.CPPTYPE_UINT32:
            return {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
        case _FIELD.CPPTYPE_INT64:
            return _of_long(-(2**63), 2**63 - 1)
        case _FIELD.CPPTYPE_UINT64:
            return _of_long(0, 2**64 - 1)
        case _:
            return {"anyOf": [{"type": "number"}, {"type": "string", "enum": _NOT_FINITE}]}


def _of_long(least: int, most: int) -> Schema:
    """A number that JSON's readers may not hold: it is answered as a text."""
    number = {"type": "integer", "minimum": least, "maximum": most}
    return {"anyOf": [{"type": "string", "pattern": "^-?[0-9]{1,20}$"}, number]}
