"""What streams of tokens are measured with: the requests of each batch of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from bench.callers import make_request
from bench.settings import PROMPT
from bundle.manifest import Manifest
from unroll.v1 import unroll_pb2 as pb

EVEN_TEMPERATURE = 6.0

# Of one batch; they are made anew for each.
Requests = Callable[[], Sequence[pb.GenerateRequest]]


def first_tokens(request: pb.GenerateRequest) -> pb.GenerateRequest:
    """The same one, of a few tokens."""
    few = pb.GenerateRequest()
    few.CopyFrom(request)
    few.max_tokens = min(4, request.max_tokens)
    return few


def new_prompts(
    model: str, streams: int, tokens: int, numbers: Iterator[int], one_a_message: bool = False
) -> Requests:
    """Prompts that no stream before had: the prefix cache is on, and knows none."""
    return lambda: [
        make_request(model, number, tokens, one_a_message=one_a_message, no_cache=False)
        for number in itertools.islice(numbers, streams)
    ]


def equal_prompts(model: str, streams: int, tokens: int) -> Requests:
    """One prompt for all; once it is read, the prefix cache knows it."""
    return lambda: [
        make_request(model, seed, tokens, PROMPT, no_cache=False) for seed in range(streams)
    ]


def vectors(manifest: Manifest, streams: int, numbers: Iterator[int]) -> Requests:
    """Vectors of numbers from 0 to 100, each for as many tokens as the model allows.

    Tokens are drawn so evenly that few streams end before. min_tokens would hold all to it, but by
    a bias of the vocabulary's length in every row, which a usual request does not have.
    """
    tokens = manifest.limits["output_tokens"]

    def request(number: int) -> pb.GenerateRequest:
        made = make_request(manifest.name, number, tokens)
        made.sampling.temperature = EVEN_TEMPERATURE
        values = random.Random(number)
        made.vector.values.extend(values.uniform(0, 100) for _ in manifest.vector)
        return made

    return lambda: [request(number) for number in itertools.islice(numbers, streams)]
