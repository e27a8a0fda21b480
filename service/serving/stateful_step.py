"""Single steps: tokens and a state in, the next-token distribution and the state out.

The caller draws the next token, and keeps the state or has it kept (``sequences.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.manifest import StateTensor
from service.engine.errors import WrongInput
from service.engine.requests import NextTokenDistribution, NextTokenRequest, State
from service.serving.generator import GeneratorModel
from service.serving.inputs import MOST_NUMBER
from service.serving.output_stream import TokenStream


@dataclass(frozen=True)
class NextTokenParams:
    """What one row reads.

    tokens: ids to read, of what the model writes. source: ids or values that come before them,
    for a model that reads such. start: the state to go on from, None to begin.

    A model with a source reads it and its begin marker, or one token, at a time.
    """

    tokens: tuple[int, ...] = ()
    source: tuple[Any, ...] | None = None
    start: State | None = None


async def look_ahead(
    model: GeneratorModel, all_params: Sequence[NextTokenParams]
) -> list[NextTokenDistribution]:
    """What may follow each row. Raises WrongInput, QueueFull or EngineFailed."""
    if len(all_params) > (limit := model.thread.limit):
        raise WrongInput(
            f"the request has {len(all_params)} rows, and this server steps at most {limit} at "
            "once; send fewer rows"
        )
    requests = [
        _request(model, params, f"row {number}") for number, params in enumerate(all_params)
    ]
    return await distributions(model, requests)


async def distributions(
    model: GeneratorModel, requests: Sequence[NextTokenRequest]
) -> list[NextTokenDistribution]:
    """Of requests that were checked. Raises QueueFull or EngineFailed."""
    streams: list[TokenStream] = []
    try:
        for request in requests:
            streams.append(TokenStream.open(model.thread, request))
        return [await _next_token_distribution(stream) for stream in streams]
    finally:
        for stream in streams:
            stream.close()


async def _next_token_distribution(stream: TokenStream) -> NextTokenDistribution:
    (distribution,) = [
        event
        async for events in stream
        for event in events
        if isinstance(event, NextTokenDistribution)
    ]
    return distribution


def _request(model: GeneratorModel, params: NextTokenParams, where: str) -> NextTokenRequest:
    if params.start is not None:
        _check_state(model, params.start, where)
    if model.is_conditioned:
        tokens, token = _source(model, params, where), _token(model, params, where)
    else:
        tokens, token = model.input.checked(model, params.tokens, f"{where} of tokens"), None
    return NextTokenRequest(tokens, model.clock(), params.start, token)


def _source(model: GeneratorModel, params: NextTokenParams, where: str) -> tuple[Any, ...]:
    if (params.source is None) == (params.start is None):
        needs = model.input.name
        has = f"neither a {needs} nor" if params.source is None else f"both a {needs} and"
        raise WrongInput(
            f"{where} has {has} a state; send the {needs} first and the state afterwards"
        )
    if params.source is None:
        return ()
    return model.input.checked(model, params.source, f"{where} of {model.input.name}")


def _token(model: GeneratorModel, params: NextTokenParams, where: str) -> int | None:
    if len(params.tokens) > 1 or (params.start is not None and not params.tokens):
        raise WrongInput(f"{where} has {len(params.tokens)} tokens; after a state send one")
    if not params.tokens:
        return None
    model.check_ids(params.tokens, f"{where} of token", 1, len(model.card.vocabulary))
    return params.tokens[0]


def _check_state(model: GeneratorModel, state: State, where: str) -> None:
    for spec in model.card.state:
        given = state[spec.name]
        if not _is_usable(spec, given, len(model.card.vocabulary)):
            raise WrongInput(
                f"{where} of {spec.name} holds what no state of model {model.card.name!r} can be; "
                "send it as it came"
            )


def _is_usable(spec: StateTensor, given: Any, ids: int) -> bool:
    """Whether a model computes with its numbers, and where it holds ids, whether there are such."""
    if np.issubdtype(given.dtype, np.integer):
        return bool(((given >= 0) & (given < ids)).all())
    return bool((np.abs(given) <= MOST_NUMBER).all())
