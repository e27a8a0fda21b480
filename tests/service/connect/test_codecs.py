"""JSON of any kind is a message or is refused as input; there is no third."""

from __future__ import annotations

import asyncio
import random

import pytest
from google.protobuf import json_format

from service.connect.codecs import JsonCodec, from_json, to_json
from service.engine.errors import Overloaded, WrongInput
from unroll.inference import grpc_service_pb2
from unroll.v1 import unroll_pb2 as pb

SENT = pb.GenerateRequest(
    model="letters",
    prompt="ab",
    max_tokens=3,
    sampling=pb.Sampling(temperature=0.5, seed=2**63, logit_bias={3: 1.5}, allowed_tokens=[1, 2]),
    stop=["a"],
    beam=pb.Beam(width=2),
)
INFER = grpc_service_pb2.ModelInferRequest(
    model_name="letters",
    parameters={"a": grpc_service_pb2.InferParameter(int64_param=-(2**63))},
    raw_input_contents=[b"\xff\x00"],
)
# What replaces a part of a message's JSON.
PIECES = [
    b"", b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"1e999", b"NaN",
    b"Infinity", b'"\\ud800"', b"\xff", b"\x00", b"9" * 40, b"{}", b"[[]]", b'{"a":1}',
]  # fmt: skip


@pytest.mark.parametrize("message", [SENT, INFER], ids=["generate", "infer"])
def test_messages_come_back_as_they_were(message):
    assert type(message).FromString(from_json(to_json(message), type(message))) == message


@pytest.mark.parametrize("message", [SENT, INFER], ids=["generate", "infer"])
def test_whatever_json_is_made_of_it_is_read_or_refused(message):
    """3,000 mutations, some of which are messages still."""
    choose, whole = random.Random(7), to_json(message)
    read = 0
    for _ in range(3_000):
        mutated = bytearray(whole)
        for _ in range(choose.randint(1, 3)):
            start = choose.randrange(len(mutated) + 1)
            mutated[start : start + choose.randint(0, 6)] = choose.choice(PIECES)
        try:
            from_json(bytes(mutated), type(message))
            read += 1
        except WrongInput:
            pass
    assert 0 < read < 3_000


def test_a_large_conversion_is_counted_while_it_runs():
    class Budget:
        def reserve(self, kind, size):
            raise Overloaded(f"{kind}: {size}", 1.0)

    codec = JsonCodec(Budget())
    with pytest.raises(Overloaded, match="requests: 2400"):
        asyncio.run(codec.read(b" " * 100_000, pb.GenerateRequest))
    with pytest.raises(Overloaded, match="answers"):
        asyncio.run(codec.write(pb.GenerateRequest(model="a" * 100_000)))
    assert json_format.Parse(asyncio.run(codec.write(SENT)), pb.GenerateRequest()) == SENT
