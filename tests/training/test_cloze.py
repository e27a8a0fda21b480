import random
from types import SimpleNamespace

import pytest
import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.bundled import cloze
from training.models.fill import Fill, FillConfig
from training.models.options import RecurrentOptions
from training.tasks import fill
from training.tasks.fill import (
    NO_BLANK,
    FillTask,
    Line,
    Sentence,
    begin_importance,
    begin_with_vectors,
    encode,
    make_batches,
    read_at_blanks,
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


BAG = {"combined_size": 7, "bag": True}


def fill_model(candidates, **options):
    torch.manual_seed(0)
    size = options.pop("embedding_size", 6)
    return Fill(
        FillConfig(len(VOCABULARY), candidates, size, RecurrentOptions("lstm", 5), **options)
    ).eval()


def test_blanks_alone_are_read():
    sentences = [Sentence([BEGIN, 2, END], [NO_BLANK, 0, NO_BLANK])]
    sentences.append(Sentence([BEGIN, 2, 2, END], [NO_BLANK, 1, NO_BLANK, NO_BLANK]))
    (batch,) = make_batches(sentences, random.Random(1))
    model = fill_model(2)
    read, answers = read_at_blanks(model, batch)
    assert answers.tolist() == [0, 1]
    torch.testing.assert_close(model.output(read), model.everywhere(*batch[:2])[:, 1])


def test_batches_are_made_in_turn_and_in_parts():
    rows = [Sentence([BEGIN, *[2] * n, END], [NO_BLANK] * (n + 2)) for n in range(1, 6)]
    batches = make_batches(rows, random.Random(1), 2)
    assert len(batches) == 3
    part = batches[1:]
    assert [b[0].tolist() for b in part] == [b[0].tolist() for b in list(batches)[1:]]


def test_answers_are_those_of_the_blank():
    """Whatever stands beside it; the likeliest candidates come first."""
    trained = SimpleNamespace(tokenizers={"input": READER}, labels=("man", "went", "sea"))
    model = fill_model(3)
    questions = ["the ___ went", "___", "the man went ___"]
    answers = cloze.TASK.answers(model, trained, questions)
    for question, words in zip(questions, answers, strict=True):
        left, right = (READER.encode(side).ids for side in question.split("___"))
        sides = torch.tensor([[BEGIN, *left]]), torch.tensor([[END, *right[::-1]]])
        lengths = (torch.tensor([side.shape[1]]) for side in sides)
        logits = model(sides[0], next(lengths), sides[1], next(lengths))[0]
        assert words == [trained.labels[n] for n in logits.argsort(descending=True)]


@pytest.mark.parametrize("options", [{}, BAG])
def test_filling_everywhere_is_filling_each_blank(options):
    """What training sees of a blank is what a caller asks: the two sides, towards the blank."""
    model = fill_model(4, **options)
    tokens = torch.tensor([[BEGIN, 1, 2, 3, END], [BEGIN, 3, 3, END, 0]])
    everywhere = model.everywhere(tokens, torch.tensor([5, 4]))
    for row, blank in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2)):
        words = tokens[row : row + 1, : 5 - row]
        left, right = words[:, :blank], words[:, blank + 1 :].flip(1)
        alone = model(left, torch.tensor([left.shape[1]]), right, torch.tensor([right.shape[1]]))
        torch.testing.assert_close(everywhere[row : row + 1, blank], alone)


def test_a_bag_reads_far_words_without_the_layers():
    """Nothing of it is lost on the way to the blank, and the blank itself is not in it."""
    model = fill_model(4, **BAG)
    with torch.no_grad():
        model.combine.weight.zero_()
    lengths = torch.tensor([6])
    one, other, same = (
        model.everywhere(torch.tensor([[BEGIN, first, 1, 1, blank, END]]), lengths)[0, 4]
        for first, blank in ((2, 1), (3, 1), (2, 3))
    )
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one, same)


@pytest.mark.parametrize("draws", [0, 8])
def test_a_model_learns_which_word_stands_between_two(draws):
    torch.manual_seed(0)
    rows = [encode(READER, {"man": 0, "went": 1}, text) for text in ("the man", "man went the")]
    task = FillTask(rows, rows, seed=1, draws=draws)
    model = Fill(FillConfig(len(VOCABULARY), 2, 8, RecurrentOptions("lstm", 8)))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(30):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    read, answers = read_at_blanks(model, task.batches(0)[0])
    assert torch.equal(model.output(read).argmax(dim=1), answers)
    assert task.validate(model) == pytest.approx(0, abs=0.3)


def test_frequent_words_begin_light():
    """Half of one in a thousand, by a / (a + p)."""
    model = fill_model(4, **BAG)
    begin_importance(model, [Sentence([1] * 998 + [2, 3], [NO_BLANK] * 1_000)])
    weights = torch.sigmoid(model.importance.weight).flatten().tolist()
    assert weights[1:4] == pytest.approx([0.001 / 0.999, 0.5, 0.5])


def test_words_begin_as_their_vectors(monkeypatch):
    """The words without one begin as they would."""
    vectors = {"the": 1.0, "man": 2.0, "went": torch.nan, "bank": -3.0}
    monkeypatch.setattr(
        fill, "vectors_of", lambda words, _: torch.tensor([[vectors[w]] * fill.SIZE for w in words])
    )
    options = {"embedding_size": fill.SIZE + 2}
    model, before = fill_model(2, **options), fill_model(2, **options)
    begin_with_vectors(model, VOCABULARY.symbols, ("went", "bank"), 0.5, "data")
    embedded = model.embedding.weight
    assert embedded[1:3, : fill.SIZE].unique(dim=1).flatten().tolist() == [0.5, 1.0]
    assert torch.equal(embedded[3:], before.embedding.weight[3:])
    assert torch.equal(model.output.weight[0], before.output.weight[0])
    assert model.output.weight[1].tolist() == pytest.approx(
        [-(fill.SIZE**-0.5)] * fill.SIZE + [0, 0]
    )


def test_frequent_candidates_are_ranked_among_themselves(monkeypatch):
    monkeypatch.setattr(cloze, "FREQUENT", 2)
    trained = SimpleNamespace(labels=("man", "sea", "ship"))
    held_out = cloze.TASK.held_out([Line("The man saw the ship")], trained)
    assert held_out.questions == ["the ___ saw the ship", "the man saw the ___"]
    figures = held_out.measure([["ship", "man", "sea"], ["sea", "ship", "man"]])
    assert [figure.value for figure in figures] == [100, 100, 0, 100]
    assert [figure.examples for figure in figures] == [1, 1, 2, 2]
    assert [name.split[:10] for name in held_out.figures] == ["blanks of "] * 2 + [""] * 3


def test_rare_words_are_guessed_by_counting_their_neighbours():
    trained = SimpleNamespace(labels=("man", "sea"))
    lines = [Line("the man sails"), Line("a man sails"), Line("deep sea here")]
    splits = SimpleNamespace(train=lines)
    floors = cloze.TASK.floors(splits, trained, ["deep ___ here", "the ___ sails"])
    assert floors["the words left and right, counted"] == [["sea", "man"], ["man", "sea"]]
