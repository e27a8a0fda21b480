"""Requests over HTTP before they are mutated: what each holds, and how a protocol frames that."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format
from google.protobuf.message import Message

from unroll.v1 import unroll_pb2 as pb

UNROLL = "/unroll.v1.UnrollService"
CONNECT_JSON, CONNECT_PROTO = "application/connect+json", "application/connect+proto"
WEB, WEB_TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
# Of a target, which no limit of bodies bounds; a longer one is Envoy's to refuse.
_MOST_TARGET = 8000


@dataclass
class Request:
    """What is sent. headers: by name."""

    path: str
    body: bytes
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def dump(content: Any) -> bytes:
    """What json can write but not every reader take: NaN, halves of pairs, huge numbers."""
    return json.dumps(content).encode()


def as_body(path: str, content: Any) -> Request:
    return Request(path, dump(content))


Frame = Callable[[str, Any], Request]


@dataclass(frozen=True)
class Seed:
    """content: what is mutated. frame: makes a request of it, whatever has become of it."""

    path: str
    content: Any
    frame: Frame = as_body

    def request(self) -> Request:
        return self.frame(self.path, self.content)


def _as_json(path: str, content: Any) -> Request:
    return Request(path, dump(content), headers={"Content-Type": "application/json"})


def _in_target(path: str, content: Any) -> Request:
    target = f"{path}?connect=v1&encoding=json&message={quote(dump(content), safe='')}"
    return Request(target[:_MOST_TARGET], b"", "GET")


def _enveloped(content_type: str, kind: type[Message] | None = None) -> Frame:
    """kind: of messages in protobuf; None for JSON. What is a list is several messages."""

    def frame(path: str, content: Any) -> Request:
        messages = content if isinstance(content, list) else [content]
        parts = [_encoded(message, kind) for message in messages]
        body = b"".join(b"\0" + len(part).to_bytes(4) + part for part in parts)
        if content_type == WEB_TEXT:
            body = b64encode(body)
        return Request(path, body, headers={"Content-Type": content_type})

    return frame


_NO_MESSAGE = (AttributeError, TypeError, ValueError, SystemError, OverflowError)


def _encoded(content: Any, kind: type[Message] | None) -> bytes:
    """What cannot be a message of ``kind`` goes as JSON, which is none either."""
    if kind is not None:
        # A SystemError for a name with half of a pair, an OverflowError for a number beyond floats.
        try:
            return json_format.ParseDict(content, kind()).SerializeToString()
        except (json_format.ParseError, *_NO_MESSAGE):
            pass
    return dump(content)


_CLASSIFY = {"model": "mood", "texts": ["good", "bad food"]}
_SCORE = {"model": "letters", "items": [{"text": "abc", "topNextTokens": 2}, {"text": "ab"}]}
GENERATE = {
    "model": "letters",
    "prompt": "abc",
    "maxTokens": 4,
    "sampling": {"seed": "7", "temperature": 0.7},
    "topLogProbabilities": 2,
    "echo": True,
}
TAGGED = [
    {"start": {"model": "tags-online", "topLabels": 2}},
    {"text": "the good food"},
]
SEEDS: tuple[Seed, ...] = (
    Seed(f"{UNROLL}/Classify", _CLASSIFY, _as_json),
    Seed(f"{UNROLL}/Score", _SCORE, _as_json),
    Seed(f"{UNROLL}/Classify", _CLASSIFY, _in_target),
    Seed(f"{UNROLL}/Generate", GENERATE, _enveloped(CONNECT_JSON)),
    Seed(f"{UNROLL}/Generate", GENERATE, _enveloped(CONNECT_PROTO, pb.GenerateRequest)),
    Seed(f"{UNROLL}/StreamTag", TAGGED, _enveloped(CONNECT_JSON)),
    Seed(f"{UNROLL}/Classify", _CLASSIFY, _enveloped(WEB, pb.ClassifyRequest)),
    Seed(f"{UNROLL}/Score", _SCORE, _enveloped(WEB_TEXT, pb.ScoreRequest)),
    Seed(f"{UNROLL}/Generate", GENERATE, _enveloped(WEB, pb.GenerateRequest)),
    Seed("/v1/embeddings", {"model": "letters", "input": ["abc", "de"], "user": "someone"}),
    Seed("/v1/embeddings", {"model": "letters", "input": "ab", "encoding_format": "base64"}),
)
