"""Mutated requests over HTTP, of every protocol: what they hold, bytes, headers and paths."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.http_seeds import SEEDS as CALLS
from tests.fuzz.http_seeds import Request, Seed

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e39, 1e308,
    float("nan"), float("inf"), "", "a", "1", "true", "\ud800", "\0", "\n\n", "é" * 300, [], {},
    [[]], [None], {"a": 1}, [1, [2]], "x" * 5000,
)  # fmt: skip
NAMES = (
    "id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "text_input",
    "binary_data_size", "binary_data", "binary_data_output", "timeout", "priority", "sequence_id",
    "sequence_start", "classification", "max_tokens", "seed", "stop", "logit_bias", "stream",
    "temperature", "shared_memory_region", "ready", "triton_enable_empty_final_response",
    "model", "prompt", "n", "best_of", "echo", "logprobs", "stream_options", "include_usage",
    "suffix", "user", "source", "vector", "resume_token", "resume_every", "resume_at_end",
    "min_tokens", "tokens_per_message", "allowed_tokens", "banned_tokens", "top_p", "top_k",
    "texts", "items", "choices", "topNextTokens", "maxTokens", "sampling", "resumeToken", "watch",
    "beam", "constraint", "start", "words", "input", "encoding_format", "dimensions", "tensors",
)  # fmt: skip
DATATYPES = ("BOOL", "INT8", "UINT64", "FP16", "BF16", "FP32", "FP64", "BYTES", "INT64")
MODELS = ("mood", "mood.tensors", "letters", "letters.tensors", "speller", "foods", "tags-online")
ENCODINGS = ("gzip", "deflate", "br", "identity", "gzip, deflate", "\t")
_MOST_BYTES = 500_000


def texts(name: str, *values: str, shape: tuple[int, ...] = ()) -> dict[str, Any]:
    sizes = list(shape) or [len(values), 1]
    return {"name": name, "datatype": "BYTES", "shape": sizes, "data": list(values)}


def ids(name: str, *values: int, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": "INT64", "shape": list(shape), "data": list(values)}


SHORT = {"max_tokens": 4, "seed": 1}
TOKENS = [ids("tokens", 1, 2, 3, shape=(1, 3)), ids("lengths", 3, shape=(1, 1))]
_OTHERS: tuple[tuple[str, Any], ...] = (
    ("/v2/models/mood/infer", {"id": "a", "inputs": [texts("text", "good", "bad food")]}),
    (
        "/v2/models/mood/infer",
        {
            "inputs": [texts("text", "good")],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
            "parameters": {"priority": 2, "timeout": 5_000_000, "binary_data_output": True},
        },
    ),
    ("/v2/models/mood.tensors/infer", {"inputs": TOKENS}),
    ("/v2/models/letters.tensors/infer", {"inputs": TOKENS}),
    (
        "/v2/models/tags-online/infer",
        {
            "inputs": [texts("text", "the good food")],
            "parameters": {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        },
    ),
    (
        "/v2/models/letters/infer",
        {"inputs": [texts("prompt", "abc", shape=(1,))], "parameters": SHORT},
    ),
    ("/v2/models/letters/generate", {"text_input": "abc", "parameters": SHORT}),
    ("/v2/models/letters/generate_stream", {"text_input": "abc", **SHORT, "stop": ["a"]}),
    ("/v2/models/foods/generate", {"vector": [1.0, 2.0, 3.0], **SHORT}),
    ("/v2/models/mood/generate", {"text_input": ["good", "bad"]}),
    ("/v2/repository/index", {"ready": True}),
    ("/v2/repository/models/nobody/load", {"parameters": {"config": "{}"}}),
    ("/v2/logging", {"log_verbose_level": 0, "log_info": True}),
    (
        "/v1/completions",
        {
            "model": "letters",
            "prompt": "abc",
            "n": 2,
            "logprobs": 2,
            "echo": True,
            **SHORT,
            "logit_bias": {"3": 2.0},
            "stop": ["z"],
            "resume_at_end": True,
        },
    ),
    (
        "/v1/completions",
        {
            "model": "letters",
            "prompt": ["ab", "c"],
            "stream": True,
            **SHORT,
            "stream_options": {"include_usage": True},
            "banned_tokens": [3],
        },
    ),
    (
        "/v1/completions",
        {"model": "speller", "source": "abcab", "n": 2, "best_of": 3, "max_tokens": 4},
    ),
    ("/v1/completions", {"model": "foods", "vector": [1.0, 2.0, 3.0], **SHORT}),
    ("/v1/chat/completions", {"model": "letters", "messages": [{"role": "user"}]}),
)
SEEDS = (*(Seed(path, content) for path, content in _OTHERS), *CALLS)


def binary_seed() -> Request:
    """Ids in binary behind the JSON."""
    raw = b"".join(n.to_bytes(8, "little") for n in (1, 2, 3))
    tensor = {"name": "tokens", "datatype": "INT64", "shape": [1, 3]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor, TOKENS[1]]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    return Request("/v2/models/mood.tensors/infer", head + raw, headers=length)


def seeds() -> list[Request]:
    """Requests that are answered well, or by what they ask for."""
    return [*(seed.request() for seed in SEEDS), binary_seed()]


def mutated(name: str, count: int) -> Iterator[Request]:
    """name: of the draw."""
    draw = random.Random(name)
    for _ in range(count):
        if draw.random() < 0.1:
            request = binary_seed()
        else:
            seed = draw.choice(SEEDS)
            content = seed.content
            for _ in range(draw.randint(1, 3)):
                content = mutate(draw, content)
            request = seed.frame(seed.path, content)
        for change in (_bytes, _headers, _path):
            if draw.random() < 0.15:
                change(draw, request)
        # What is beyond the largest message is refused while it is still sent.
        request.body = request.body[:_MOST_BYTES]
        yield request


def mutate(draw: random.Random, content: Any) -> Any:
    """One place of it, changed; the rest is the same."""
    if isinstance(content, dict) and content and draw.random() < 0.85:
        name = draw.choice(list(content))
        ways: list[Callable[[], Any]] = [
            lambda: content | {name: mutate(draw, content[name])},
            lambda: content | {draw.choice(NAMES): _odd(draw)},
            lambda: {key: value for key, value in content.items() if key != name},
        ]
        return draw.choices(ways, (6, 2, 1))[0]()
    if isinstance(content, list) and content and draw.random() < 0.85:
        place = draw.randrange(len(content))
        ways = [
            lambda: [*content[:place], mutate(draw, content[place]), *content[place + 1 :]],
            lambda: content * draw.choice((2, 50)),
            lambda: content[:place],
            lambda: [content],
        ]
        return draw.choices(ways, (5, 1, 1, 1))[0]()
    return _odd(draw)


def _odd(draw: random.Random) -> Any:
    if draw.random() < 0.2:
        return draw.choice((*NAMES, *DATATYPES, *MODELS))
    return draw.choice(ODD)


def _bytes(draw: random.Random, request: Request) -> None:
    if not request.body:
        return
    body = bytearray(request.body)
    place = draw.randrange(len(body))
    way = draw.randrange(5)
    if way == 0:
        body[place] = draw.randrange(256)
    elif way == 1:
        del body[place:]
    elif way == 2:
        body[place:place] = draw.choice((b"[" * 3000, b'{"a":' * 2000, b'"', b",", b"\xff", b"{}"))
    elif way == 3:
        body += draw.randbytes(20)
    else:
        body[place : place + 5] = b""
    request.body = bytes(body)


def _headers(draw: random.Random, request: Request) -> None:
    way = draw.randrange(4)
    if way == 0:
        lengths = ("0", "-1", "x", "9" * 30, str(draw.randrange(len(request.body) + 9)))
        request.headers["Inference-Header-Content-Length"] = draw.choice(lengths)
    elif way == 1:
        request.headers["Content-Encoding"] = draw.choice(ENCODINGS)
        if draw.random() < 0.6:
            request.body = gzip.compress(request.body)[: draw.choice((None, -9, 10))]
    elif way == 2:
        request.headers["Accept-Encoding"] = draw.choice(ENCODINGS)
    else:
        name = draw.choice(("priority", "authorization", "traceparent", "x-request-id", "x-odd"))
        request.headers[name] = draw.choice(("u=0", "u=9", "x", "\xff\xfe", "é" * 200, ""))


def _path(draw: random.Random, request: Request) -> None:
    parts = request.path.split("/")
    odd = (*MODELS, "versions", "1", "infer", "stats", "%2F", "%00", "%ff", "..", "", "x" * 3000)
    parts[draw.randrange(1, len(parts))] = draw.choice(odd)
    request.path = "/".join(parts)
    request.method = draw.choice(("POST", "POST", "GET", "PUT", "DELETE", "OPTIONS"))
