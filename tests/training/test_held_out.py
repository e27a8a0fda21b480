"""What the answers to a held-out split's questions are worth, script by script."""

from types import SimpleNamespace

import pytest
import torch

from tests import tiny
from training import cloze, food, g2p, nationality, prose, sentiment, tagging, translate
from training.data.sentiment import LECTURE_SENTENCES, Example
from training.data.usda import Food
from training.data.verses import Pair
from training.held_out import EvaluationContext
from training.likelihood import nats_of


@pytest.fixture
def context(tmp_path):
    return EvaluationContext(tmp_path, {"input": tiny.WORD_READER}, ("blame", "praise"), seed=1)


def values(held_out, answers):
    return [measured.value for measured in held_out.measure(answers)]


def test_names_are_counted_by_their_place_and_by_what_they_were_taken_for(context, monkeypatch):
    names = {"Ann": "Irish", "Bob": "Irish", "Cem": "Turk"}
    monkeypatch.setattr(nationality, "load_names", lambda data: names)
    monkeypatch.setattr(nationality, "split_by_name", lambda names: {"held-out": names})
    held_out = nationality.held_out(context)
    answers = [["Irish", "Other"], ["Turk", "Irish"], ["Turk", "Other"]]
    assert held_out.questions == ["Ann", "Bob", "Cem"]
    assert values(held_out, answers) == pytest.approx([200 / 3, 100])
    assert held_out.confusion(answers) == {
        ("Irish", "Irish"): 1, ("Irish", "Turk"): 1, ("Turk", "Turk"): 1,
    }  # fmt: skip


def test_words_are_taken_for_the_label_of_their_last_wrong_token(context, monkeypatch):
    """``8:30`` is one word of the corpus and three tokens, of which the last is right."""
    sentences = [(("the", "at"), ("8:30", "cd")), (("good", "jj"), ("food", "nn"))]
    monkeypatch.setattr(tagging, "load_sentences", lambda data: sentences)
    monkeypatch.setattr(tagging, "split_sentences", lambda sentences: {"held-out": sentences})
    held_out = tagging.held_out(context)
    assert held_out.questions == [["the", "8", ":", "30"], ["good", "food"]]
    answers = [["at", "jj", ":", "cd"], ["rb", "nn"]]
    assert values(held_out, answers) == [50.0, 0.0]
    assert held_out.confusion(answers) == {
        ("at", "at"): 1, ("cd", ":"): 1, ("jj", "rb"): 1, ("nn", "nn"): 1,
    }  # fmt: skip


def test_every_candidate_of_a_sentence_is_a_blank(monkeypatch, tmp_path):
    monkeypatch.setattr(cloze, "load_sentences", lambda data: ["the food is good", "is not"])
    monkeypatch.setattr(cloze, "split_sentences", lambda sentences: {"held-out": sentences})
    held_out = cloze.held_out(EvaluationContext(tmp_path, {}, ("food", "good"), seed=1))
    assert held_out.questions == ["the ___ is good", "the food is ___"]
    assert values(held_out, [["food", "good"], ["food", "good"]]) == [50.0, 100.0]


def test_sentences_and_pairs_are_measured_apart(context, monkeypatch):
    """A pair is right when both are; who blames all is right half the time, and never of pairs."""
    monkeypatch.setattr(sentiment, "load_held_out", lambda data: [Example("good", 1)] * 3)
    held_out = sentiment.held_out(context)
    assert held_out.questions[:3] == ["good"] * 3
    blame = values(held_out, [["blame", "praise"]] * len(held_out.questions))
    assert (blame[0], blame[3]) == (0.0, 0.0)
    assert blame[2] == 100 * sum(not label for _, label in LECTURE_SENTENCES) / 4
    counts = [m.examples for m in held_out.measure([["blame"]] * len(held_out.questions))]
    assert counts == [3, 400, 4, 200, 200]


def test_phones_are_compared_with_the_nearest_variant(context, monkeypatch):
    words = {"ab": [["A", "B"], ["A"]], "c": [["C"]]}
    monkeypatch.setattr(g2p, "read_splits", lambda data, quick: {"held-out": words})
    held_out = g2p.held_out(context)
    assert held_out.questions == ["ab", "c"]
    assert values(held_out, ["A B", "B"]) == pytest.approx([50.0, 100 / 3])


def test_translations_are_scored_as_training_scores_them(context, monkeypatch):
    pairs = [Pair("in the beginning", "en el principio creó Dios"), Pair("light", "sea la luz")]
    monkeypatch.setattr(translate, "read_splits", lambda data, quick: {"held-out": pairs})
    held_out = translate.held_out(context)
    said = ["en el principio creó la luz", "sea la luz"]
    wanted = [figure.value for figure in translate.figures_of(said, pairs, "verses", "make")]
    assert values(held_out, said) == pytest.approx(wanted)
    assert held_out.questions == ["in the beginning", "light"]


def test_each_split_of_foods_has_figures_of_its_own(context, monkeypatch):
    parts = {
        "every tenth": [Food("Cheese, cheddar", "", (1.0,))],
        "new names": [Food("Milk", "", (2.0,))],
    }
    monkeypatch.setattr(food, "load_foods", lambda data: SimpleNamespace(foods=()))
    monkeypatch.setattr(food, "split_foods", lambda foods: parts)
    held_out = food.held_out(context)
    assert held_out.questions == [(1.0,), (2.0,)]
    assert values(held_out, ["Cheese, cheddar", "Bread"]) == [100.0, 1.0, 0.0, 0.0]


def test_a_text_is_read_in_pieces_that_make_it_up(context, monkeypatch):
    text = "abcdefghij" * 200
    monkeypatch.setattr(prose, "held_out_text", lambda data: text)
    held_out = prose.held_out(context)
    assert "".join(piece[read:] for piece, read in held_out.questions) == text[1:]
    answers = [[1.0] * (len(piece) - read) for piece, read in held_out.questions]
    (measured,) = held_out.measure(answers)
    assert (measured.value, measured.examples) == (1.0, len(text) - 1)


def test_texts_side_by_side_are_scored_as_each_alone():
    """And what is only read counts for nothing but the state."""
    model = tiny.generator().build()
    texts = [(torch.arange(1, 90) % 13 + 1, 1), (torch.arange(3, 20) % 13 + 1, 7)]
    together = nats_of(model, texts)
    for (ids, read), nats in zip(texts, together, strict=True):
        with torch.no_grad():
            logits, _ = model(ids[None, :-1])
        alone = torch.nn.functional.cross_entropy(logits[0], ids[1:], reduction="none")
        torch.testing.assert_close(nats.float(), alone[read - 1 :])
