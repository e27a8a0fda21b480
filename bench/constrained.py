"""What a constraint costs: its mask at each token, and compiling it, at a large vocabulary."""

from __future__ import annotations

import random
import resource
import statistics
import time
from dataclasses import dataclass

import numpy as np

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.constraints.compiling import CompileLimits, Compiler
from service.constraints.lexicon import Lexicon
from service.engine.automaton import (
    CHOICES,
    REGEX,
    ConstrainedText,
    Constraint,
    ConstraintSpec,
)
from service.engine.logits_processor import LogitsProcessor
from service.engine.requests import Sampling

WORDS = 10_000
_TOKENS = 2_000
_ROUNDS = 7


@dataclass(frozen=True)
class ConstraintRow:
    """of: what the texts are held to. states, transitions: of its automaton. token_us: processor
    time of a token's mask, median. compile_ms: processor time of compiling it."""

    of: str
    states: int
    transitions: int
    token_us: float
    compile_ms: float


@dataclass(frozen=True)
class Constrained:
    rows: tuple[ConstraintRow, ...]

    @property
    def worst_us(self) -> float:
        return max(row.token_us for row in self.rows)


def measure_constrained() -> Constrained:
    choose = random.Random("constrained")
    letters = "abcdefghijklmnopqrstuvwxyz"
    found: dict[str, None] = {}
    while len(found) < WORDS - 4:
        found["".join(choose.choices(letters, k=choose.randint(1, 9)))] = None
    words = tuple(found)
    vocabulary = Vocabulary(words, has_markers=True)
    codec = Tokenizer("words", vocabulary)
    lexicon = Lexicon.of(codec, len(vocabulary), vocabulary.end_id, vocabulary.never_sampled_ids)
    choices = tuple(" ".join(choose.choices(words, k=6)) for _ in range(100))
    specs = {
        "100 choices of six words": ConstraintSpec(CHOICES, choices),
        "any words": ConstraintSpec(REGEX, ("[a-z]+( [a-z]+)*",)),
        "words of three letters at most": ConstraintSpec(REGEX, ("[a-z]{1,3}( [a-z]{1,3})*",)),
        "up to 30 words": ConstraintSpec(REGEX, ("[a-z]+( [a-z]+){0,29}",)),
        "up to 50 letters": ConstraintSpec(REGEX, ("[a-z ]{1,50}",)),
    }
    return Constrained(tuple(_row(name, spec, lexicon) for name, spec in specs.items()))


def _row(name: str, spec: ConstraintSpec, lexicon: Lexicon) -> ConstraintRow:
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    # Processor time is counted, so a busy machine may take as long as it needs.
    automaton = Compiler(CompileLimits(patience=100)).compile(spec, lexicon)
    compile_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
    constraint = Constraint(spec, automaton)
    walk = _walk(constraint)
    rounds = [_round(constraint, walk, lexicon.size) for _ in range(_ROUNDS)]
    transitions = sum(automaton.following(state)[0].size for state in range(automaton.states))
    return ConstraintRow(
        name, automaton.states, transitions, 1e6 * statistics.median(rounds), 1e3 * compile_s
    )


def _walk(constraint: Constraint) -> list[list[int]]:
    """Random texts, by their tokens."""
    choose, texts, count = random.Random(1), [], 0
    while count < _TOKENS:
        tokens: list[int] = []
        text = ConstrainedText(constraint)
        while not text.is_complete and len(tokens) < 200:
            following = constraint.automaton.following(text.state)[0]
            tokens.append(int(choose.choice(following)))
            text = text.after(tokens[-1])
        texts.append(tokens)
        count += len(tokens)
    return texts


def _round(constraint: Constraint, texts: list[list[int]], vocabulary: int) -> float:
    """Processor seconds a token."""
    bias, seen = np.zeros(vocabulary, np.float32), np.zeros(vocabulary, np.bool_)
    sampling = Sampling.of(0)
    began, count = time.thread_time(), 0
    for tokens in texts:
        one = LogitsProcessor(sampling, (), {}, None, 0, ConstrainedText(constraint))
        one.fill(bias, seen, 0)
        for made, token in enumerate(tokens, start=1):
            one.follow(token, bias, seen, made)
        count += len(tokens)
    return (time.thread_time() - began) / count
