"""Probabilities and the scalar that mends them."""

import pytest
import torch

from training.calibration import (
    FIGURE,
    calibrate,
    calibration_error,
    divide_logits,
    fit_temperature,
    ranked,
    with_calibration,
)
from training.held_out import FigureName, HeldOut, Ranked
from training.measurements import share
from training.models.classifier import Classifier, ClassifierConfig
from training.models.embedding import LARGE
from training.models.options import RecurrentOptions


def drawn(logits):
    """An answer of each row, drawn as the logits say."""
    generator = torch.Generator().manual_seed(1)
    return torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_of_logits_that_are_too_large_is_found(factor):
    logits = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    assert fit_temperature(factor * logits, drawn(logits)) == pytest.approx(factor, rel=0.05)


def test_few_answers_that_are_all_right_make_nothing_certain():
    logits = torch.tensor([[2.0, 0.0]]).repeat(18, 1)
    sharp = logits / fit_temperature(logits, torch.zeros(18, dtype=torch.long))
    assert torch.softmax(sharp, dim=1)[0, 0].item() == pytest.approx(1 - 0.5 / 20, abs=1e-3)


def test_a_calibrated_model_ranks_as_before_and_fits_better(capsys):
    torch.manual_seed(2)
    model = Classifier(ClassifierConfig(9, 4, 8, RecurrentOptions("lstm", 6))).eval()
    torch.nn.init.uniform_(model.output.weight, -9, 9)
    tokens = torch.randint(1, 9, (300, 7))
    lengths = torch.full((300,), 7)
    with torch.no_grad():
        before = model(tokens, lengths)
        answers = drawn(before / 4)
        facts = calibrate(model, before, answers)
        after = model(tokens, lengths)
    assert facts["calibration_temperature"] == pytest.approx(4, rel=0.25)
    torch.testing.assert_close(
        after * facts["calibration_temperature"], before, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(after.argsort(dim=1), before.argsort(dim=1))
    loss = torch.nn.functional.cross_entropy
    assert loss(after, answers) < loss(before, answers) - 0.1
    assert "calibrated: logits divided by" in capsys.readouterr().out


def test_a_large_output_stays_in_half_precision():
    """So that its bundle stores it in half its bytes."""
    model = torch.nn.Module()
    model.output = torch.nn.Linear(500, LARGE // 500)
    divide_logits(model, 0.7)
    weight = model.output.weight
    assert torch.equal(weight, weight.half().float())


def test_the_error_is_how_far_confidence_lies_from_what_is_right():
    """Four answers at 0.9 of which two are right, and one at 0.3 that is wrong: 1.9 / 5."""
    measured = calibration_error([0.9] * 4 + [0.3], [True, True, False, False, False])
    assert measured.value == pytest.approx(100 * (4 * 0.4 + 0.3) / 5)
    assert measured.low <= measured.value <= measured.high
    assert (measured.examples, measured.method) == (5, "bootstrap over examples, 15 bins")


def test_errors_of_one_bin_cancel_and_of_two_do_not():
    """A bin holds what is above its lower edge: 1 / 15 is in the first, 0.07 in the second."""
    assert calibration_error([0.95, 0.95, 1.0, 1.0], [True] * 3 + [False]).value == pytest.approx(
        100 * 0.9 / 4
    )
    assert calibration_error([1 / 15, 0.07], [True, False]).value == pytest.approx(
        100 * (14 / 15 + 0.07) / 2
    )


def test_answers_with_probabilities_have_the_figure_and_others_do_not():
    held_out = HeldOut(
        ["a", "b", "c"], lambda answers: [share([best == "x" for best, *_ in answers])],
        figures=[FigureName("accuracy", "%")],
    )  # fmt: skip
    found = with_calibration(held_out, ["x", "y"])
    assert [figure.name for figure in found.figures] == ["accuracy", FIGURE]
    said = [Ranked(["x", "y"], 0.8), Ranked(["x", "y"], 0.8), Ranked(["y"], 1.0)]
    first, error = found.measure(said)
    assert first.value == pytest.approx(200 / 3)
    assert error.value == pytest.approx(30)
    assert len(found.measure([["x"], ["y"], ["x"]])) == 1


def test_the_best_come_with_the_probability_of_the_first():
    (one,) = ranked(torch.tensor([[1.0, 3.0, 2.0]]), ["a", "b", "c"])
    assert one == ["b", "c", "a"]
    assert one.confidence == pytest.approx(torch.softmax(torch.tensor([3.0, 2.0, 1.0]), 0)[0])
