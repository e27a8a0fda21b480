"""What the answers to a held-out split's questions are worth, model by model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bundle.tokenizer import Tokenizer, count_symbols
from tests import tiny
from training.bundled import cloze, food, g2p, nationality, pos, prose, sentiment, translate
from training.bundled.food import HeldOutFood
from training.data.sentiment import LECTURE_SENTENCES, Example
from training.likelihood import nats_of
from training.tasks.classify import Labelled
from training.tasks.fill import Line
from training.tasks.generate import Document, Generate
from training.tasks.seq2seq import Pair
from training.tasks.tag import Sentence, Tag

LIMITS = {"input_tokens": 128, "output_tokens": 40}


def trained(reader=tiny.WORD_READER, labels=(), **fields):
    return SimpleNamespace(
        tokenizers={"input": reader}, labels=labels, limits=LIMITS, training={"seed": 1}, **fields
    )


def values(held_out, answers):
    return [measured.value for measured in held_out.measure(answers)]


def test_names_are_counted_by_their_place_and_by_what_they_were_taken_for():
    names = [Labelled("Ann", "Irish"), Labelled("Bob", "Irish"), Labelled("Cem", "Turk")]
    held_out = nationality.TASK.held_out(names, trained(tiny.LETTER_READER, ("Irish", "Turk")))
    answers = [["Irish", "Other"], ["Turk", "Irish"], ["Turk", "Other"]]
    assert held_out.questions == ["Ann", "Bob", "Cem"]
    # Of F1 two thirds for either nation: one right of two said, and one of one, of two and one.
    assert values(held_out, answers) == pytest.approx([200 / 3, 100, 200 / 3])
    assert held_out.confusion(answers) == {
        ("Irish", "Irish"): 1, ("Irish", "Turk"): 1, ("Turk", "Turk"): 1,
    }  # fmt: skip


def test_words_are_taken_for_the_label_of_their_last_wrong_token():
    """``8:30`` is one word of the corpus and three tokens, of which the last is right."""
    sentences = [(("the", "at"), ("8:30", "cd")), (("good", "jj"), ("food", "nn"))]
    held_out = pos.TASK.held_out(sentences, trained())
    assert held_out.questions == [["the", "8", ":", "30"], ["good", "food"]]
    answers = [["at", "jj", ":", "cd"], ["rb", "nn"]]
    assert values(held_out, answers) == [50.0, 0.0]
    assert held_out.confusion(answers) == {
        ("at", "at"): 1, ("cd", ":"): 1, ("jj", "rb"): 1, ("nn", "nn"): 1,
    }  # fmt: skip


def test_every_candidate_of_a_sentence_is_a_blank():
    lines = [Line("the food is good"), Line("is not")]
    held_out = cloze.TASK.held_out(lines, trained(labels=("food", "good")))
    assert held_out.questions == ["the ___ is good", "the food is ___"]
    assert values(held_out, [["food", "good"], ["food", "good"]]) == [50.0, 100.0] * 2


def test_sentences_and_pairs_are_measured_apart():
    """A pair is right when both are; who blames all is right half the time, and never of pairs."""
    model = trained(labels=("blame", "praise"))
    held_out = sentiment.TASK.held_out([Example("good", 1)] * 3, model)
    assert held_out.questions[:3] == ["good"] * 3
    blame = values(held_out, [["blame", "praise"]] * len(held_out.questions))
    assert (blame[0], blame[3]) == (0.0, 0.0)
    assert blame[2] == 100 * sum(not label for _, label in LECTURE_SENTENCES) / 4
    counts = [m.examples for m in held_out.measure([["blame"]] * len(held_out.questions))]
    assert counts == [3, 400, 4, 200, 200]


def test_phones_are_compared_with_the_nearest_variant():
    pairs = g2p.pairs_of({"ab": [("A", "B"), ("A",)], "c": [("C",)]})
    held_out = g2p.TASK.held_out(pairs, None)
    assert held_out.questions == ["ab", "c"]
    assert values(held_out, ["A B", "B"]) == pytest.approx([50.0, 100 / 3])


def test_translations_keep_the_order_of_their_verses():
    pairs = [Pair("in the beginning", "en el principio creó Dios"), Pair("light", "sea la luz")]
    held_out = translate.TASK.held_out(pairs, None)
    assert held_out.questions == ["in the beginning", "light"]
    assert values(held_out, [pair.target for pair in pairs]) == pytest.approx([100.0, 100.0])
    assert values(held_out, ["sea la luz", "en el principio creó Dios"])[0] < 20


def test_each_split_of_foods_has_figures_of_its_own_whole_and_by_labels():
    names = ("Protein (g)", "Iron, Fe (mg)")
    foods = [
        HeldOutFood(names, (2.0, 0.1), "Milk", "new names"),
        HeldOutFood(names, (1.0, 0.2), "Cheese, cheddar", "every tenth"),
    ]
    held_out = food.TASK.held_out(foods, None)
    assert held_out.questions[:2] == [(1.0, 0.2), (2.0, 0.1)]
    np.testing.assert_equal(held_out.questions[2:], [(1.0, np.nan), (2.0, np.nan)])
    answers = ["Cheese, cheddar", "Bread", "Butter", "Milk"]
    assert values(held_out, answers) == [100.0, 1.0, 0.0, 0.0, 0.0, 0.0, 100.0, 1.0]
    begins = ["every tenth food", "all foods of a tenth"]
    for figure, begin in zip(
        held_out.figures, np.repeat([*begins, *(f"labels of {b}" for b in begins)], 2), strict=True
    ):
        assert figure.split.startswith(begin)


def test_a_text_is_read_in_pieces_that_make_it_up():
    text = "abcdefghij" * 900
    model = trained(count_symbols("characters", [text]))
    held_out = prose.TASK.held_out([Document(text)], model)
    assert "".join(piece[read:] for piece, read in held_out.questions) == text[1:]
    assert len(held_out.questions) == 3
    answers = [[1.0] * (len(piece) - read) for piece, read in held_out.questions]
    (measured,) = held_out.measure(answers)
    assert (measured.value, measured.examples) == (1.0, len(text) - 1)


def test_texts_of_words_are_measured_by_characters_too():
    words = tiny.Tokenizer("subwords", tiny.Vocabulary(("the", "▁food", ".")))
    held_out = Generate().held_out([Document("the food."), Document("x")], trained(words))
    assert held_out.questions == [("the food.", 1)]
    assert [figure.unit for figure in held_out.figures] == ["nats a token", "nats a character"]
    assert values(held_out, [[3.0, 1.0]]) == pytest.approx([2.0, 4.0 / 6])


def test_spans_are_right_as_a_whole():
    labels = ("O", "B-X", "I-X")
    sentences = [Sentence(("a", "b", "c"), ("B-X", "I-X", "O"))]
    held_out = Tag().held_out(
        sentences, trained(Tokenizer("words", tiny.Vocabulary(("a",))), labels)
    )
    names = [figure.name for figure in held_out.figures]
    assert names == ["accuracy", "accuracy on unknown tokens", "span F1"]
    assert values(held_out, [["B-X", "I-X", "O"]]) == [100.0, 100.0, 100.0]
    assert values(held_out, [["B-X", "O", "O"]]) == pytest.approx([200 / 3, 50.0, 0.0])


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
