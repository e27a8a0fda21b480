"""What the OpenAPI document says of OpenAI's paths: every field, and what is answered."""

import json

import pytest

from service.openai.fields import FIELDS
from service.openai.openapi import document
from tests.service.schemas import fits

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]


def operation(path):
    (found,) = DOCUMENT["paths"][path].values()
    return found


def schema_of(path, status="200"):
    return operation(path)["responses"][status]["content"]["application/json"]["schema"]


def request_schema():
    return operation("/v1/completions")["requestBody"]["content"]["application/json"]["schema"]


def test_every_field_that_is_read_is_described():
    assert request_schema()["properties"].keys() == FIELDS


@pytest.mark.parametrize(
    "fields",
    [
        {
            "n": 2,
            "logprobs": 2,
            "echo": True,
            "seed": 3,
            "temperature": 0.5,
            "logit_bias": {"3": 1},
        },
        {"stop": ["a"], "user": "someone", "stream_options": None, "resume_at_end": True},
        {"prompt": ["ab", "c"], "best_of": 3, "max_tokens": 4, "seed": None},
        {"structured_outputs": {"choice": ["bad"], "regex": None}},
    ],
    ids=["choices", "resumable", "beam", "structured"],
)
def test_requests_and_answers_fit(api, fields):
    answer = api.complete(**fields)
    request = {"model": "letters", "prompt": "abc", **fields}
    assert fits(request, request_schema(), SCHEMAS)
    assert fits(answer.content, schema_of("/v1/completions"), SCHEMAS)
    assert not fits({**answer.content, "choices": [{}]}, schema_of("/v1/completions"), SCHEMAS)


def test_models_and_errors_fit(api):
    assert fits(api.get("/v1/models").content, schema_of("/v1/models"), SCHEMAS)
    one = api.get("/v1/models/foods").content
    assert fits(one, schema_of("/v1/models/{model}"), SCHEMAS)
    assert not fits({**one, "object": "modell"}, schema_of("/v1/models/{model}"), SCHEMAS)
    refused = api.post(json.dumps({"prompt": 1}).encode())
    assert fits(refused.content, schema_of("/v1/completions", "default"), SCHEMAS)


def test_both_parts_are_in_the_document_of_the_port(api):
    paths = api.get("/openapi.json").content["paths"]
    assert DOCUMENT["paths"].keys() <= paths.keys()
    assert "/v2/models/{model}/infer" in paths
