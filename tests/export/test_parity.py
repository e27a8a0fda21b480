"""The gate's measure of drift: a carried state is held to the same model in float64."""

import numpy as np
import pytest

from export import parity
from export.parity import ParityMissed, check_parity
from export.tasks import graphs_of
from tests import tiny

WITHIN = 9e-6  # of a call: the gate allows 1e-5 of each


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


def check(folder):
    model = tiny.generator().build()
    silent = tiny.LETTER_READER.vocabulary.never_sampled_ids
    graphs = [g for g in graphs_of(model, model.config, silent) if g.name == "step"]
    return check_parity(graphs, folder, {"token": 5})


def test_an_error_that_each_call_may_make_is_caught_once_it_adds_up(tiny_models, graph_errs):
    with pytest.raises(ParityMissed, match=r"step: carried on, next_cell_. drifts .* from float64"):
        check(tiny_models / "letters" / "1")


def test_drift_of_that_size_passes_where_pytorch_drifts_as_far(
    tiny_models, graph_errs, pytorch_errs_alike
):
    assert check(tiny_models / "letters" / "1")["step"] < WITHIN
