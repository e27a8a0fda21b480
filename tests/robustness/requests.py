"""The requests that callers choose from, and what each gives from a service left in peace."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import grpc

from tests.service.oip.calls import ask
from tests.tiny import WORDS
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

SECONDS = 20.0  # deadline of a call: one that meets it was forgotten

LETTERS, SPELLER, TAGGER, MOOD = "letters", "speller", "tags-online", "mood"
VERSIONS = ("1", "2")  # of MOOD, with weights of their own

GENERATED = {
    "one token": pb.GenerateRequest(model=LETTERS, prompt="a", max_tokens=1),
    "short prompt": pb.GenerateRequest(model=LETTERS, prompt="ab", max_tokens=60),
    "long prompt": pb.GenerateRequest(model=LETTERS, prompt="abc de" * 10, max_tokens=90),
    "long stream": pb.GenerateRequest(model=LETTERS, prompt="k", max_tokens=300),
    "stop text": pb.GenerateRequest(model=LETTERS, prompt="cab", max_tokens=120, stop=["aa"]),
    "source": pb.GenerateRequest(model=SPELLER, source="abcdef", max_tokens=50, min_tokens=30),
}
for number, request in enumerate(GENERATED.values()):
    request.sampling.seed, request.log_probabilities, request.resume_every = number, True, 16

TAGGED = {
    name: tuple(WORDS[(step * place) % len(WORDS)] for place in range(count))
    for name, step, count in (("few", 3, 6), ("some", 5, 24), ("many", 7, 90))
}
CLASSIFIED = {"one": ("good food",), "many": ("the food is not bad", "bad", "great was the food")}
# What a request of a sequence holds.
PARTS = ("good", "the food is", "not bad", "great great")


def bits(value: float) -> bytes:
    return struct.pack("<f", value)


def token_of(token: pb.Token) -> tuple[Any, ...]:
    return token.position, token.id, token.text, bits(token.log_probability)


def label_of(token: pb.TaggedToken) -> tuple[Any, ...]:
    return token.position, token.text, token.label, bits(token.probability)


def classes_of(response: pb.ClassifyResponse) -> list[Any]:
    return [
        [(label.label, bits(label.probability)) for label in each.labels]
        for each in response.classifications
    ]


def part_request(group: object, part: str, is_first: bool, is_last: bool) -> Any:
    flags = {"sequence_id": str(group)}
    flags |= {"sequence_start": True} if is_first else {}
    flags |= {"sequence_end": True} if is_last else {}
    return ask(TAGGER, {"text": [[part]]}, raw=True, parameters=flags)


def part_answer(response: Any) -> tuple[bytes, ...]:
    return tuple(response.raw_output_contents)


class References:
    """Sends the service one request at a time, each once."""

    def __init__(self, target: str, versions: Sequence[str]) -> None:
        """versions: of MOOD, all of which are served."""
        self._channel = grpc.insecure_channel(target)
        self._unroll = unroll_pb2_grpc.UnrollServiceStub(self._channel)
        self._inference = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.generated = {name: self._generate(each) for name, each in GENERATED.items()}
        self.tagged = {name: self._tag(words) for name, words in TAGGED.items()}
        self._parts: dict[tuple[str, ...], tuple[bytes, ...]] = {}
        self.classified = {
            (version, name): self._classify(version, texts)
            for version in versions
            for name, texts in CLASSIFIED.items()
        }

    def after(self, parts: Sequence[str]) -> tuple[bytes, ...]:
        """What the last of the parts of a sequence is answered."""
        key = tuple(parts)
        if key not in self._parts:
            for number, part in enumerate(key):
                is_last = number == len(key) - 1
                request = part_request(f"reference {key}", part, number == 0, is_last)
                response = self._inference.ModelInfer(request, timeout=SECONDS)
                self._parts[key[: number + 1]] = part_answer(response)
        return self._parts[key]

    def close(self) -> None:
        self._channel.close()

    def _generate(self, request: pb.GenerateRequest) -> list[Any]:
        messages = self._unroll.Generate(request, timeout=SECONDS)
        return [token_of(token) for message in messages for token in message.tokens]

    def _classify(self, version: str, texts: Sequence[str]) -> list[Any]:
        request = pb.ClassifyRequest(model=MOOD, model_version=version, texts=texts)
        return classes_of(self._unroll.Classify(request, timeout=SECONDS))

    def _tag(self, words: Sequence[str]) -> list[Any]:
        start = pb.StreamTagRequest(start=pb.StreamTagStart(model=TAGGER))
        rest = pb.StreamTagRequest(words=pb.Words(words=words))
        messages = self._unroll.StreamTag(iter((start, rest)), timeout=SECONDS)
        return [label_of(token) for message in messages for token in message.tokens]
