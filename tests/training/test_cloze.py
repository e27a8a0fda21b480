import random
from types import SimpleNamespace

import pytest
import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.bundled.cloze import TASK, narrowed
from training.models.fill import Fill, FillConfig
from training.models.options import RecurrentOptions
from training.tasks.fill import (
    NO_BLANK,
    FillTask,
    Sentence,
    at_blanks,
    encode,
    make_batches,
)

VOCABULARY = Vocabulary(("the", "man", "went"), has_markers=True)
READER = Tokenizer("words", VOCABULARY, lowercase=True)
BEGIN, END, UNKNOWN = VOCABULARY.begin_id, VOCABULARY.end_id, VOCABULARY.unknown_id


def test_a_sentence_has_a_blank_at_each_candidate():
    """A candidate may be a word that is read as unknown."""
    assert encode(READER, {"man": 0, "home": 1}, "The man went home") == Sentence(
        tokens=[BEGIN, 1, 2, 3, UNKNOWN, END],
        answers=[NO_BLANK, NO_BLANK, 0, NO_BLANK, 1, NO_BLANK],
    )


def test_logits_are_taken_at_blanks_alone():
    sentences = [Sentence([BEGIN, 2, END], [NO_BLANK, 0, NO_BLANK])]
    sentences.append(Sentence([BEGIN, 2, 2, END], [NO_BLANK, 1, NO_BLANK, NO_BLANK]))
    (batch,) = make_batches(sentences, random.Random(1))
    logits, answers = at_blanks(lambda tokens, _: torch.arange(8.0).view(2, 4, 1), batch)
    assert (logits.flatten().tolist(), answers.tolist()) == ([1.0, 5.0], [0, 1])


def test_answers_are_those_of_the_blank():
    """Whatever stands beside it; the likeliest candidates come first."""
    trained = SimpleNamespace(tokenizers={"input": READER}, labels=("man", "went", "sea"))
    torch.manual_seed(0)
    model = Fill(FillConfig(len(VOCABULARY), 3, 6, RecurrentOptions("lstm", 5))).eval()
    questions = ["the ___ went", "___", "the man went ___"]
    answers = TASK.answers(model, trained, questions)
    for question, words in zip(questions, answers, strict=True):
        left, right = (READER.encode(side).ids for side in question.split("___"))
        sides = torch.tensor([[BEGIN, *left]]), torch.tensor([[END, *right[::-1]]])
        lengths = (torch.tensor([side.shape[1]]) for side in sides)
        logits = model(sides[0], next(lengths), sides[1], next(lengths))[0]
        assert words == [trained.labels[n] for n in logits.argsort(descending=True)]


def test_filling_everywhere_is_filling_each_blank():
    """What training sees of a blank is what a caller asks: the two sides, towards the blank."""
    torch.manual_seed(0)
    model = Fill(FillConfig(len(VOCABULARY), 4, 6, RecurrentOptions("lstm", 5))).eval()
    tokens = torch.tensor([[BEGIN, 1, 2, 3, END]])
    everywhere = model.everywhere(tokens, torch.tensor([5]))
    for blank in (1, 2, 3):
        left, right = tokens[:, :blank], tokens[:, blank + 1 :].flip(1)
        alone = model(left, torch.tensor([left.shape[1]]), right, torch.tensor([right.shape[1]]))
        torch.testing.assert_close(everywhere[:, blank], alone)


def test_a_model_learns_which_word_stands_between_two():
    torch.manual_seed(0)
    rows = [encode(READER, {"man": 0, "went": 1}, text) for text in ("the man", "man went the")]
    task = FillTask(rows, rows, seed=1)
    model = Fill(FillConfig(len(VOCABULARY), 2, 8, RecurrentOptions("lstm", 8)))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(30):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    logits, answers = at_blanks(model.everywhere, task.batches(0)[0])
    assert torch.equal(logits.argmax(dim=1), answers)
    assert task.validate(model) == pytest.approx(0, abs=0.3)


def test_a_model_with_more_candidates_is_narrowed_to_the_first():
    recurrent = RecurrentOptions("lstm", 8)
    wide = Fill(FillConfig(len(VOCABULARY), 4, 8, recurrent)).eval()
    narrow = narrowed(wide, FillConfig(len(VOCABULARY), 2, 8, recurrent)).eval()
    tokens, lengths = torch.tensor([[BEGIN, 1, 2, END]]), torch.tensor([4])
    logits = wide.everywhere(tokens, lengths)[:, :, :2]
    torch.testing.assert_close(narrow.everywhere(tokens, lengths), logits)
