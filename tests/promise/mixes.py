"""Random requests, as callers might send them, and what becomes of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unroll.v1 import unroll_pb2 as pb

READ = "read"  # to its end
CANCEL = "cancel"  # left after some messages
SLOW = "slow"  # nothing is read for long, so that it pauses
RESUME = "resume"  # cancelled, and resumed on the other service
GO_ON = "go on"  # an earlier stream of the other service, resumed here
FORK = "fork"  # the same, by a new seed
# Of constraints: what most vocabularies cannot spell, or not without what the request bans.
UNSPELT_SHARE = 0.3
BEGINNINGS = 3  # that inputs of a model share, and named states of it


@dataclass(frozen=True)
class Kind:
    """What must be known of a model to call it; ``is_source``: it reads a source.

    letters: that its input is made of. longest: input in characters. most_tokens: to request.
    vocabulary: the ids from 1 below this one stand for symbols. symbols: some of them, of letters
    alone, and ``ids`` theirs; none where nothing is banned beside a constraint. has_gaps: a space
    comes between two. has_json: it can spell true and false. missing: sampling parameters that it
    was exported without.
    """

    name: str
    is_source: bool
    letters: str
    longest: int
    most_tokens: int
    vocabulary: int
    missing: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ("a", "b", "c", "d")
    ids: tuple[int, ...] = ()
    has_gaps: bool = False
    has_json: bool = False


@dataclass(frozen=True)
class Draw:
    """number: the draw's place in its mix. after: messages that are read before a cancel.
    state: the named state of the crowded service that stands for the first ``head`` characters of
    its input; empty for none."""

    number: int
    request: pb.GenerateRequest
    fate: str
    after: int
    state: str = ""
    head: int = 0

    @property
    def from_state(self) -> pb.GenerateRequest:
        """The same request, which begins from the state."""
        request = pb.GenerateRequest()
        request.CopyFrom(self.request)
        rest = request.prompt[self.head :]
        request.ClearField("input")
        request.state = self.state
        if rest:
            request.prompt = rest
        return request


@dataclass(frozen=True)
class Question:
    """A call with one answer. method: of UnrollService."""

    method: str
    request: pb.ScoreRequest | pb.EmbedRequest


def draw_questions(seed: str, kinds: Sequence[Kind], count: int) -> list[Question]:
    """Texts to score, choices that may follow one, likeliest next tokens, embeddings."""
    choose = random.Random(f"{seed} questions")
    return [_question(choose, choose.choice(kinds)) for _ in range(count)]


def _question(choose: random.Random, kind: Kind) -> Question:
    if choose.random() < 0.3:
        texts = [_text(choose, kind) for _ in range(choose.randint(1, 4))]
        return Question("Embed", pb.EmbedRequest(model=kind.name, texts=texts))
    request = pb.ScoreRequest(model=kind.name)
    for _ in range(choose.randint(1, 3)):
        item = request.items.add()
        if kind.is_source:
            item.source = _text(choose, kind)
        asks = choose.choice(("text", "choices", "next", "both"))
        if asks == "text":
            item.text = _spelt(choose, kind, choose.randint(2, 12))
            continue
        begun = _spelt(choose, kind, choose.randint(0, 4))
        item.text = begun if kind.is_source else _text(choose, kind)
        if asks != "next":
            choices = choose.randint(2, 5)
            item.choices.extend(_spelt(choose, kind, choose.randint(1, 8)) for _ in range(choices))
        if asks != "choices":
            item.top_next_tokens = choose.randint(1, 20)
    return Question("Score", request)


def _spelt(choose: random.Random, kind: Kind, count: int) -> str:
    """So many symbols of the output's."""
    return (" " if kind.has_gaps else "").join(choose.choices(kind.symbols, k=count))


def draw_mix(
    seed: str, kinds: Sequence[Kind], count: int, unspelt: float = UNSPELT_SHARE
) -> list[Draw]:
    """unspelt: the share of constraints that need not be such as the vocabulary can spell."""
    choose = random.Random(seed)
    return [_draw(choose, number, choose.choice(kinds), unspelt) for number in range(count)]


def _draw(choose: random.Random, number: int, kind: Kind, unspelt: float) -> Draw:
    fates = (READ, READ, READ, CANCEL, SLOW, RESUME, GO_ON, FORK)
    fate = choose.choice(fates)
    request = pb.GenerateRequest(model=kind.name, log_probabilities=True)
    state, head = (choose.randrange(BEGINNINGS), 0) if choose.random() < 0.25 else (None, 0)
    text = _text(choose, kind)
    if state is not None:
        begun = state_text(kind, state)
        head = len(begun)
        further = text[: choose.choice((0, 5, 40))]
        text = begun if kind.is_source else (begun + further)[: kind.longest]
    setattr(request, "source" if kind.is_source else "prompt", text)
    if fate in (READ, CANCEL) and choose.random() < 0.2:
        _add_beam(choose, request, kind)
    else:
        _add_samples(choose, request, kind, fate)
    if not kind.is_source and state is None:
        request.echo = choose.random() < 0.25
    if fate not in (SLOW,) and choose.random() < 0.25:
        _add_constraint(choose, request, kind, choose.random() < unspelt)
    request.tokens_per_message = choose.choice((0, 0, 1, 3, 8, 300))
    request.no_cache = choose.random() < 0.15
    name = "" if state is None else state_name(kind, state)
    return Draw(number, request, fate, choose.randint(0, 12), name, head)


def _text(choose: random.Random, kind: Kind) -> str:
    """Short ones and long ones alike. Many begin as others do, or are what others are."""
    length = min(choose.randint(1, kind.longest), choose.choice((5, 40, kind.longest)))
    own = "".join(choose.choice(kind.letters) for _ in range(length))
    if choose.random() < 0.4:
        return own
    shared = _beginning(kind, choose.randrange(BEGINNINGS))
    if kind.is_source:
        return shared[: (1, 5, kind.longest // 2)[length % 3]]
    return (shared[: choose.randint(1, kind.longest)] + own[: choose.choice((0, 3, length))])[
        : kind.longest
    ]


def state_name(kind: Kind, number: int) -> str:
    return f"{kind.name}-{number}"


def state_text(kind: Kind, number: int) -> str:
    """What the named state ``number`` of a model has read."""
    return _beginning(kind, number)[: min(100, kind.longest // 2)]


def _beginning(kind: Kind, number: int) -> str:
    """As long as an input may be, and the same in every mix."""
    choose = random.Random(f"{kind.name} {number}")
    return "".join(choose.choice(kind.letters) for _ in range(kind.longest))


def _add_beam(choose: random.Random, request: pb.GenerateRequest, kind: Kind) -> None:
    width = choose.randint(1, 5)
    request.beam.width, request.beam.best = width, choose.randint(1, width)
    request.beam.early_stop = choose.random() < 0.3
    if choose.random() < 0.5:
        request.beam.length_penalty = choose.choice((0.0, 0.6, 1.5, -1.0))
    request.max_tokens = choose.randint(1, kind.most_tokens // 2)
    if choose.random() < 0.3:
        request.sampling.banned_tokens.extend(_tokens(choose, kind, 3))


def _add_samples(choose: random.Random, request: pb.GenerateRequest, kind: Kind, fate: str) -> None:
    request.max_tokens = choose.randint(1, kind.most_tokens)
    _add_sampling(choose, request.sampling, kind)
    if choose.random() < 0.3:
        request.samples = choose.randint(2, 5)
    if choose.random() < 0.25:
        texts = ["".join(choose.choices(kind.letters, k=choose.randint(1, 3))) for _ in range(3)]
        request.stop.extend(texts[: choose.randint(1, 3)])
    if choose.random() < 0.25:
        request.min_tokens = choose.randint(1, request.max_tokens)
    if choose.random() < 0.3:
        request.top_log_probabilities = choose.randint(1, 20)
    if fate == SLOW:
        # Enough that some of it must wait, however much a connection takes unread.
        request.samples, request.top_log_probabilities = 12, 20
        request.max_tokens = request.min_tokens = kind.most_tokens
        del request.stop[:]
    if fate in (RESUME, GO_ON, FORK):
        request.resume_every = choose.randint(16, 24)
        request.max_tokens = request.min_tokens = max(40, request.max_tokens)


def _add_sampling(choose: random.Random, sampling: pb.Sampling, kind: Kind) -> None:
    sampling.seed = choose.randrange(2**64)
    sampling.temperature = choose.choice((0.0, 0.7, 1.0, 1.0, 1.4))
    maybe: tuple[tuple[str, Any], ...] = (
        ("top_k", choose.choice((1, 4, 1000))),
        ("top_p", choose.choice((0.3, 0.9, 0.99))),
        ("min_p", choose.choice((0.02, 0.2))),
        ("typical_p", choose.choice((0.3, 0.9))),
        ("frequency_penalty", choose.uniform(-0.5, 1.5)),
        ("presence_penalty", choose.uniform(-1, 2)),
        ("repetition_penalty", choose.uniform(0.8, 2)),
    )
    for name, value in maybe:
        if choose.random() < 0.25 and name not in kind.missing:
            setattr(sampling, name, value)
    if choose.random() < 0.2:
        sampling.logit_bias.update({t: choose.uniform(-5, 5) for t in _tokens(choose, kind, 4)})
    if choose.random() < 0.15:
        sampling.allowed_tokens.extend(_tokens(choose, kind, 6))
    elif choose.random() < 0.15:
        sampling.banned_tokens.extend(_tokens(choose, kind, 4))


def _add_constraint(
    choose: random.Random, request: pb.GenerateRequest, kind: Kind, is_unspelt: bool
) -> None:
    """Of the output's own symbols, of which none is banned, and as long as the text must be.

    is_unspelt: or not: a refusal is an answer, too.
    """
    sorts = ["endless"]
    if not request.min_tokens:
        sorts += ["choices", "regex"] + ["json_schema"] * (kind.has_json or is_unspelt)
    sampling = request.sampling
    if not is_unspelt and (sampling.banned_tokens or sampling.allowed_tokens):
        others = set(sampling.banned_tokens).difference(kind.ids) if kind.ids else ()
        del sampling.allowed_tokens[:], sampling.banned_tokens[:]
        sampling.banned_tokens.extend(sorted(others))
    first, second, third = choose.sample(kind.symbols, 3)
    gap = " " if kind.has_gaps else ""
    any_of = f"({first}|{second}|{third})"
    match choose.choice(sorts):
        case "choices":
            texts = {gap.join(choose.choices(kind.symbols, k=4)) for _ in range(5)}
            request.constraint.choices.texts.extend(sorted(texts))
        case "regex":
            request.constraint.regex = f"{any_of}({gap}{any_of}){{3,60}}"
        case "endless":
            request.constraint.regex = f"{first}({gap}{any_of})*"
        case _:
            array = '{"type": "array", "items": {"type": "integer"}}'
            request.constraint.json_schema = '{"type": "boolean"}' if kind.has_json else array


def _tokens(choose: random.Random, kind: Kind, most: int) -> list[int]:
    return choose.sample(range(1, kind.vocabulary), choose.randint(1, most))
