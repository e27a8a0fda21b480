"""The everyday sets as they are written, and answers to a tiny one."""

import math

import pytest

from bundle.manifest import CLASSIFY, TAG
from bundle.store import read_bundle
from evaluation import everyday_sets
from evaluation.everyday_sets import FOLDER, everyday_set_of, read_everyday_set
from training.config import models
from training.data.sentiment import LABELS, LECTURE_SENTENCES
from training.held_out import BLANK

SETS = {path.stem: read_everyday_set(path) for path in sorted(FOLDER.glob("*.toml"))}
WITHOUT = {"prose", "monthly"}  # what they answer is neither right nor wrong


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_forty_questions_no_two_alike(name):
    everyday = SETS[name]
    assert len(everyday.questions) == 40
    assert len({repr(q.given).lower() for q in (*everyday.questions, *everyday.lecture)}) == 40 + (
        len(everyday.lecture)
    )
    assert len(everyday.rule) > 100
    for question in everyday.questions:
        assert question.kind
        assert question.accepted
        assert len(set(question.accepted)) == len(question.accepted)


def test_every_bundled_model_has_a_set_but_those_that_write_freely_or_forecast():
    assert {m for m in models() if everyday_set_of(m) is None} <= WITHOUT
    assert sum(len(everyday.models) for everyday in SETS.values()) == len(
        {m for everyday in SETS.values() for m in everyday.models}
    )


def test_the_lectures_sentences_are_those_that_training_keeps_away_from():
    shown = [(q.given, q.accepted) for q in SETS["sentiment"].lecture]
    assert shown == [(text, (LABELS[label],)) for text, label in LECTURE_SENTENCES]
