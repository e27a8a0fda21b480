import itertools

import numpy as np
import pytest

from service.engine.beam_search import BeamSearch
from service.engine.requests import Beam, FinishReason

VOCABULARY, END = 4, 3
FREE = np.zeros(VOCABULARY)


def table(seed):
    """log-probabilities of each next token after each pair of last tokens."""
    raw = np.random.default_rng(seed).normal(0, 2, (VOCABULARY, VOCABULARY, VOCABULARY))
    return raw - np.log(np.exp(raw).sum(axis=2, keepdims=True))


def search(known, beam, max_tokens, **others):
    one = BeamSearch(beam, max_tokens, others.get("min_tokens", 0), END, FREE)
    pasts = [(0, 0)] * beam.width
    while choice := one.advance(np.array([known[past] for past in pasts])):
        pasts = [(pasts[p][1], t) for p, t in zip(choice.parents, choice.tokens, strict=True)]
    return one.best()


def every_sequence(known, max_tokens):
    """(log-probability, tokens) of all that could be made, by exhaustion."""
    for length in range(1, max_tokens + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            ended = tokens[-1] == END
            if END in tokens[:-1] or not (ended or length == max_tokens):
                continue
            past, total = (0, 0), 0.0
            for token in tokens:
                total += known[past][token]
                past = (past[1], token)
            yield total, tokens


@pytest.mark.parametrize("seed", range(20))
def test_a_wide_beam_finds_the_best_of_all(seed):
    """As wide as there are sequences, the search is exhaustive."""
    known = table(seed)
    best = search(known, Beam(64, 5, length_penalty=0.0), 4)
    expected = sorted(every_sequence(known, 4), reverse=True)[:5]
    assert [h.log_probability for h in best] == pytest.approx([total for total, _ in expected])
    made = [tuple(token for token, _ in h.tokens) for h in best]
    assert made == [tuple(t for t in tokens if t != END) for _, tokens in expected]


@pytest.mark.parametrize("seed", range(10))
def test_scores_are_by_the_length_penalty(seed):
    for hypothesis in search(table(seed), Beam(3, 3, length_penalty=0.7), 6):
        ended = hypothesis.reason is FinishReason.END
        length = len(hypothesis.tokens) + ended
        assert hypothesis.score == pytest.approx(hypothesis.log_probability / length**0.7)
        reported = sum(value for _, value in hypothesis.tokens)
        assert reported >= hypothesis.log_probability - 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_an_early_stop_is_never_later(seed):
    steps = []
    for early in (True, False):
        one = BeamSearch(Beam(2, 1, early_stop=early), 12, 0, END, FREE)
        pasts, count = [(0, 0)] * 2, 0
        while choice := one.advance(np.array([table(seed)[past] for past in pasts])):
            pasts = [(pasts[p][1], t) for p, t in zip(choice.parents, choice.tokens, strict=True)]
            count += 1
        steps.append(count)
    assert steps[0] <= steps[1]


def test_nothing_ends_before_min_tokens_and_nothing_masked_is_made():
    known = np.full((VOCABULARY,) * 3, np.log(0.1))
    known[..., END] = np.log(0.7)
    one = BeamSearch(Beam(2, 2), 5, 3, END, np.array([0.0, -np.inf, 0.0, 0.0]))
    pasts = [(0, 0)] * 2
    while choice := one.advance(np.array([known[past] for past in pasts])):
        pasts = [(pasts[p][1], t) for p, t in zip(choice.parents, choice.tokens, strict=True)]
    for hypothesis in one.best():
        assert len(hypothesis.tokens) >= 3
        assert 1 not in [token for token, _ in hypothesis.tokens]
