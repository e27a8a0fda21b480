"""/v1/embeddings: the numbers that Embed gives, in OpenAI's shape."""

import base64
import json
import re
import struct
from pathlib import Path

import pytest

from service.openai.fields import EMBEDDING_FIELDS
from service.openai.openapi import document
from tests.service.schemas import fits

PATH = "/v1/embeddings"
TEXTS = ["abc", "fed a"]
DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]


@pytest.fixture
def embed(api):
    def embed(**fields):
        return api.post({"model": "letters", "input": TEXTS, **fields}, PATH)

    return embed


def test_the_numbers_are_those_of_embed(caller, embed):
    """Once they are float32 again, to the last bit; and usage counts what was read."""
    expected = caller.embed("letters", TEXTS)
    content = embed().content
    assert [each["index"] for each in content["data"]] == [0, 1]
    for each, embedding in zip(content["data"], expected, strict=True):
        assert each["object"] == "embedding"
        values = struct.unpack("<13f", struct.pack("<13f", *each["embedding"]))
        assert list(values) == embedding.values
    assert content["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert (content["object"], content["model"]) == ("list", "letters")


def test_base64_is_of_the_same_float32(caller, embed):
    expected = caller.embed("letters", TEXTS)
    content = embed(encoding_format="base64").content
    for each, embedding in zip(content["data"], expected, strict=True):
        data = base64.b64decode(each["embedding"])
        assert list(struct.unpack("<13f", data)) == embedding.values


def test_a_string_is_one_input_and_tensors_are_chosen(caller, embed):
    content = embed(input="abc", tensors=["cell_0", "cell_1"], model_version="1").content
    (expected,) = caller.embed("letters", ["abc"], tensors=["cell_0", "cell_1"])
    assert content["data"][0]["embedding"] == pytest.approx(expected.values, abs=1e-7)


# name: (fields, the field that it is about, what the message holds)
CASES = {
    "unknown field": ({"colour": 1}, "colour", "unknown parameter: 'colour'"),
    "no model": ({"model": None}, "model", "GET /v1/models"),
    "no input": ({"input": None}, "input", "the request has no input"),
    "no inputs": ({"input": []}, "input", "there are 0 inputs; send 1 to 1024"),
    "many inputs": ({"input": ["a"] * 1025}, "input", "there are 1025 inputs"),
    "token ids": ({"input": [1, 2]}, "input", "token ids are not read here; send strings"),
    "lists of token ids": ({"input": [[1], [2]]}, "input", "token ids are not read here"),
    "an object": ({"input": {}}, "input", "input is an object"),
    "an empty input": ({"input": ["a", ""]}, None, "texts[1] is empty"),
    "half a pair": ({"input": "a\ud800"}, "input", "surrogate pair"),
    "another format": (
        {"encoding_format": "int8"}, "encoding_format", "is 'int8'; choose float or base64"
    ),
    "dimensions": ({"dimensions": 8}, "dimensions", "have one length, that of its state; leave it"),
    "another tensor": ({"tensors": ["x"]}, None, "has no state 'x'"),
    "a model that does not embed": ({"model": "mood"}, None, "does not embed"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_field_that_does_not_fit_is_named(embed, name):
    fields, param, words = CASES[name]
    answer = embed(**fields)
    assert answer.status == 400, answer.body
    assert words in answer.error["message"]
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)


def test_a_model_that_is_not_there_and_another_method_are_refused(api, embed):
    assert embed(model="nobody").status == 404
    answer = api.get(PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_the_document_describes_every_field_and_the_answer(embed):
    operation = DOCUMENT["paths"][PATH]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["schema"]
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert asked["properties"].keys() == EMBEDDING_FIELDS
    for fields in ({}, {"encoding_format": "base64"}):
        content = embed(**fields).content
        assert fits({"model": "letters", "input": TEXTS, **fields}, asked, SCHEMAS)
        assert fits(content, answered, SCHEMAS)
    assert not fits({**content, "data": [{}]}, answered, SCHEMAS)


def test_models_say_whether_they_embed(api):
    models = {model["id"]: model for model in api.get("/v1/models").content["data"]}
    assert models["letters"]["embeds"] is True
    assert "embeds" not in models["mood"]


def test_whatever_is_sent_is_answered_or_refused_as_input(api):
    body = json.dumps({"model": "letters", "input": ["abc"], "encoding_format": "float"}).encode()
    for at in range(0, len(body), 3):
        for piece in (b"", b"null", b"[", b'"', b"\\u"):
            answer = api.post(body[:at] + piece + body[at + 1 :], PATH)
            assert answer.status in (200, 400, 404), answer.body


def test_the_page_lists_every_field():
    page = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
    table = page.partition("## Embeddings")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)} == EMBEDDING_FIELDS
