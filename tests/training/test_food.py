import random

import pytest
import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.data.usda import Food
from training.food import FoodTask, compare, make_batches, words_of, write
from training.metrics import overlap_f1
from training.models.options import RecurrentOptions
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig

VOCABULARY = Vocabulary(("Butter,", "salted", "Figs,", "raw"), has_markers=True)
WRITER = Tokenizer("symbols", VOCABULARY)
BEGIN, END, UNKNOWN = VOCABULARY.begin_id, VOCABULARY.end_id, VOCABULARY.unknown_id
FOODS = [Food("Butter, salted", "", (81.0, 0.0)), Food("Figs, ripe raw", "", (0.3, 2.9))]


def test_an_unknown_word_is_read_but_not_taught():
    """Padding and the catch-all are no targets."""
    ((vectors, inputs, targets),) = make_batches(WRITER, FOODS, random.Random(1))
    torch.testing.assert_close(vectors, torch.tensor([[81.0, 0.0], [0.3, 2.9]]))
    assert inputs.tolist() == [[BEGIN, 1, 2, END], [BEGIN, 3, UNKNOWN, 4]]
    assert targets.tolist() == [[1, 2, END, 0], [3, 0, 4, END]]


@pytest.mark.parametrize(
    ("said", "wanted", "f1"),
    [
        ("a b", "b a", 1.0),
        ("a a b", "a c", 0.4),
        ("a", "b", 0.0),
        ("", "b", 0.0),
        ("", "", 0.0),
    ],
)
def test_overlap_counts_each_word(said, wanted, f1):
    assert overlap_f1(said.split(), wanted.split()) == pytest.approx(f1)


def test_names_are_compared_by_their_words():
    assert words_of("KELLOGG'S, Eggo (frozen)") == ["kellogg's", "eggo", "frozen"]
    first, f1 = compare(["BUTTER; salted", ""], FOODS)
    assert (first, f1) == (50.0, 0.5)


def test_a_model_names_what_it_has_learned():
    """Greedy, until the end marker, and never a word that is none."""
    torch.manual_seed(0)
    foods = [FOODS[0], Food("Figs, raw", "", (0.3, 2.9))]
    task = FoodTask(WRITER, foods, foods, seed=1)
    vectors = torch.tensor([food.values for food in foods])
    config = VectorToSequenceConfig(
        2, len(VOCABULARY), 8, 4, RecurrentOptions("lstm", 8), reader_mlp=1
    )
    model = VectorToSequence(config)
    model.standardise(vectors)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(40):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    assert write(model, vectors, WRITER) == ["Butter, salted", "Figs, raw"]
    assert task.validate(model) < 0.5


def test_noise_is_added_while_training_alone():
    config = VectorToSequenceConfig(2, 9, 8, 4, RecurrentOptions("lstm", 8), noise=0.5)
    model, vectors = VectorToSequence(config), torch.tensor([[1.0, 2.0]])
    assert not torch.equal(model.encode(vectors)[0], model.encode(vectors)[0])
    model.eval()
    assert torch.equal(model.encode(vectors)[0], model.encode(vectors)[0])
