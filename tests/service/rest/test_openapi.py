"""What the OpenAPI document says of REST's paths: each leads somewhere, and its answers fit."""

import pytest

from service.rest import routes
from service.rest.openapi import document
from tests.service.rest.exchanges import texts
from tests.service.schemas import fits

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [(path, way) for path, ways in DOCUMENT["paths"].items() for way in ways]
# What is answered by 501, and so is not described.
NOT_OFFERED = ("trace", "sharedmemory")


def concrete(path):
    return path.format(model="mood", version="1")


def schema_of(path, way, status="200"):
    found = DOCUMENT["paths"][path][way]["responses"][status]["content"]
    return found["application/json"]["schema"]


@pytest.mark.parametrize(("path", "way"), OPERATIONS)
def test_each_path_is_served_with_its_method(path, way):
    route = routes.find(concrete(path))
    assert route is not None
    assert way.upper() in route.by_method
    assert set(route.groups) <= {"name", "version"}


def test_nothing_that_is_offered_is_left_out():
    described = [concrete(path) for path in DOCUMENT["paths"]]
    for pattern, _ in routes._PATHS:
        if not any(word in pattern.pattern for word in NOT_OFFERED):
            assert any(map(pattern.fullmatch, described)), pattern.pattern


@pytest.mark.parametrize("path", [path for path, way in OPERATIONS if way == "get"])
def test_what_is_read_fits(rest, path):
    reply = rest.get(concrete(path))
    assert reply.status == 200, reply.body
    assert fits(reply.found, schema_of(path, "get"), SCHEMAS)


def test_tensors_and_refusals_fit(rest):
    path = "/v2/models/{model}/infer"
    content = {"id": "a", "inputs": [texts("text", "good", "bad")]}
    request = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert fits(content, request["schema"], SCHEMAS)
    found = rest.infer("mood", content).found
    assert fits(found, schema_of(path, "post"), SCHEMAS)
    assert not fits({**found, "outputs": None}, schema_of(path, "post"), SCHEMAS)
    refused = rest.infer("nobody", content)
    assert refused.status == 404
    assert fits(refused.found, schema_of(path, "post", "default"), SCHEMAS)
