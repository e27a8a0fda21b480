from dataclasses import replace

import numpy as np
import pytest
import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from tests import tiny
from tests.training.real import real
from training.bundled.food import TASK, HeldOutFood, of_label
from training.config import RECIPES, load_recipe
from training.data.usda import load_foods, split_foods
from training.floors.nearest import nearest_vectors
from training.metrics import overlap_f1
from training.models import build, config_from_json, config_to_json
from training.models.options import DesignInvalid, RecurrentOptions
from training.models.retrieval_copy import Examples
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig
from training.splits import Splits
from training.tasks.vec2seq import (
    Described,
    Vec2SeqTask,
    distinct,
    remember,
    words_of,
    write,
)

VOCABULARY = Vocabulary(("Butter,", "salted", "Figs,", "raw"), has_markers=True)
WRITER = Tokenizer("symbols", VOCABULARY)
BEGIN, END, UNKNOWN = VOCABULARY.begin_id, VOCABULARY.end_id, VOCABULARY.unknown_id
NUTRIENTS = ("Fat (g)", "Fibre (g)")


def food(name, values):
    return Described(NUTRIENTS, values, name)


def compare(written, foods):
    """First words right in percent, and the mean F1 of words."""
    asked = [HeldOutFood(*vars(f).values(), "every tenth") for f in foods]
    # The other part holds one food, which nobody names.
    asked.append(HeldOutFood(NUTRIENTS, (0.0, 0.0), "nothing", "new names"))
    first, f1, *_ = TASK.held_out(asked, None).measure([*written, "other"] * 2)
    return first.value, f1.value


FOODS = [food("Butter, salted", (81.0, 0.0)), food("Figs, ripe raw", (0.3, 2.9))]


def test_an_unknown_word_is_read_but_not_taught():
    """Padding and the catch-all are no targets."""
    ((vectors, inputs, targets),) = Vec2SeqTask(WRITER, FOODS, FOODS, seed=1).batches(0)
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
    foods = [FOODS[0], food("Figs, raw", (0.3, 2.9))]
    task = Vec2SeqTask(WRITER, foods, foods, seed=1)
    vectors = torch.tensor([food.values for food in foods])
    config = VectorToSequenceConfig(
        2, len(VOCABULARY), 8, 4, RecurrentOptions("lstm", 8), reader_mlp=1
    )
    model = VectorToSequence(config)
    model.standardise(vectors)
    teach(model, task, 40)
    assert write(model, vectors, WRITER, 9) == ["Butter, salted", "Figs, raw"]
    assert task.validate(model) < 0.5


def teach(model: VectorToSequence, task: Vec2SeqTask, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(epochs):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    model.eval()


COPIER = VectorToSequenceConfig(
    2, len(VOCABULARY), 8, 4, RecurrentOptions("lstm", 8),
    examples=4, example_tokens=3, nearest=2, key_size=6, condition_dropout=1.0,
)  # fmt: skip
# Each kind twice: what is copied from is another food than the one that is taught.
TWINS = [
    food("Butter, salted", (81.0, 0.1)), food("Butter, salted", (60.0, 0.1)),
    food("Figs, raw", (0.3, 2.9)), food("Figs, raw", (0.3, 2.0)),
]  # fmt: skip


def taught_copier() -> VectorToSequence:
    """Knows TWINS, and a food by its neighbours alone."""
    torch.manual_seed(0)
    model = VectorToSequence(COPIER)
    model.standardise(torch.tensor([food.values for food in TWINS]))
    remember(model, WRITER, TWINS)
    teach(model, Vec2SeqTask(WRITER, TWINS, TWINS, seed=1), 60)
    model.reader.weight.data.zero_()
    return model


def test_a_name_is_copied_from_the_nearest_food():
    """Without a condition it knows a food by its neighbours alone, so other names in its memory
    are other answers, of words that it was never taught in that place.
    """
    model = taught_copier()
    asked = torch.tensor([[82.0, 0.1], [0.2, 2.9]])
    assert write(model, asked, WRITER, 9) == ["Butter, salted", "Figs, raw"]
    names = [twin.text for twin in reversed(TWINS)]
    swapped = [food(n, twin.values) for n, twin in zip(names, TWINS, strict=True)]
    remember(model, WRITER, swapped)
    assert write(model, asked, WRITER, 9) == ["Figs, raw", "Butter, salted"]


def test_more_foods_can_be_remembered_when_training_is_over():
    """A food that has none like it in the memory is named as soon as one is there."""
    model = taught_copier()
    asked = torch.tensor([[82.0, 2.9]])
    assert write(model, asked, WRITER, 9) != ["Figs, salted"]
    added = [food("Figs, salted", (82.0, 2.8)), food("Figs, salted", (82.0, 3.0))]
    remember(model, WRITER, [*TWINS, *added])
    assert write(model, asked, WRITER, 9) == ["Figs, salted"]
    again = build(config_from_json(config_to_json(model.config)))
    again.load_state_dict(model.state_dict())
    assert write(again.eval(), asked, WRITER, 9) == ["Figs, salted"]


def test_a_food_is_not_copied_from_itself_while_training():
    model = VectorToSequence(COPIER)
    vectors = torch.tensor([food.values for food in TWINS])
    model.standardise(vectors)
    remember(model, WRITER, TWINS)
    standard = model.examples.vectors.T
    for training, own in ((True, []), (False, [1])):
        model.train(training)
        model.examples.tokens[:, 0] = torch.arange(4)  # so that each is known
        found, closeness, _ = model.examples.nearest_to(standard[1:2])
        assert [n for n in found[0, :, 0].tolist() if n == 1] == own
        assert (closeness <= 0).all()


def test_copying_is_taught_in_mixed_precision_too():
    """As on a GPU: what is copied joins logits of bfloat16, and no example is its own neighbour."""
    torch.manual_seed(0)
    examples = Examples(
        4, length=3, nearest=2, size=6, vector_size=2, embedding_size=8, features=8,
        vocabulary_size=9,
    ).train()  # fmt: skip
    vectors = 30 * torch.randn(4, 2)
    examples.remember(vectors, None, BEGIN, [[1, 2, END]] * 4)
    examples.tokens[:, 0] = torch.arange(4)  # so that each is known
    features = torch.randn(4, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        tokens, scores, _ = examples.nearest_to(vectors)
        memory = examples.look_at(tokens, scores, torch.randn(8, 3, 8), torch.randn(4, 2, 3, 8))
        logits = examples.copy(torch.zeros(4, 5, 9, dtype=torch.bfloat16), features, memory)
    logits.sum().backward()
    assert examples.strength.weight.grad.abs().max() > 0
    for own, others in enumerate(tokens[:, :, 0].tolist()):
        assert own not in others


def test_sharper_means_farther_from_all_but_the_nearest():
    model = VectorToSequence(COPIER).eval()
    vectors = torch.tensor([food.values for food in TWINS])
    model.standardise(vectors)
    remember(model, WRITER, TWINS)
    _, before, _ = model.examples.nearest_to(model.examples.vectors.T[:1])
    model.sharpen(3.0)
    _, after, _ = model.examples.nearest_to(model.examples.vectors.T[:1])
    torch.testing.assert_close(after[0, 0], before[0, 0])  # itself
    torch.testing.assert_close(after[0, 1], 3 * before[0, 1], rtol=0.01, atol=0)


def test_what_is_not_to_be_copied_is_not():
    """An unknown word and padding; and a name is cut at the memory's length."""
    model = VectorToSequence(COPIER).eval()
    foods = [food("Figs, ripe raw", (float(n), 1.0)) for n in range(4)]
    remember(model, WRITER, foods)
    assert model.examples.tokens[0].tolist() == [BEGIN, 3, 0, 4]
    remember(model, WRITER, [food("Figs,", each.values) for each in foods])
    assert model.examples.tokens[0].tolist() == [BEGIN, 3, END, 0]
    _, keys, tokens, scores, *_ = model.encode(torch.tensor([[1.0, 1.0]]))
    assert keys.shape == (1, 6, 6)
    assert tokens.tolist() == [[3, END, 0, 3, END, 0]]
    assert (scores > -1e8).tolist() == [[True, True, False] * 2]


@pytest.mark.parametrize("vocabulary_size", [40, 32_768, 32_769, 70_000])
def test_every_id_of_a_vocabulary_can_be_remembered(vocabulary_size):
    examples = Examples(2, 2, 1, 4, 3, 4, 4, vocabulary_size)
    last = vocabulary_size - 1
    examples.remember(torch.randn(2, 3), None, 1, [[last], [2, last]])
    assert examples.tokens.tolist() == [[1, last, 0], [1, 2, last]]


def test_foods_that_hold_the_same_are_remembered_once():
    assert distinct([FOODS[0], FOODS[1], food("Margarine", FOODS[0].values)]) == FOODS


@pytest.mark.parametrize(
    "memory", [{"examples": 4}, {"nearest": 2, "key_size": 3}, {"examples": 2, "nearest": 2}]
)
def test_a_memory_is_given_whole_or_not_at_all(memory):
    sizes = {"example_tokens": 3, "key_size": 3} if memory.get("nearest") == 2 else {}
    with pytest.raises(DesignInvalid, match="nearest below examples"):
        VectorToSequenceConfig(2, 9, 8, 4, RecurrentOptions("lstm", 8), **{**sizes, **memory})


def test_noise_is_added_while_training_alone():
    config = VectorToSequenceConfig(2, 9, 8, 4, RecurrentOptions("lstm", 8), noise=0.5)
    model, vectors = VectorToSequence(config), torch.tensor([[1.0, 2.0]])
    assert not torch.equal(model.encode(vectors)[0], model.encode(vectors)[0])
    model.eval()
    assert torch.equal(model.encode(vectors)[0], model.encode(vectors)[0])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("split", "asked_with", "first", "f1"),
    [
        ("every tenth", lambda food: food.values, 68.6, 0.539),
        ("every tenth", of_label, 48.9, 0.402),
        ("new names", lambda food: food.values, 37.3, 0.304),
        ("new names", of_label, 28.8, 0.237),
    ],
)
def test_the_nearest_foods_own_name_is_this_good(split, asked_with, first, f1):
    """By all known values alike, among what the model remembers: what it is to be better than."""
    foods = real(load_foods)
    splits = split_foods(foods.foods)
    remembered, asked = (
        [Described(foods.nutrients, each.values, each.name) for each in part]
        for part in ([*splits["train"], *splits["validation"]], splits[split])
    )
    known, wanted = (
        np.log1p([values(each) for each in part])
        for part, values in ((remembered, lambda each: each.values), (asked, asked_with))
    )
    found = compare([remembered[n].text for n in nearest_vectors(known, wanted)], asked)
    assert (round(found[0], 1), round(found[1], 3)) == (first, f1)


def test_sharpness_is_what_names_foods_best_that_validate(monkeypatch, capsys):
    """And adjusting anew what is adjusted changes nothing; what has validated is remembered."""
    config = replace(COPIER, unknown=True, candidates=3, ranker_size=4)
    model = VectorToSequence(config).eval()
    remember(model, WRITER, TWINS)
    model.sharpen(0.5)
    recipe = load_recipe(RECIPES / "food.toml").with_value("task.sharpnesses", [1.0, 2.0, 4.0])
    validating = [food("Figs, raw", (0.5, 2.5)), food("Butter, salted", (70.0, 0.1))]
    splits = Splits(TWINS, validating, [])
    seen = []

    def answers(model, trained, questions, beam=None):
        seen.append((len(model.examples.tokens), len(questions)))
        is_best = model.examples.ranker.strength.item() == pytest.approx(1.0)
        return [each.text if is_best else "Pasta" for each in validating] * 2

    monkeypatch.setattr(TASK, "answers", answers)
    trained = tiny.trained("food", config, {"output": WRITER}, vector=NUTRIENTS)
    found = TASK.adjust(model, recipe, splits, trained)
    assert found.training["sharpness"] == 2.0
    printed = capsys.readouterr().out
    assert "sharpness 2: F1 of words on validation 1 0.0000, 2 1.0000, 4 0.0000" in printed
    assert seen == [(4, 4)] * 3  # each food whole and by its label, and none finds itself
    assert len(model.examples.tokens) == 6
    assert TASK.adjust(model, recipe, splits, found).training["sharpness"] == 2.0
    assert model.examples.ranker.strength.item() == pytest.approx(1.0)
