"""OpenAPI's words for OpenAI's paths."""

from __future__ import annotations

from typing import Any

from bundle.sampling import SAMPLING_PARAMETERS, SamplingParameter
from service.openai.fields import MAX_PROMPTS
from service.serving.inputs import MAX_TEXTS
from service.serving.sampling_params import MAX_BEAMS, MAX_SAMPLES, MAX_TOP

Schema = dict[str, Any]

_MODEL, _MODELS, _COMPLETION, _EMBEDDINGS, _ERROR = (
    "openai.Model", "openai.Models", "openai.Completion", "openai.Embeddings", "openai.Error",
)  # fmt: skip
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_OCTETS: Schema = {"type": "string", "contentEncoding": "base64"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_IDS: Schema = {"type": "array", "items": _WHOLE}
_JSON_SCHEMA: Schema = {"anyOf": [_TEXT, {"type": "object"}]}


def document() -> dict[str, Any]:
    """Paths and schemas."""
    parameter = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    return {
        "paths": {
            "/v1/models": {"get": _operation("listModels", _json(_MODELS))},
            "/v1/models/{model}": {
                "get": {**_operation("getModel", _json(_MODEL)), "parameters": [parameter]}
            },
            "/v1/completions": {
                "post": {
                    **_operation(
                        "createCompletion", _json(_COMPLETION) | {"text/event-stream": {}}
                    ),
                    "requestBody": _body(_request()),
                }
            },
            "/v1/embeddings": {
                "post": {
                    **_operation("createEmbedding", _json(_EMBEDDINGS)),
                    "requestBody": _body(_embedding_request()),
                }
            },
        },
        "components": {"schemas": _schemas()},
    }


def _operation(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["openai"],
        "operationId": f"openai.{name}",
        "responses": {
            "200": {"description": "The answer", "content": content},
            "default": {"description": "Why there is none", "content": _json(_ERROR)},
        },
    }


def _body(schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _request() -> Schema:
    """Every field but the model may be null, which is as if it were left out."""
    properties = {
        "prompt": {"anyOf": [_TEXT, {**_TEXTS, "minItems": 1, "maxItems": MAX_PROMPTS}]},
        "max_tokens": _WHOLE,
        "n": _between(1, MAX_SAMPLES),
        "best_of": _between(1, MAX_BEAMS),
        "echo": _FLAG,
        "logprobs": _between(0, MAX_TOP),
        "stop": {"anyOf": [_TEXT, _TEXTS]},
        "stream": _FLAG,
        "stream_options": {"type": "object", "properties": {"include_usage": _FLAG}},
        "seed": _between(0, 2**64 - 1),
        "logit_bias": {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,10}$"},
            "additionalProperties": {"type": "number"},
        },
        "suffix": {**_TEXT, "maxLength": 0},
        "user": {},
        "response_format": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"enum": ["text", "json_schema"]},
                "json_schema": {"type": "object", "properties": {"schema": {"type": "object"}}},
            },
        },
        "structured_outputs": {
            **_nullable({"choice": _TEXTS, "regex": _TEXT, "json": _JSON_SCHEMA}),
            "minProperties": 1,
        },
        "guided_choice": _TEXTS,
        "guided_regex": _TEXT,
        "guided_json": _JSON_SCHEMA,
        **{parameter.name: _sampling(parameter) for parameter in SAMPLING_PARAMETERS},
        "allowed_tokens": _IDS,
        "banned_tokens": _IDS,
        "model_version": _TEXT,
        "source": _TEXT,
        "vector": {"type": "array", "items": {"type": ["number", "null"]}},
        "resume_token": _OCTETS,
        "allow_inexact": _FLAG,
        "min_tokens": _WHOLE,
        "tokens_per_message": _WHOLE,
        "resume_every": _WHOLE,
        "resume_at_end": _FLAG,
        "no_cache": _FLAG,
        "state": _TEXT,
        "preset": _TEXT,
    }
    return _fields({"model": _TEXT}, properties)


def _embedding_request() -> Schema:
    texts = {**_TEXTS, "minItems": 1, "maxItems": MAX_TEXTS}
    properties: Schema = {
        "encoding_format": {**_TEXT, "enum": ["float", "base64"]},
        "dimensions": {"type": "null"},
        "user": {},
        "model_version": _TEXT,
        "tensors": _TEXTS,
    }
    return _fields({"model": _TEXT, "input": {"anyOf": [_TEXT, texts]}}, properties)


def _fields(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    """An optional one may be null."""
    optional_ones = _nullable(optional)
    properties = {**required, **optional_ones["properties"]}
    return {**optional_ones, "required": list(required), "properties": properties}


def _nullable(properties: dict[str, Schema]) -> Schema:
    """An object of these and no others, each of which may be null."""
    nullable = {
        name: {"anyOf": [schema, {"type": "null"}]} if schema else {}
        for name, schema in properties.items()
    }
    return {"type": "object", "properties": nullable, "additionalProperties": False}


def _between(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _sampling(parameter: SamplingParameter) -> Schema:
    return {
        "type": "integer" if parameter.is_whole else "number",
        "description": parameter.description,
        "exclusiveMinimum" if parameter.is_open_below else "minimum": parameter.least,
        "maximum": parameter.most,
    }


def _schemas() -> dict[str, Schema]:
    numbers: Schema = {"type": "array", "items": {"type": ["number", "null"]}}
    logprobs: Schema = {
        "type": ["object", "null"],
        "properties": {
            "tokens": _TEXTS,
            "token_logprobs": numbers,
            "top_logprobs": {
                "type": ["array", "null"],
                "items": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": ["number", "null"]},
                },
            },
            "text_offset": _IDS,
        },
    }
    choice = _object(
        required={
            "index": _WHOLE,
            "text": _TEXT,
            "logprobs": logprobs,
            "finish_reason": {"type": ["string", "null"], "enum": ["stop", "length", None]},
        },
        optional={"resume_token": _OCTETS, "next_position": _WHOLE},
    )
    usage = _object(
        {
            "prompt_tokens": _WHOLE,
            "completion_tokens": _WHOLE,
            "total_tokens": _WHOLE,
            "prompt_tokens_details": _object({"cached_tokens": _WHOLE}),
        }
    )
    model = _object(
        required={
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _WHOLE,
            "owned_by": _TEXT,
            "task": _TEXT,
            "version": _TEXT,
            "description": _TEXT,
            "limits": {"type": "object", "additionalProperties": _WHOLE},
        },
        optional={"embeds": _FLAG, "vector_fields": _TEXTS},
    )
    completion = {
        "id": _TEXT,
        "object": {"const": "text_completion"},
        "created": _WHOLE,
        "model": _TEXT,
        "system_fingerprint": _TEXT,
        "choices": {"type": "array", "items": choice},
        "usage": usage,
    }
    embedding: dict[str, Schema] = {
        "object": {"const": "embedding"},
        "index": _WHOLE,
        "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, _OCTETS]},
    }
    embeddings: dict[str, Schema] = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _object(embedding)},
        "model": _TEXT,
        "usage": _object({"prompt_tokens": _WHOLE, "total_tokens": _WHOLE}),
    }
    text_or_none: Schema = {"type": ["string", "null"]}
    error = {"message": _TEXT, "type": _TEXT, "param": text_or_none, "code": text_or_none}
    every = {"type": "array", "items": {"$ref": f"#/components/schemas/{_MODEL}"}}
    return {
        _MODEL: model,
        _MODELS: _object({"object": {"const": "list"}, "data": every}),
        _COMPLETION: _object(completion),
        _EMBEDDINGS: _object(embeddings),
        _ERROR: _object({"error": _object(error)}),
    }


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }
