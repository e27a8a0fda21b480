"""Tokens by hand are protobuf's own bytes."""

import random

import pytest

from service.engine.requests import TokenMade, TokensMade
from service.v1.converters import TokenEncoder
from unroll.v1 import unroll_pb2 as pb

TEXTS = ("", "a", "\n", "é", "日本", "x" * 127, "y" * 128, "z" * 20_000)
FIRST = TokenMade(3, "first", 0, -0.25)


def drawn(draw):
    return TokenMade(
        draw.choice((0, 1, 127, 128, 65_535, 2**32 - 1)),
        draw.choice(TEXTS),
        draw.choice((0, 1, 127, 128, 16_383, 16_384, 2**21)),
        draw.choice((0.0, -0.5, -1e-9, -87.25, float("-inf"))),
        draw.choice((0, 0, 1, 300)),
    )


def by_protobuf(tokens, with_log_probabilities):
    response = pb.GenerateResponse()
    for token in tokens:
        added = response.tokens.add(
            id=token.token, text=token.text, position=token.position, sample=token.sample
        )
        if with_log_probabilities:
            added.log_probability = token.log_probability
    return response.SerializeToString()


@pytest.mark.parametrize("with_log_probabilities", [False, True])
def test_any_tokens_are_the_bytes_that_protobuf_makes(with_log_probabilities):
    draw, encode = random.Random(7), TokenEncoder(with_log_probabilities)
    for _ in range(500):
        tokens = [drawn(draw) for _ in range(draw.randrange(1, 6))]
        assert encode(tokens) == by_protobuf(tokens, with_log_probabilities)


@pytest.mark.parametrize("with_log_probabilities", [False, True])
def test_tokens_that_come_together_are_the_bytes_of_each(with_log_probabilities):
    draw, encode = random.Random(8), TokenEncoder(with_log_probabilities)
    for _ in range(100):
        count = draw.randrange(1, 20)
        tokens = [draw.randrange(len(TEXTS)) for _ in range(count)]
        known = [draw.choice((0.0, -0.5, -87.25)) for _ in range(count)]
        position = draw.choice((1, 120, 16_380))
        together = TokensMade(tokens, known, position, draw.choice((0, 300)), TEXTS)
        single = together.one_by_one()
        assert [made.position for made in single] == list(range(position, position + count))
        assert [made.text for made in single] == [TEXTS[token] for token in tokens]
        expected = by_protobuf([FIRST, *single], with_log_probabilities)
        assert encode([FIRST, together]) == expected
