import math

import pytest
import torch

from bundle.vocabulary import Vocabulary
from training.beam import BeamSettings, beam_search

TARGET = Vocabulary(("a", "b"), has_markers=True)  # a 1, b 2, begin 3, end 4, unknown 5
END = TARGET.end_id

# After each prefix, the probability of a, b and the end. "b" is the likelier beginning, and
# "a a" the likelier answer.
TABLE = {
    (): (0.4, 0.6, 0.0),
    (1,): (0.9, 0.05, 0.05),
    (2,): (0.35, 0.35, 0.3),
    (1, 1): (0.0, 0.0, 1.0),
    (2, 1): (0.0, 0.4, 0.6),
    (2, 2): (0.4, 0.0, 0.6),
}


class ByTable:
    """Its state is the prefix that it has read, as one row of ids, and its source's number."""

    def __init__(self, table):
        self.table = table

    def encode(self, source, lengths):
        return (torch.zeros(len(source), 0, dtype=torch.int64), source[:, :1])

    def __call__(self, tokens, state):
        prefixes, source = state
        prefixes = torch.cat((prefixes, tokens), dim=1)
        rows = []
        for prefix in prefixes[:, 1:].tolist():
            a, b, end = self.table.get(tuple(prefix), (0.0, 0.0, 1.0))
            rows.append([0.9, a, b, 0.9, end, 0.9])
        return torch.tensor(rows).clamp(min=1e-9).log().unsqueeze(1), (prefixes, source)


def search(width, penalty=0.0, most_tokens=8, sources=1, table=TABLE):
    settings = BeamSettings(width, penalty, most_tokens)
    source = torch.ones(sources, 1, dtype=torch.int64)
    return beam_search(ByTable(table), source, torch.ones(sources), TARGET, settings)


def test_one_hypothesis_takes_the_likeliest_token_each_time():
    """Padding, begin and unknown are never said, however likely they are."""
    assert search(1) == [[2, 1]]


def test_two_hypotheses_find_the_likelier_answer():
    assert search(2, sources=3) == [[1, 1]] * 3


@pytest.mark.parametrize(("penalty", "answer"), [(0.0, [1]), (1.0, [1, 1])])
def test_a_penalty_values_length(penalty, answer):
    """The short answer is the likelier one, the long one is so a token."""
    table = {(): (0.99, 0.01, 0.0), (1,): (0.45, 0.05, 0.5), (1, 1): (0.0, 0.0, 1.0)}
    assert math.log(0.45) / 3 > math.log(0.5) / 2
    assert search(3, penalty, table=table) == [answer]


def test_an_answer_has_a_longest_length():
    endless = {(): (1.0, 0.0, 0.0), (1,): (1.0, 0.0, 0.0), (1, 1): (1.0, 0.0, 0.0)}
    assert search(1, most_tokens=3, table=endless) == [[1, 1, 1]]
