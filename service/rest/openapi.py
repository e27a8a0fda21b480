"""OpenAPI's words for the Open Inference Protocol over REST, and Triton's extensions of it.

Open Inference Protocol, "HTTP/REST"; what is not offered (shared memory, traces) is left out.
"""

from __future__ import annotations

from typing import Any

from service.oip.tensors import BINARY_SIZE, DATATYPES
from service.rest.generate import TEXT_IN
from service.rest.routes import PREFIX

Schema = dict[str, Any]

_REQUEST, _RESPONSE, _ERROR = "oip.InferRequest", "oip.InferResponse", "oip.Error"
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object"}
_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_JSON, _BINARY, _EVENTS = "application/json", "application/octet-stream", "text/event-stream"


def document() -> dict[str, Any]:
    """Paths and schemas."""
    paths: dict[str, Any] = {
        PREFIX: {"get": _operation("ServerMetadata")},
        f"{PREFIX}/health/live": {"get": _operation("ServerLive")},
        f"{PREFIX}/health/ready": {"get": _operation("ServerReady")},
        f"{PREFIX}/models/stats": {"get": _operation("ModelStatistics")},
        f"{PREFIX}/repository/index": {
            "post": _operation(
                "RepositoryIndex",
                {"type": "array", "items": _ANY},
                body={"type": "object", "properties": {"ready": _FLAG}},
            )
        },
        f"{PREFIX}/logging": {
            "get": _operation("LogSettings"),
            "post": _operation("UpdateLogSettings", body=_ANY),
        },
    }
    for what in ("load", "unload"):
        path = f"{PREFIX}/repository/models/{{model}}/{what}"
        name = f"RepositoryModel{what.capitalize()}"
        body = {"type": "object", "properties": {"parameters": _PARAMETERS}}
        paths[path] = {"post": _of_model(_operation(name, None, body=body))}
    for version in ("", "/versions/{version}"):
        paths |= _of_models(f"{PREFIX}/models/{{model}}{version}", bool(version))
    return {"paths": paths, "components": {"schemas": _schemas()}}


def _of_models(at: str, has_version: bool) -> dict[str, Any]:
    """at: the path of a model or of one of its versions."""
    suffix = "OfVersion" if has_version else ""
    infer = _operation(f"ModelInfer{suffix}", _reference(_RESPONSE), body=_reference(_REQUEST))
    infer["responses"]["200"]["content"][_BINARY] = {}
    infer["requestBody"]["content"][_BINARY] = {}
    generate = {"type": "object", "properties": {TEXT_IN: {}, "parameters": _PARAMETERS}}
    stream = _operation(f"GenerateStream{suffix}", None, body=generate)
    stream["responses"]["200"]["content"] = {_EVENTS: {}}
    operations = {
        "": {"get": _operation(f"ModelMetadata{suffix}")},
        "/ready": {"get": _operation(f"ModelReady{suffix}")},
        "/config": {"get": _operation(f"ModelConfig{suffix}")},
        "/stats": {"get": _operation(f"StatisticsOfModel{suffix}")},
        "/infer": {"post": infer},
        "/generate": {"post": _operation(f"Generate{suffix}", body=generate)},
        "/generate_stream": {"post": stream},
    }
    return {
        f"{at}{path}": {way: _of_model(found, has_version) for way, found in by_way.items()}
        for path, by_way in operations.items()
    }


def _of_model(operation: dict[str, Any], has_version: bool = False) -> dict[str, Any]:
    names = ("model", "version") if has_version else ("model",)
    parameters = [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in names]
    return {**operation, "parameters": parameters}


def _operation(
    name: str, response: Schema | None = _ANY, body: Schema | None = None
) -> dict[str, Any]:
    """response: None for one without a body."""
    answer: dict[str, Any] = {"description": "The answer"}
    if response is not None:
        answer["content"] = {_JSON: {"schema": response}}
    operation: dict[str, Any] = {
        "tags": ["inference"],
        "operationId": f"oip.{name}",
        "responses": {
            "200": answer,
            "default": {
                "description": "Why there is none",
                "content": {_JSON: {"schema": _reference(_ERROR)}},
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"content": {_JSON: {"schema": body}}}
    return operation


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Schema]:
    tensor = {
        "name": _TEXT,
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "parameters": {
            "type": "object",
            "properties": {BINARY_SIZE: {"type": "integer", "minimum": 0}},
        },
        "data": {"type": "array"},
    }
    needed = ["name", "shape", "datatype"]
    tensors = {"type": "array", "items": _strict(tensor, needed)}
    wanted = _strict({"name": _TEXT, "parameters": _ANY}, ["name"])
    request = {
        "id": _TEXT,
        "model_name": _TEXT,
        "model_version": _TEXT,
        "parameters": _PARAMETERS,
        "inputs": tensors,
        "outputs": {"type": "array", "items": wanted},
    }
    response = {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "outputs": tensors,
    }
    return {
        _REQUEST: _strict(request, ["inputs"]),
        _RESPONSE: _strict(response, ["model_name", "model_version", "outputs"]),
        # A probe's answer that is no says so beside it.
        _ERROR: {"type": "object", "properties": {"error": _TEXT}},
    }


def _strict(properties: dict[str, Schema], required: list[str]) -> Schema:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }
