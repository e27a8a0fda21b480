"""One look ahead at a time: tokens and a state in, what may come next and the state after out.

The caller draws the next token, and keeps the state or has it kept (``sequences.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.engine.arena import StateSpec
from service.engine.errors import WrongInput
from service.engine.models import GeneratorModel
from service.engine.pushing import LIKELIEST
from service.engine.reading import MOST_NUMBER, checked_vector
from service.engine.requests import Generation, Outlook, State
from service.engine.streams import TokenStream


@dataclass(frozen=True)
class ReadWish:
    """What one row reads.

    tokens: ids to read, of what the model writes. source: ids or values that come before them,
    for a model that reads such. start: the state to go on from, None to begin.

    A model with a source reads it and its begin marker, or one token, at a time.
    """

    tokens: tuple[int, ...] = ()
    source: tuple[Any, ...] | None = None
    start: State | None = None


async def look_ahead(model: GeneratorModel, wishes: Sequence[ReadWish]) -> list[Outlook]:
    """What may follow each row. Raises WrongInput, QueueFull or EngineFailed."""
    if len(wishes) > (limit := model.thread.limit):
        raise WrongInput(
            f"the request has {len(wishes)} rows, and this server steps at most {limit} at once; "
            "send fewer rows"
        )
    requests = [_request(model, wish, f"row {number}") for number, wish in enumerate(wishes)]
    streams: list[TokenStream] = []
    try:
        for request in requests:
            streams.append(TokenStream.open(model.thread, request))
        return [await _outlook(stream) for stream in streams]
    finally:
        for stream in streams:
            stream.close()


async def _outlook(stream: TokenStream) -> Outlook:
    (outlook,) = [
        event async for events in stream for event in events if isinstance(event, Outlook)
    ]
    return outlook


def _request(model: GeneratorModel, wish: ReadWish, where: str) -> Generation:
    if wish.start is not None:
        _check_state(model, wish.start, where)
    if model.needs == "prompt":
        model.check_ids(wish.tokens, f"{where} of tokens")
        tokens, token = wish.tokens, None
    else:
        tokens, token = _source(model, wish, where), _token(model, wish, where)
    return Generation(
        tokens=tokens,
        sampling=LIKELIEST,
        max_tokens=1,
        stop=(),
        arrived=model.clock(),
        only_reads=True,
        start=wish.start,
        token=token,
    )


def _source(model: GeneratorModel, wish: ReadWish, where: str) -> tuple[Any, ...]:
    if (wish.source is None) == (wish.start is None):
        needs = model.needs
        has = f"neither a {needs} nor" if wish.source is None else f"both a {needs} and"
        raise WrongInput(
            f"{where} has {has} a state; send the {needs} first and the state afterwards"
        )
    if wish.source is None:
        return ()
    if model.needs == "vector":
        return checked_vector(wish.source, model.card.vector_fields, f"{where} of vector")
    model.check_ids(wish.source, f"{where} of source")
    return wish.source


def _token(model: GeneratorModel, wish: ReadWish, where: str) -> int | None:
    if len(wish.tokens) > 1 or (wish.start is not None and not wish.tokens):
        raise WrongInput(f"{where} has {len(wish.tokens)} tokens; after a state send one")
    if not wish.tokens:
        return None
    model.check_ids(wish.tokens, f"{where} of token", 1, len(model.card.vocabulary))
    return wish.tokens[0]


def _check_state(model: GeneratorModel, state: State, where: str) -> None:
    for spec in model.card.state:
        given = state[spec.name]
        if not _is_usable(spec, given, len(model.card.vocabulary)):
            raise WrongInput(
                f"{where} of {spec.name} holds what no state of model {model.card.name!r} can be; "
                "send it as it came"
            )


def _is_usable(spec: StateSpec, given: Any, ids: int) -> bool:
    """Whether a model computes with its numbers, and where it holds ids, whether there are such."""
    if np.issubdtype(given.dtype, np.integer):
        return bool(((given >= 0) & (given < ids)).all())
    return bool((np.abs(given) <= MOST_NUMBER).all())
