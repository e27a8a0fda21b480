import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from bundle.tokenizer import count_symbols
from training.bundled.nationality import (
    OTHER,
    TASK,
    NationalityTask,
    answerable,
    frequencies_left_out,
    labelled,
    restore_frequencies,
)
from training.calibration import FIGURE
from training.checkpoint import TrainedModel
from training.config import recipe_of
from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions
from training.splits import Splits
from training.tasks.classify import encode, make_batches

LABELS = ("French", "Greek", "Thai")
NAMES = {"Jean": "French", "Nikos": "Greek", "Jeanne": "French"}
READER = count_symbols("characters", NAMES, lowercase=True)


def test_batches_hold_names_and_the_numbers_of_their_nations():
    numbers = {label: number for number, label in enumerate(LABELS)}
    rows = encode(READER, numbers, labelled(NAMES), 128)
    ((tokens, lengths, labels),) = make_batches(rows, random.Random(1), 9)
    assert lengths.tolist() == [4, 5, 6]
    assert labels.tolist() == [0, 1, 0]
    assert tokens[0].tolist() == [*READER.encode("Jean").ids, 0, 0]


def test_an_epoch_reads_no_more_of_a_nation_than_the_cap():
    task = NationalityTask(READER, LABELS, NAMES, NAMES, cap=1, seed=1)
    labels = Counter(n for _, _, batch in task.batches(0) for n in batch.tolist())
    assert labels == {0: 1, 1: 1}


def test_without_a_cap_an_epoch_reads_all_names():
    task = NationalityTask(READER, LABELS, NAMES, NAMES, cap=None, seed=1)
    labels = Counter(n for _, _, batch in task.batches(0) for n in batch.tolist())
    assert labels == {0: 2, 1: 1}


def precisions(read, labels=LABELS):
    trained = SimpleNamespace(
        tokenizers={"input": READER}, labels=labels, limits={"input_tokens": 128}
    )
    held_out = TASK.held_out(labelled(NAMES), trained)
    answers = TASK.answers(read, trained, held_out.questions)
    return tuple(measured.value for measured in held_out.measure(answers))[:2]


def test_precision_counts_the_likeliest_and_the_five_likeliest():
    logits = torch.tensor([9.0, 2.0, 1.0, 3.0, 4.0, 5.0])
    labels = (*LABELS, "a", "b", "c")  # Greek is the fifth of six
    found = precisions(lambda tokens, _: logits.expand(len(tokens), 6), labels)
    assert found == pytest.approx((200 / 3, 100.0))


def test_a_nation_without_an_answer_counts_as_other():
    """A bundle of before, which knows every nation, is measured with its own labels."""
    found = answerable(labelled(NAMES), ("Greek", OTHER))
    assert [example.label for example in found] == [OTHER, "Greek", OTHER]
    assert answerable(labelled(NAMES), ("Greek", "Thai")) == labelled(NAMES)


def test_nations_with_few_names_are_answered_as_other(capsys):
    """Two of three nations stay; facts say how many names of the third train."""
    torch.manual_seed(0)
    names = {f"{stem}{n:02}": nation for nation, stem in
             (("French", "jea"), ("Greek", "nik"), ("Thai", "xyx")) for n in range(20)}  # fmt: skip
    rare = {name: nation for name, nation in names.items() if nation != "Thai" or name < "xyx05"}
    reader = count_symbols("characters", names, lowercase=True)
    model = Classifier(
        ClassifierConfig(len(reader.vocabulary), 3, 8, RecurrentOptions("lstm", 16))
    ).eval()
    trained = TrainedModel(
        "names", "", {}, {}, {"input": reader}, {"input_tokens": 128}, LABELS, training={"seed": 1}
    )
    recipe = recipe_of("nationality").with_value("task.least_names", 10)
    splits = Splits(labelled(rare), labelled(names), [])
    adjusted = TASK.adjust(model, recipe, splits, trained)
    assert adjusted.labels == ("French", "Greek", OTHER)
    assert "Other: answered for 20 of 20 names that validate" in capsys.readouterr().out
    assert adjusted.training["answered_as_other"] == {"Thai": 5}
    assert adjusted.training["calibration_temperature"] > 0
    assert model.config.labels == 3
    again = TASK.adjust(model, recipe, splits, adjusted)
    assert again.labels == adjusted.labels
    held_out = TASK.held_out(labelled({"xyx21": "Thai"}), adjusted)
    answers = TASK.answers(model, adjusted, held_out.questions)
    assert [figure.name for figure in held_out.figures] == ["P@1", "P@5", "macro F1", FIGURE]
    assert len(held_out.measure(answers)) == 4
    assert answers == [[OTHER, *answers[0][1:]]]


def test_what_a_cap_left_out_comes_back_as_a_frequency():
    """A model that learnt nothing but the sampled frequencies says the true ones."""
    names = {f"name {n}": "French" for n in range(80)} | {"Nikos": "Greek", "Thi": "Thai"}
    model = Classifier(ClassifierConfig(len(READER.vocabulary), 3, 8, RecurrentOptions("lstm", 4)))
    torch.nn.init.zeros_(model.output.weight)
    sampled = torch.tensor([10.0, 1.0, 1.0])
    model.output.bias.data = (sampled / sampled.sum()).log()
    restore_frequencies(model.eval(), frequencies_left_out(names, LABELS, cap=10))
    said = torch.softmax(model(torch.tensor([[1, 2]]), torch.tensor([2])), dim=1)
    torch.testing.assert_close(said[0], torch.tensor([80.0, 1.0, 1.0]) / 82)


def test_a_model_learns_a_few_names():
    torch.manual_seed(0)
    task = NationalityTask(READER, LABELS, NAMES, NAMES, cap=9, seed=1)
    recurrent = RecurrentOptions("lstm", 8, bidirectional=True)
    model = Classifier(ClassifierConfig(len(READER.vocabulary), 3, 8, recurrent))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for epoch in range(20):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    assert precisions(model.eval()) == (100.0, 100.0)
    with torch.no_grad():
        assert task.validate(model) < 0.2
