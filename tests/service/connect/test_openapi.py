"""The document of the paths that speak JSON: all methods are in it, and it fits the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.asgi.openapi import merged
from tests.service.connect.conftest import UNROLL
from tests.service.schemas import SCHEMAS, fits


@pytest.fixture
def document(http_caller) -> dict[str, Any]:
    answer = http_caller.ask("/openapi.json", method="GET")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    read: dict[str, Any] = json.loads(answer.body)
    return read


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for each in (value.get("$ref"),) if isinstance(each, str))
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_method_with_one_message_each_way_is_described(document, envoy_service):
    methods = envoy_service.app.services.methods.values()
    unary = {m.path for m in methods if not (m.reads_several or m.writes_several)}
    assert {path for path in document["paths"] if path in unary} == unary
    assert f"{UNROLL}/Classify" in unary
    assert f"{UNROLL}/Generate" not in document["paths"]


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert found
    assert {name.removeprefix(SCHEMAS) for name in found} <= set(schemas)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Classify", '{"model":"mood","texts":["a b"]}'),
        ("Tag", '{"model":"tags","items":[{"text":"a b"}],"topLabels":2}'),
        ("Score", '{"model":"letters","items":[{"text":"ab"}]}'),
        (
            "Score",
            '{"model":"letters","items":[{"text":"ab","choices":["c","d e"],"topNextTokens":2}]}',
        ),
        ("Embed", '{"model":"letters","texts":["ab"]}'),
        ("ListModels", "{}"),
        ("GetModel", '{"name":"foods","withVocabulary":true}'),
    ],
)
def test_what_is_answered_fits_its_schema(document, http_caller, name, asked):
    answer = http_caller.json(name, asked)
    assert answer.status == 200, answer.body
    responses = document["paths"][f"{UNROLL}/{name}"]["post"]["responses"]
    schema = responses["200"]["content"]["application/json"]["schema"]
    value = json.loads(answer.body)
    assert value
    schemas = document["components"]["schemas"]
    assert fits(value, schema, schemas)
    assert not fits({**value, "other": 1}, schema, schemas)


def test_a_failure_fits_the_schema_of_errors(document, http_caller):
    value = json.loads(http_caller.json("Classify", "{}").body)
    assert fits(value, {"$ref": f"{SCHEMAS}connect.Error"}, document["components"]["schemas"])


def test_head_has_the_length_alone(http_caller):
    head = http_caller.ask("/openapi.json", method="HEAD")
    whole = http_caller.ask("/openapi.json", method="GET")
    assert head.body == b""
    assert head.headers["content-length"] == str(len(whole.body))


def test_parts_are_one_document_unless_they_contradict_each_other():
    one = {"paths": {"/a": {"get": {"x": 1}}}, "components": {"schemas": {"A": {}}}}
    other = {"paths": {"/a": {"post": {"x": 2}}}, "components": {"schemas": {"A": {}, "B": {}}}}
    document = merged([one, other])
    assert document["paths"]["/a"] == {"get": {"x": 1}, "post": {"x": 2}}
    assert set(document["components"]["schemas"]) == {"A", "B"}
    with pytest.raises(ValueError, match="'A'"):
        merged([one, {"components": {"schemas": {"A": {"type": "object"}}}}])
