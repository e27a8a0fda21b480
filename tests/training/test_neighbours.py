"""Neighbours in the vector space of the words, on an embedding made by hand."""

import numpy as np
import pytest

from bundle.store import read_bundle
from bundle.vocabulary import Vocabulary
from training.neighbours import WordUnknown, cosine, embedding_of, main, neighbours, tokenizer_of

VOCABULARY = Vocabulary(("good", "awesome", "food", "bad"), has_markers=True)

# Padding, begin, end and the catch-all lie right beside "good", and count for nothing.
EMBEDDING = np.array(
    [[1, 0], [2, 0], [4, 3], [0, 5], [-1, 0], [1, 0], [1, 0], [1, 0]], dtype=np.float32
)


def test_the_nearest_come_first():
    """By angle alone: lengths say nothing, and a word is not its own neighbour."""
    found = neighbours(EMBEDDING, VOCABULARY, "good", 10)
    assert [near.symbol for near in found] == ["awesome", "food", "bad"]
    assert [near.cosine for near in found] == pytest.approx([0.8, 0.0, -1.0])
    assert neighbours(EMBEDDING, VOCABULARY, "good", 1) == found[:1]


def test_the_cosine_is_the_same_both_ways():
    assert cosine(EMBEDDING, VOCABULARY, "food", "awesome") == pytest.approx(0.6)
    assert cosine(EMBEDDING, VOCABULARY, "awesome", "food") == pytest.approx(0.6)


def test_an_embedding_of_zeros_is_near_nothing():
    assert neighbours(np.zeros((8, 2)), VOCABULARY, "good", 1)[0].cosine == 0.0


def test_a_word_without_an_embedding_is_refused():
    with pytest.raises(WordUnknown, match="'splendid' is not in the vocabulary"):
        neighbours(EMBEDDING, VOCABULARY, "splendid", 1)


@pytest.mark.parametrize("name", ["mood", "letters", "speller", "tags", "blank", "foods"])
def test_every_task_has_a_table_of_what_it_reads(tiny_models, name):
    bundle = read_bundle(tiny_models / name / "1")
    assert embedding_of(bundle).shape == (len(tokenizer_of(bundle).vocabulary), 6)


def test_the_command_prints_neighbours_and_pairs(tiny_models, capsys):
    assert main(["mood", "Good", "food", "--models", str(tiny_models), "--count", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [len(line.split()) for line in printed] == [1, 2, 2, 1, 2, 2, 4]
    assert printed[0] == "good:"
    assert printed[-1].startswith("good – food: ")


def test_the_command_says_what_it_cannot_find(tiny_models, capsys):
    assert main(["mood", "splendid", "--models", str(tiny_models)]) == 1
    assert main(["no-such-model", "good", "--models", str(tiny_models)]) == 1
    said = capsys.readouterr().err
    assert "mood: 'splendid' is not in the vocabulary" in said
    assert "manifest.json cannot be read" in said
