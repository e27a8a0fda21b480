"""The everyday sets as they are written, and answers to tiny ones."""

import math
from types import SimpleNamespace

import pytest

from bundle.tokenizer import split
from evaluation import everyday_sets
from evaluation.evaluators import Evaluator
from evaluation.everyday_page import everyday_section, everyday_table
from evaluation.everyday_sets import (
    FOLDER,
    EverydayQuestion,
    EverydaySet,
    ask_everyday,
    everyday_set_of,
    read_everyday_set,
)
from tests.training.real import real
from training.config import models
from training.data.brown import load_sentences
from training.data.sentiment import (
    LABELS,
    LECTURE_SENTENCES,
    fingerprint,
    load_movie_sentences,
    load_product_snippets,
)
from training.held_out import BLANK

SETS = {path.stem: read_everyday_set(path) for path in sorted(FOLDER.glob("*.toml"))}
WITHOUT = {"prose", "monthly", "vowels", "vowels-online"}  # write freely, or read numbers alone


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_forty_questions_no_two_alike(name):
    everyday = SETS[name]
    every = [*everyday.questions, *everyday.lecture]
    assert len(everyday.questions) == 40
    assert len({repr(question.given).lower() for question in every}) == len(every)
    assert len(everyday.rule) > 100
    for question in every:
        assert question.accepted
        assert len(set(question.accepted)) == len(question.accepted)
    assert all(question.kind for question in everyday.questions)


def test_the_first_ten_of_a_set_are_of_all_its_kinds():
    """A card shows them, whatever the answers."""
    for everyday in SETS.values():
        kinds = {question.kind for question in everyday.questions}
        assert {question.kind for question in everyday.questions[:10]} == kinds


def test_every_bundled_model_has_one_set_but_those_that_have_no_right_answer():
    of_sets = [model for everyday in SETS.values() for model in everyday.models]
    assert sorted(of_sets) == sorted(set(models()) - WITHOUT)
    assert everyday_set_of("pos-online") == everyday_set_of("pos") == SETS["pos"]
    assert everyday_set_of("prose") is None


def test_the_lectures_sentences_are_those_that_training_keeps_away_from():
    shown = [(question.given, question.accepted) for question in SETS["sentiment"].lecture]
    assert shown == [(text, (LABELS[label],)) for text, label in LECTURE_SENTENCES]


def test_what_is_given_fits_its_task():
    assert all(
        q.given.count(BLANK) == 1 for q in (*SETS["cloze"].questions, *SETS["cloze"].lecture)
    )
    food = SETS["food"]
    assert all(len(q.given) == len(food.fields) == 8 for q in food.questions)
    for question in SETS["pos"].questions:
        words = split("words", question.given, lowercase=True)
        for tags in question.accepted:
            for pair in tags.split():
                assert pair.rpartition("/")[0] in words


def test_every_accepted_label_is_one_of_its_model():
    """Of cloze some words are missing on purpose: the card counts them."""
    assert {a for q in SETS["sentiment"].questions for a in q.accepted} == set(LABELS)


@pytest.mark.real_data
def test_no_everyday_sentence_is_trained_on():
    """As far as sentences can be looked up: what else trains is no whole sentence of its own."""
    rated = real(lambda: [*load_movie_sentences(), *load_product_snippets()])
    tagged = real(load_sentences)
    trained = {
        "sentiment": {fingerprint(example.text) for example in rated},
        "pos": {fingerprint("".join(word for word, _ in sentence)) for sentence in tagged},
    }
    for name, known in trained.items():
        assert len(known) > 8_000
        assert not known & {fingerprint(question.given) for question in SETS[name].questions}


def asked(task, answers, questions, monkeypatch, labels=(), vector=(), **fields):
    """What is made of ``answers``, and the questions that the model was asked."""
    seen = []

    def ask(client, model, given, beam):
        seen.extend([*given, beam])
        return answers

    monkeypatch.setitem(everyday_sets.EVALUATORS, task, Evaluator(ask))
    manifest = SimpleNamespace(
        task=task, name="tiny", labels=labels, vector=vector, figures=[SimpleNamespace(beam=5)]
    )
    everyday = EverydaySet(("tiny",), "a rule", tuple(questions), **fields)
    return ask_everyday(None, SimpleNamespace(manifest=manifest), everyday), seen


def test_a_ranked_answer_is_right_at_first_or_among_five(monkeypatch):
    words = ["bank", "house", "town", "sea", "road", "shop"]
    questions = [
        EverydayQuestion("to the ___", accepted, "place")
        for accepted in (("bank",), ("sea", "lake"), ("shop",), ("lake",))
    ]
    lecture = (EverydayQuestion("at the ___", ("house",)),)
    labels = [*words, "hill", "wood", "well", "barn", "gate"]
    answers, seen = asked("fill", [words] * 5, questions, monkeypatch, labels, lecture=lecture)
    assert seen == ["to the ___"] * 4 + ["at the ___", 5]
    assert [one.rank for one in answers.answered] == [0, 3, None, None]
    assert answers.unanswerable == 1
    shown = [(figure.name, figure.split, found.value) for figure, found in answers.figures()]
    assert shown == [
        ("right at first", "everyday questions", 25.0),
        ("right among 5", "everyday questions", 50.0),
        ("right at first", "the lecture's sentences", 0.0),
        ("right among 5", "the lecture's sentences", 100.0),
    ]
    card = everyday_section(answers)
    assert "- right at first: 1 of 4 (5 to 70 %)" in card
    assert "- right among 5, the lecture's sentences: 1 of 1" in card
    assert "- 1 of the set cannot be right" in card
    assert r"| to the \_\_\_ | sea, lake | bank, house, town, sea, road | among 5 |" in card
    assert card.count("| wrong |") == 2
    assert "| place 1 of 4 |" in everyday_table({"tiny": answers}, "models")


def test_few_labels_are_right_at_first_or_wrong(monkeypatch):
    questions = [EverydayQuestion("bad food", ("blame",), "plain")]
    answers, _ = asked("classify", [["glad", "blame"]], questions, monkeypatch, ["glad", "blame"])
    assert [found.value for _, found in answers.figures()] == [0.0]
    assert "| bad food | blame | glad, blame | wrong |" in everyday_section(answers)


def test_tags_are_right_when_all_are_in_the_texts_order(monkeypatch):
    text = "They refuse the refuse."
    questions = [
        EverydayQuestion(text, (tags,), "tag")
        for tags in ("refuse/vb refuse/nn", "refuse/nn", "they/pp the/at ./.", "they/pp the/nn")
    ]
    said = ["pp", "vb", "at", "nn", "."]
    answers, seen = asked("tag", [said] * 4, questions, monkeypatch)
    assert seen[0] == ["They", "refuse", "the", "refuse", "."]
    assert [one.rank for one in answers.answered] == [0, None, 0, None]


def test_a_text_is_right_whatever_its_case_and_punctuation(monkeypatch):
    questions = [EverydayQuestion("Where?", ("Dónde está", "En dónde"), "question")] * 3
    said = ["¿En dónde?", "dónde  está.", "¿Donde está?"]
    answers, _ = asked("seq2seq", said, questions, monkeypatch)
    assert [one.rank for one in answers.answered] == [0, 0, None]


def test_what_a_label_leaves_out_of_a_vector_is_unknown(monkeypatch):
    questions = [EverydayQuestion((1, 2.5), ("milk",), "dairy")] * 2
    said = ["Milk, whole", "Cheese, of milk"]
    answers, (vector, *_) = asked(
        "vec2seq", said, questions, monkeypatch, vector=("fat", "ash", "energy"),
        fields=("energy", "fat"),
    )  # fmt: skip
    assert vector[0] == 2.5
    assert math.isnan(vector[1])
    assert vector[2] == 1.0
    assert [one.rank for one in answers.answered] == [0, None]
    assert "| energy 1, fat 2.5 | milk | Milk, whole | right |" in everyday_section(answers)
