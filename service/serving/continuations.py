"""What may follow a text: how likely each of several choices is, and the likeliest next tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.engine.errors import WrongInput
from service.engine.requests import NextTokenDistribution, NextTokenRequest, State
from service.engine.topk import largest
from service.serving.generator import (
    GeneratorModel,
    NextToken,
    ScoredChoice,
    ScoredText,
    ScoredToken,
    ScoreItem,
)
from service.serving.inputs import MAX_TEXTS, checked_size, off_loop
from service.serving.output_stream import run_batch
from service.serving.sampling_params import MAX_TOP, ScoreParams
from service.serving.stateful_step import distributions

MAX_CHOICES = 128


@dataclass(frozen=True)
class _Plan:
    """One item: what is run first, and what follows the state that this leaves.

    first: the text, to be scored or to be read; None where there is nothing to read before. last:
    what the choices follow. choices: the ids of each. next: asks for the likeliest next tokens.
    """

    params: ScoreParams
    unknown: int
    first: ScoreItem | None
    last: int = 0
    choices: Sequence[tuple[int, ...]] = ()
    next: NextTokenRequest | None = None


async def score(model: GeneratorModel, all_params: Sequence[ScoreParams]) -> list[ScoredText]:
    """As GeneratorModel.score(), of items that may look ahead, too.

    The text of each is read once, then all choices of all items run as sequences of their own from
    the states that were left, so each gets what it would get alone.

    Raises WrongInput, QueueFull or EngineFailed.
    """
    if not any(params.looks_ahead for params in all_params):
        return await model.score(all_params)
    size = checked_size("items", [params.characters for params in all_params])
    size += sum(len(params.vector or ()) for params in all_params)
    _check_counts(model, all_params)
    plans = await off_loop(
        size,
        lambda: [_plan(model, params, f"items[{n}]") for n, params in enumerate(all_params)],
    )
    firsts = iter(await _run(model, [plan.first for plan in plans if plan.first]))
    found = [next(firsts) if plan.first else None for plan in plans]
    items = [
        item
        for plan, state in zip(plans, found, strict=True)
        for item in _choice_items(model, plan, state)
    ]
    rows = await _run(model, items)
    ahead = await _distributions(model, plans, found)
    size += sum(len(each.log_probabilities) for each in ahead)
    return await off_loop(size, lambda: _answers(model, plans, found, items, rows, ahead))


def _check_counts(model: GeneratorModel, all_params: Sequence[ScoreParams]) -> None:
    """Raises WrongInput."""
    choices = sum(len(params.choices) for params in all_params)
    if choices > MAX_TEXTS:
        raise WrongInput(
            f"items have {choices} choices together; send at most {MAX_TEXTS} a request"
        )
    asking = sum(bool(params.top_next) for params in all_params)
    if asking > (limit := model.thread.limit):
        raise WrongInput(
            f"{asking} items have top_next_tokens, and this server steps at most {limit} texts at "
            "once; send fewer a request"
        )


async def _run(model: GeneratorModel, items: Sequence[ScoreItem]) -> list[Any]:
    return await run_batch(model.score_thread, items) if items else []


def _plan(model: GeneratorModel, params: ScoreParams, where: str) -> _Plan:
    """Raises WrongInput."""
    if not params.looks_ahead:
        item, unknown = model.score_item(params, where)
        return _Plan(params, unknown, item)
    if params.top_next > MAX_TOP:
        raise WrongInput(f"{where}.top_next_tokens is {params.top_next}; choose up to {MAX_TOP}")
    if len(params.choices) > MAX_CHOICES:
        raise WrongInput(
            f"{where}.choices holds {len(params.choices)} texts; send at most {MAX_CHOICES}"
        )
    model.check_condition(params, where)
    tokens, source, unknown = _read(model, params, where)
    # The first token of a conditioned answer marks its beginning, and is none of the caller's.
    left = model.card.limits["output_tokens"] - (len(tokens) - 1 if model.is_conditioned else 0)
    read = [
        model.read(model.writer, choice, f"{where}.choices[{number}]", left)
        for number, choice in enumerate(params.choices)
    ]
    is_begun = len(tokens) > 1
    item = ScoreItem(tokens[:-1], tokens[1:], source, keeps_state=True)
    # A generator's next token is asked for with the whole text, which its own engine reads.
    needs_state = bool(read) or (model.is_conditioned and is_begun)
    has_first = needs_state and (model.is_conditioned or is_begun)
    return _Plan(
        params,
        unknown + sum(choice.unknown for choice in read),
        item if has_first else None,
        tokens[-1],
        [tuple(choice.ids) for choice in read],
        _next_request(model, tokens, source, has_first) if params.top_next else None,
    )


def _read(
    model: GeneratorModel, params: ScoreParams, where: str
) -> tuple[tuple[int, ...], tuple[Any, ...], int]:
    """The tokens that the choices follow, what the model reads before them, and how many symbols
    of both it does not know."""
    if not model.is_conditioned:
        given = model.input.read(model, params.text, f"{where}.text")
        return tuple(given.ids), (), given.unknown
    name = model.input.name
    given = model.input.read(model, params.inputs[name], f"{where}.{name}")
    assert model.begin_id is not None, "a model that reads a whole input begins with a marker"
    if not params.text:
        return (model.begin_id,), tuple(given.ids), given.unknown
    limit = model.card.limits["output_tokens"]
    begun = model.read(model.writer, params.text, f"{where}.text", limit)
    return (model.begin_id, *begun.ids), tuple(given.ids), given.unknown + begun.unknown


def _next_request(
    model: GeneratorModel, tokens: tuple[int, ...], source: tuple[Any, ...], has_first: bool
) -> NextTokenRequest:
    """One with a token goes on from the state that is still to come."""
    if not model.is_conditioned:
        return NextTokenRequest(tokens, model.clock())
    if has_first:
        return NextTokenRequest((), model.clock(), token=tokens[-1])
    return NextTokenRequest(source, model.clock())


def _choice_items(model: GeneratorModel, plan: _Plan, state: State | None) -> list[ScoreItem]:
    if not model.is_conditioned:
        return [ScoreItem((plan.last, *ids[:-1]), ids, state=state) for ids in plan.choices]
    assert model.end_id is not None, "a model that reads a whole input ends with a marker"
    end = (model.end_id,)
    return [ScoreItem((plan.last, *ids), ids + end, state=state) for ids in plan.choices]


async def _distributions(
    model: GeneratorModel, plans: Sequence[_Plan], found: Sequence[Any]
) -> list[NextTokenDistribution]:
    """Of the items that ask for one, in their order."""
    asking = [
        replace(plan.next, start=state) if plan.next.token is not None else plan.next
        for plan, state in zip(plans, found, strict=True)
        if plan.next
    ]
    return await distributions(model, asking)


def _likeliest(
    model: GeneratorModel, distribution: NextTokenDistribution, count: int
) -> tuple[NextToken, ...]:
    known = distribution.log_probabilities
    best = largest(known, count)
    pairs = zip(best.tolist(), known[best].tolist(), strict=True)
    return tuple((token, model.writer.piece(token, True), value) for token, value in pairs)


def _answers(
    model: GeneratorModel,
    plans: Sequence[_Plan],
    found: Sequence[Any],
    items: Sequence[ScoreItem],
    rows: Sequence[Sequence[float]],
    ahead: Sequence[NextTokenDistribution],
) -> list[ScoredText]:
    scored = iter([model.scored_targets(*each) for each in zip(items, rows, strict=True)])
    distribution = iter(ahead)
    answers = []
    for plan, first in zip(plans, found, strict=True):
        if plan.params.looks_ahead:
            choices = _with_probabilities([next(scored) for _ in plan.choices])
            likeliest: Sequence[NextToken] = ()
            if plan.next:
                likeliest = _likeliest(model, next(distribution), plan.params.top_next)
            answers.append(ScoredText([], plan.unknown, choices, likeliest))
        else:
            assert plan.first is not None, "a text that is scored itself"
            answers.append(ScoredText(model.scored(plan.first, first), plan.unknown))
    return answers


def _with_probabilities(all_tokens: Sequence[list[ScoredToken]]) -> list[ScoredChoice]:
    """Each choice's share of what all of them have together."""
    choices = [ScoredChoice(tokens) for tokens in all_tokens]
    most = max((choice.log_probability for choice in choices), default=-math.inf)
    if most == -math.inf:
        return choices
    weights = [math.exp(choice.log_probability - most) for choice in choices]
    total = math.fsum(weights)
    return [
        replace(choice, probability=weight / total)
        for choice, weight in zip(choices, weights, strict=True)
    ]
