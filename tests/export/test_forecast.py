"""A forecaster exported: its graphs against PyTorch, its draws against NumPy."""

import numpy as np
import pytest
import torch

from bundle.errors import ManifestInvalid
from bundle.manifest import Manifest
from bundle.series import DISTRIBUTIONS, GAUSSIAN, NEGATIVE_BINOMIAL, STUDENT_T, SeriesSpec
from export import parity
from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.parity import ParityMissed, check_parity
from export.quantised import NoInt8Step
from export.tasks import graphs_of
from export.value_draws import draw_errors
from tests import tiny
from training.models.heads import make_head

PARAMETERS = {GAUSSIAN: [0.5, -1.0], STUDENT_T: [0.5, -1.0, 1.0], NEGATIVE_BINOMIAL: [0.4, 0.3]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of counts, without lags or a calendar; the tiny models have the other kinds."""
    spec = SeriesSpec("D", NEGATIVE_BINOMIAL, (), calendar=False, least_context=1)
    model = tiny.forecaster("counts", NEGATIVE_BINOMIAL, spec)
    return tiny.export(model, tmp_path_factory.mktemp("models") / "counts" / "1")


def test_every_graph_agrees_with_pytorch(bundle):
    assert set(bundle.manifest.export.parity) == {"prime", "step"}
    assert max(bundle.manifest.export.parity.values()) < 1e-4


def test_a_bundle_gives_the_trained_model_back(bundle):
    back = trained_from_bundle(bundle)
    assert back.series == bundle.manifest.series
    assert back.task == "forecast"
    assert set(back.weights) == set(tiny.forecaster("x", NEGATIVE_BINOMIAL, back.series).weights)


def test_a_manifest_without_its_series_is_refused(bundle):
    content = bundle.manifest.to_json()
    del content["series"]
    with pytest.raises(ManifestInvalid, match="a forecaster needs the field 'series'"):
        Manifest.from_json(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency": "fortnight"}, "frequency 'fortnight' is not one of"),
        ({"distribution": "cauchy"}, "distribution 'cauchy' is not one of"),
        ({"covariates": ["price"]}, "step's inputs"),
        ({"least_context": 99}, "least_context is 99, and the limit context 48"),
        ({"lead": 1}, "unknown fields"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle, change, message):
    content = bundle.manifest.to_json()
    content["series"] = {**content["series"], **change}
    with pytest.raises(ManifestInvalid, match=message):
        Manifest.from_json(content)


def test_other_bundles_say_nothing_of_series(tiny_models):
    assert '"series"' not in (tiny_models / "letters" / "1" / "manifest.json").read_text()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_twin_finds_every_draw_of_pytorch_right(distribution):
    uniform = np.random.default_rng(0).random(200).astype(np.float32)
    parameters = torch.tensor([PARAMETERS[distribution]]).expand(200, -1)
    scale = torch.full((200,), 1.2)
    value = make_head(distribution).draw(parameters, torch.from_numpy(uniform), scale)
    errors = draw_errors(distribution, parameters.numpy(), scale.numpy(), value.numpy(), uniform)
    assert errors.max() < 3e-5


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_twin_finds_a_wrong_draw(distribution):
    uniform = np.array([0.5], np.float32)
    parameters, scale = np.array([PARAMETERS[distribution]]), np.array([1.2])
    rows = torch.from_numpy(parameters).float()
    value = make_head(distribution).draw(rows, torch.tensor([0.5]), torch.tensor([1.2])).numpy()
    wrong = draw_errors(distribution, parameters, scale, value + np.exp(-1.2), uniform)
    assert wrong.min() > 1e-2


def test_a_graph_that_draws_otherwise_is_not_exported(bundle, monkeypatch):
    """The gate's own check, whatever the parameters' deviation."""
    real = parity._GraphCheck._onnx

    def off(*given):
        found = real(*given)
        if "next_value" in found:
            found["next_value"] = found["next_value"] + 5
        return found

    monkeypatch.setattr(parity._GraphCheck, "_onnx", off)
    model = trained_from_bundle(bundle).build()
    with pytest.raises(ParityMissed, match=r"misses by .* in probability"):
        check_parity(graphs_of(model, model.config, ()), bundle.folder, {})


def test_a_forecaster_has_no_step_in_int8(tmp_path):
    model = tiny.forecaster()
    model = type(model)(**{**vars(model), "precisions": tiny.INT8})
    with pytest.raises((ExportRefused, NoInt8Step)):
        export_bundle(model, tmp_path / "rides" / "1")
