"""Every refusal has OpenAI's shape, a status that says why, and a sentence that says what to do."""

import gzip
import http.client
import json
import random
import re
from pathlib import Path

import pytest

from bundle.sampling import SAMPLING_PARAMETERS
from service.access.auth import new_token
from service.openai.fields import FIELDS, MAX_PROMPTS
from service.openai.json_body import read_object
from tests.service.grpc.test_service import wait_until
from tests.service.openai.api import Api, with_defaults

INVALID = "invalid_request_error"

# name: (fields, the field that it is about, what the message holds)
CASES = {
    "unknown field": ({"colour": 1}, "colour", "unknown parameter: 'colour'"),
    "long name": ({"x" * 1000: 1}, "x" * 64 + "…", "unknown parameter"),
    "messages": ({"messages": []}, "messages", "unknown parameter"),
    "no model": ({"model": None, "prompt": "a"}, "model", "GET /v1/models"),
    "empty model": ({"model": "", "prompt": "a"}, "model", "GET /v1/models"),
    "model of another type": ({"model": 3}, "model", "model is a number; send a string"),
    "no input": ({"model": "letters"}, None, "has no input; set 'prompt'"),
    "two inputs": ({"source": "a"}, "source", "prompt and source; send one"),
    "an input of another model": ({"model": "letters", "source": "a"}, None, "takes a prompt"),
    "token ids": ({"prompt": [1, 2]}, "prompt", "token ids are not read"),
    "lists of token ids": ({"prompt": [[1, 2]]}, "prompt", "token ids are not read"),
    "a mixed list": ({"prompt": ["a", 1]}, "prompt", "send strings"),
    "no prompts": ({"prompt": []}, "prompt", f"0 prompts; send 1 to {MAX_PROMPTS}"),
    "many prompts": ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt", "send 1 to"),
    "an object as a prompt": ({"prompt": {}}, "prompt", "prompt is an object"),
    "an empty prompt": ({"prompt": ""}, None, "is empty"),
    "half a pair": ({"prompt": "a\ud800"}, "prompt", "surrogate pair"),
    "half a pair in stop": ({"stop": ["\udc00"]}, "stop", "surrogate pair"),
    "half a pair as a name": ({"\ud800": 1}, "\ud800", "unknown parameter"),
    "negative max_tokens": ({"max_tokens": -1}, "max_tokens", "choose one from 0"),
    "no max_tokens": ({"max_tokens": 0}, None, "max_tokens is 0"),
    "echo of a search": ({"max_tokens": 0, "echo": True, "best_of": 3, "seed": None}, None,
                         "max_tokens is 0"),
    "echo with a resume token": ({"max_tokens": 0, "echo": True, "resume_at_end": True}, None,
                                 "max_tokens is 0"),
    "huge max_tokens": ({"max_tokens": 10**30}, "max_tokens", "max_tokens is too large"),
    "max_tokens with a fraction": ({"max_tokens": 1.5}, "max_tokens", "a whole number"),
    "max_tokens as true": ({"max_tokens": True}, "max_tokens", "is true or false"),
    "no choices": ({"n": 0}, "n", "choose one from 1 to 64"),
    "many choices": ({"n": 65}, "n", "choose one from 1 to 64"),
    "best_of below n": ({"n": 3, "best_of": 2}, "best_of", "choose at least n"),
    "wide best_of": ({"best_of": 17}, "best_of", "choose up to 16"),
    "best_of streamed": ({"best_of": 3, "stream": True}, "best_of", "cannot be streamed"),
    "best_of with logprobs": ({"best_of": 3, "logprobs": 2}, "logprobs", "send logprobs 0"),
    "best_of with a seed": ({"best_of": 3}, None, "beam search goes without seed"),
    "logprobs as true": ({"logprobs": True}, "logprobs", "a whole number"),
    "many logprobs": ({"logprobs": 21}, "logprobs", "choose one from 0 to 20"),
    "stop as a number": ({"stop": 1}, "stop", "a string or a list of them"),
    "stops as numbers": ({"stop": [1]}, "stop", "stop is a number"),
    "many stops": ({"stop": ["a"] * 17}, None, "at most 16"),
    "an empty stop": ({"stop": [""]}, None, "0 characters"),
    "a choice as a text": ({"guided_choice": "a"}, "guided_choice", "a list of strings"),
    "a grammar as a structure": (
        {"structured_outputs": {"grammar": "a"}}, "structured_outputs.grammar", "unknown parameter",
    ),
    "a structure without a constraint": (
        {"structured_outputs": {"json": None}}, "structured_outputs", "send choice, regex or json",
    ),
    "a structure's choice as a text": (
        {"structured_outputs": {"choice": "a"}}, "structured_outputs.choice", "a list of strings",
    ),
    "two structures": (
        {"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs.json",
        "another constraint",
    ),
    "a schema as a number": ({"guided_json": 3}, "guided_json", "send a JSON schema"),
    "two constraints": (
        {"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "another constraint",
    ),
    "another format": ({"response_format": {"type": "json_object"}}, "response_format.type",
                       "is not 'text' or 'json_schema'"),
    "a format without its schema": (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.schema", "send a JSON schema",
    ),
    "a format of nothing": (
        {"response_format": {"type": "json_schema"}}, "response_format.json_schema",
        "an object with the schema",
    ),
    "what cannot be spelt": ({"guided_regex": "xyz"}, None, "lacks 'x', 'y', 'z'"),
    "what cannot be held to": (
        {"guided_json": {"type": "string", "oneOf": []}}, None, "#/oneOf cannot be held to",
    ),
    "a suffix": ({"suffix": "end"}, "suffix", "no suffix"),
    "negative seed": ({"seed": -1}, "seed", "choose one from 0"),
    "long seed": ({"seed": 2**64}, "seed", "choose one from 0"),
    "stream as a string": ({"stream": "yes"}, "stream", "true or false"),
    "options without stream": (
        {"stream_options": {"include_usage": True}}, "stream_options", "goes with stream"
    ),
    "unknown option": (
        {"stream": True, "stream_options": {"shape": 1}}, "stream_options.shape", "unknown"
    ),
    "options as a list": ({"stream": True, "stream_options": []}, "stream_options", "an object"),
    "a bias of no token": ({"logit_bias": {"a": 1}}, "logit_bias.a", "is no token id"),
    "a bias of a far token": ({"logit_bias": {"99": 1}}, None, "token 99"),
    "a bias that is none": ({"logit_bias": {"1": "x"}}, "logit_bias.1", "send a number"),
    "a large bias": ({"logit_bias": {"1": 101}}, None, "logit_bias[1] is 101"),
    "biases as a list": ({"logit_bias": [1]}, "logit_bias", "an object"),
    "banned as a string": ({"banned_tokens": "a"}, "banned_tokens", "a list of token ids"),
    "too many banned": ({"banned_tokens": [1] * 20_001}, "banned_tokens", "20001 entries; send"),
    "a far token": ({"allowed_tokens": [99]}, None, "token 99"),
    "a large number": ({"temperature": 1e39}, "temperature", "float32"),
    "an endless number": ({"temperature": 10**400}, "temperature", "float32"),
    "a number as a string": ({"top_p": "1"}, "top_p", "top_p is a string; send a number"),
    "a top_k with a fraction": ({"top_k": 1.5}, "top_k", "a whole number"),
    "no base64": ({"model": "letters", "resume_token": "*"}, "resume_token", "base64"),
    "a resume token of ours": ({"model": "letters", "resume_token": "AAAA"}, None, "resume token"),
    "a vector of strings": ({"model": "foods", "vector": ["a"]}, "vector", "vector is a string"),
    "a short vector": ({"model": "foods", "vector": [1]}, None, "vector has 1 values"),
    "frequent resume tokens": ({"resume_every": 3}, None, "resume_every is 3"),
    "another task": ({"model": "mood", "prompt": "a"}, None, "call Classify"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_field_that_does_not_fit_is_named(api, name):
    fields, param, words = CASES[name]
    error = api.refuse(**fields)
    assert words in error["message"]
    assert (error["type"], error["param"]) == (INVALID, param)


@pytest.mark.parametrize("parameter", SAMPLING_PARAMETERS, ids=lambda p: p.name)
def test_every_sampling_parameter_of_the_table_is_a_field(api, parameter):
    assert parameter.name in FIELDS
    value = parameter.least - 1
    error = api.refuse(**{parameter.name: value})
    assert (error["param"], error["message"]) == (parameter.name, parameter.problem(value))


def test_the_page_lists_every_field():
    page = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
    table = page.partition("## Fields")[2].partition("## Answers")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name.partition(".")[0] for row in rows for name in re.findall(r"`([a-z_.]+)`", row)}
    assert named == FIELDS


def test_a_stream_is_refused_as_a_whole_answer_is(api):
    error = api.refuse(404, model="nobody", prompt="a", stream=True)
    assert "served are: " in error["message"]
    assert (error["type"], error["code"]) == (INVALID, "model_not_found")


def test_one_prompt_that_is_refused_refuses_all(api, standing_service):
    """None of the others runs on, and nothing of them is sent."""
    error = api.refuse(prompt=["abc", "d" * 65, "e"], stream=False)
    assert "prompt has 65 characters" in error["message"]
    thread = standing_service.app.registry.get("letters").thread
    wait_until(lambda: thread.open_work == 0)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/chat/completions", "these models continue text"),
        ("/v1/responses", "these models continue text"),
        ("/v1/audio/speech", "/v1/audio/speech is not offered"),
        ("/v1/", "/v1/ is not offered"),
        (f"/v1/{'x' * 200}", f"/v1/{'x' * 96} is not offered"),
    ],
)
def test_what_these_models_cannot_do_is_said_with_what_to_use(api, path, words):
    answer = api.post({"model": "letters", "messages": [], "input": "a"}, path)
    assert answer.status == 404
    assert words in answer.error["message"]
    assert "/v1/completions" in answer.error["message"]
    assert answer.error["code"] == "unsupported_endpoint"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/letters", "GET"),
    ],
)
def test_other_methods_are_not_allowed(api, method, path, allowed):
    answer = api.request(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert allowed in answer.error["message"]


# -- bodies that are no request ----------------------------------------------------------------

BODIES = {
    "nothing": (b"", "cannot be read as JSON"),
    "no JSON": (b"{", "cannot be read as JSON"),
    "a form": (b"model=letters&prompt=a", "cannot be read as JSON"),
    "a list": (b"[]", "no JSON object"),
    "null": (b"null", "no JSON object"),
    "NaN": (b'{"model":"letters","prompt":"a","temperature":NaN}', "NaN is no number"),
    "infinity": (b'{"model":"letters","prompt":"a","temperature":-Infinity}', "no number"),
    "no text": (b'{"model":"\xff\xfe"}', "cannot be read as JSON"),
    "a long number": (b'{"seed":' + b"1" * 5000 + b"}", "cannot be read as JSON"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    "many values": (b'{"prompt":[' + b"[]," * 150_000 + b"[]]}", "commas and brackets"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_says_so(api, name):
    body, words = BODIES[name]
    answer = api.post(body)
    assert answer.status == 400
    assert words in answer.error["message"]
    assert answer.error["type"] == INVALID


def test_a_body_that_is_too_large_is_not_worth_trying_again(start_service):
    api = Api(start_service(max_message_bytes=2000).target)
    for headers, body in (({}, b" " * 3000), ({"content-encoding": "gzip"}, b"")):
        data = body or gzip.compress(b" " * 100_000)
        answer = api.post(data, **headers)
        assert (answer.status, answer.headers["x-should-retry"]) == (429, "false")
        assert "larger than max (2000)" in answer.error["message"]


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 400), ("deflate", 400), ("br", 501), ("gzip, gzip", 501)]
)
def test_a_body_that_cannot_be_decompressed_is_refused(api, encoding, status):
    answer = api.post(b"{}", **{"content-encoding": encoding})
    assert answer.status == status
    assert answer.error["message"]


def mutations(count):
    """Requests with bytes changed, left out, doubled and put elsewhere; always the same ones."""
    draw = random.Random(1)
    seeds = [
        {"n": 2, "logprobs": 2, "echo": True, "stop": ["a", "b"]},
        {"stream": True, "stream_options": {"include_usage": True}, "prompt": ["a", "b"]},
        {"model": "foods", "vector": [1, 2.5, 3], "logit_bias": {"1": 2}, "top_p": 0.5},
        {"model": "letters", "resume_token": "AAAA", "allowed_tokens": [1, 2]},
    ]
    for number in range(count):
        body = bytearray(json.dumps(with_defaults({**seeds[number % len(seeds)]})).encode())
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(body))
            piece = body[at : at + draw.randint(1, 12)]
            match draw.randrange(5):
                case 0:
                    body[at] = draw.randrange(256)
                case 1:
                    del body[at : at + len(piece)]
                case 2:
                    body[at:at] = piece
                case 3:
                    body[at:at] = draw.choice(
                        (b"null", b"{}", b"[]", b"-1", b"1e999", b'"', b"\\u")
                    )
                case 4:
                    other = draw.randrange(len(body))
                    body[other:other] = piece
        yield bytes(body)


def test_whatever_is_sent_is_answered_or_refused_as_input(standing_service, caplog):
    """On one connection, which outlives them all."""
    host, _, port = standing_service.target.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    statuses = []
    for body in mutations(400):
        connection.request("POST", "/v1/completions", body)
        response = connection.getresponse()
        answer = response.read()
        statuses.append(response.status)
        assert response.status in (200, 400, 404), (body, answer)
        if response.status != 200:
            assert json.loads(answer)["error"]["message"], body
    connection.close()
    assert {200, 400} <= set(statuses)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_names_that_come_twice_are_read_once():
    assert read_object(b'{"a":1,"a":2}') == {"a": 2}


# -- who calls ---------------------------------------------------------------------------------


@pytest.fixture
def secured(start_service, tmp_path):
    """An API with tokens, and the headers of callers by role."""
    made = {role: new_token(role, [role]) for role in ("infer", "admin")}
    (tmp_path / "tokens").write_text("\n".join(line for _, line in made.values()))
    api = Api(start_service(auth_tokens=tmp_path / "tokens").target)
    return api, {role: {"authorization": f"Bearer {token}"} for role, (token, _) in made.items()}


def test_keys_are_tokens(secured):
    api, headers = secured
    body = {"model": "letters", "prompt": "abc", "seed": 7}
    assert api.post(body, **headers["infer"]).texts
    assert api.get("/v1/models", **headers["infer"]).content["data"]
    for wrong in ({}, {"authorization": "Bearer nobody"}, {"authorization": "Basic bm9ib2R5"}):
        answer = api.post(body, **wrong)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert answer.error["type"] == "authentication_error"
        assert api.get("/v1/models", **wrong).status == 401
        assert api.get("/v1/models/letters", **wrong).status == 401


def test_a_role_that_does_not_infer_does_not_complete(secured):
    api, headers = secured
    answer = api.post({"model": "letters", "prompt": "abc"}, **headers["admin"])
    assert (answer.status, answer.error["type"]) == (403, "permission_error")


def test_whoever_is_not_known_is_refused_before_a_body_is_read(secured):
    """Its length is announced, and none of it is sent."""
    api, _ = secured
    host, _, port = api.target.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("content-length", "1000")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_a_caller_with_its_share_of_calls_is_told_when_to_try_again(start_service):
    api = Api(start_service(max_calls_per_caller=2).target)
    answer = api.post({"model": "letters", "prompt": ["a", "b", "c"], "max_tokens": 400})
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1
    assert "x-should-retry" not in answer.headers
