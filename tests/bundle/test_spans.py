"""Labels that mark spans, and the likeliest sequence of them."""

from itertools import product

import numpy as np
import pytest

from bundle.spans import LegalPaths, is_bio, is_legal, spans_of

LABELS = ("O", "B-X", "I-X", "B-Y", "I-Y")


@pytest.mark.parametrize(
    ("labels", "is_it"),
    [
        (LABELS, True), (("B-X", "O"), True), (("O", "I-X"), False), (("NOUN", "VERB"), False),
        (("O", "B-X", "I-Y"), False), (("O", "B-X", "L-X"), False), (("O",), False),
    ],
)  # fmt: skip
def test_labels_of_bio_are_recognised(labels, is_it):
    assert is_bio(labels) == is_it


def test_a_span_is_its_kind_and_its_ends():
    labels = ["B-X", "I-X", "O", "B-X", "B-Y", "I-X"]
    assert spans_of(labels) == [("X", 0, 2), ("X", 3, 4), ("Y", 4, 5), ("X", 5, 6)]
    assert spans_of([]) == spans_of(["O"]) == []


def test_the_path_is_the_likeliest_legal_one():
    """Compared with every sequence there is."""
    random, paths = np.random.default_rng(0), LegalPaths(LABELS)
    for _ in range(20):
        rows = random.dirichlet(np.full(len(LABELS), 0.5), 4)
        legal = [
            path
            for path in product(range(len(LABELS)), repeat=4)
            if all(is_legal(LABELS[path[n - 1]] if n else "", LABELS[path[n]]) for n in range(4))
        ]
        best = max(legal, key=lambda path: sum(np.log(rows[n, k]) for n, k in enumerate(path)))
        assert paths.best(rows).tolist() == list(best)


def test_probabilities_of_zero_are_no_reason_to_fail():
    rows = np.zeros((3, len(LABELS)), np.float32)
    rows[:, 2] = 1.0
    path = [LABELS[n] for n in LegalPaths(LABELS).best(rows)]
    assert path == ["B-X", "I-X", "I-X"]
