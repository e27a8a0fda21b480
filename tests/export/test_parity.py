"""The gate's measure of drift: a carried state is held to the same model in float64."""

import numpy as np
import pytest

from export import parity
from export.parity import TOLERANCE, ParityMissed, check_parity
from export.tasks import graphs_of
from tests import tiny

WITHIN = 9e-6  # of a call: the gate allows 1e-5 + 1e-5·|x| of each number


def shifted(outputs):
    return {
        name: array + np.float32(WITHIN) if name.startswith("next_cell") else array
        for name, array in outputs.items()
    }


@pytest.fixture
def graph_errs(monkeypatch):
    real = parity._GraphCheck._onnx
    monkeypatch.setattr(parity._GraphCheck, "_onnx", lambda *given: shifted(real(*given)))


@pytest.fixture
def pytorch_errs_alike(monkeypatch):
    """In float32 alone."""

    def with_error(check, module, inputs, state):
        found = real(check, module, inputs, state)
        return shifted(found) if module is check.graph.module else found

    real = parity._GraphCheck._pytorch
    monkeypatch.setattr(parity._GraphCheck, "_pytorch", with_error)


@pytest.mark.parametrize(
    ("x", "off", "passes"),
    [
        (0.0, 0.9e-5, True),
        (0.0, 1.1e-5, False),
        (100.0, 1.00e-3, True),
        (100.0, 1.02e-3, False),
        (100.0, np.nan, False),
    ],
)
def test_the_tolerance_is_absolute_and_relative_at_once(tiny_models, x, off, passes):
    """|Δ| ≤ 1e-5 + 1e-5·|x| of each number, and the message says both."""
    checked = parity._GraphCheck(step_graph(), tiny_models / "letters" / "1", {"token": 5}, 0)
    expected = np.array([[x, 0.5]])
    got = expected + np.array([[off, 0.0]])
    if passes:
        assert checked._deviation("next_hidden_0", expected, got, TOLERANCE) == pytest.approx(off)
        return
    said = (
        rf"deviates by .* where {1e-5 + 1e-5 * x:.2e} is allowed \(1e-05 \+ 1e-05 · \|x\|, x what"
    )
    with pytest.raises(ParityMissed, match=said):
        checked._deviation("next_hidden_0", expected, got, TOLERANCE)


def test_a_logit_is_measured_by_the_largest_of_its_row(tiny_models):
    """A logit near zero may be a sum of large terms; a row of small ones has a small scale."""
    checked = parity._GraphCheck(step_graph(), tiny_models / "letters" / "1", {"token": 5}, 0)
    expected = np.array([[0.0, -100.0], [0.0, 0.0]])
    near = expected + np.array([[1e-3, 0.0], [0.0, 0.0]])
    assert checked._deviation("logits", expected, near, TOLERANCE) == pytest.approx(1e-3)
    with pytest.raises(ParityMissed, match="x the largest logit of its row"):
        checked._deviation("logits", expected, expected + np.array([[0], [1e-3]]), TOLERANCE)


def step_graph():
    model = tiny.generator().build()
    suppressed = tiny.LETTER_READER.vocabulary.never_sampled_ids
    (step,) = (g for g in graphs_of(model, model.config, suppressed) if g.name == "step")
    return step


def check(folder):
    return check_parity([step_graph()], folder, {"token": 5})


def test_an_error_that_each_call_may_make_is_caught_once_it_adds_up(tiny_models, graph_errs):
    with pytest.raises(ParityMissed, match=r"step: carried on, next_cell_. drifts .* from float64"):
        check(tiny_models / "letters" / "1")


def test_drift_of_that_size_passes_where_pytorch_drifts_as_far(
    tiny_models, graph_errs, pytorch_errs_alike
):
    assert check(tiny_models / "letters" / "1")["step"] < WITHIN
