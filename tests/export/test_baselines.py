"""Baselines as bundles: the gate, equal bits through onnxruntime, and the one that has none."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import export.weights
import training.models.embedding
from bundle.manifest import CLASSIFY
from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.weights import for_export, to_pytorch
from service.runtime.repository import load_models
from service.runtime.sessions import SessionSettings
from tests import tiny
from training.models import build
from training.models.embedding import round_large_tables

WIDTH = 3
EXPORTED = ("bag", "window", "convolution")
LENGTHS = (1, 2, 7, 3, 12, 4)


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """A folder with a bundle of each baseline that has one."""
    root = tmp_path_factory.mktemp("baselines")
    for reader in EXPORTED:
        tiny.export(tiny.baseline(reader, WIDTH, reader), root / reader / "1")
    return root


@pytest.fixture(params=EXPORTED)
def bundle(request, baselines):
    return read_bundle(baselines / request.param / "1")


@pytest.fixture
def predict(bundle):
    """tokens of some rows → their probabilities, as a batch ``time`` wide"""
    session = onnxruntime.InferenceSession(
        bundle.path_of("predict"), providers=["CPUExecutionProvider"]
    )

    def run(rows, time=0):
        tokens = pad_sequence([*rows, torch.zeros(time, dtype=torch.int64)], batch_first=True)
        lengths = np.array([len(row) for row in rows])
        return session.run(None, {"tokens": tokens[:-1].numpy(), "lengths": lengths})[0]

    return run


def rows_of_words(seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 9, (length,), generator=random) for length in LENGTHS]


def test_a_baseline_passes_the_gate_as_a_classifier(bundle):
    """Ragged batches of sizes the tracer never saw; a convolution needs no operator of its own."""
    assert bundle.manifest.task == CLASSIFY
    assert bundle.manifest.state == ()
    assert bundle.manifest.export.parity.keys() == {"predict"}
    operators = {node.op_type for node in onnx.load(bundle.path_of("predict")).graph.node}
    assert "MatMul" in operators
    assert not operators & {"Conv", "Loop", "Scan", "Range"}


def test_onnx_equals_pytorch_on_a_ragged_batch(bundle, predict):
    model = trained_from_bundle(bundle).build()
    rows = rows_of_words()
    tokens = pad_sequence(rows, batch_first=True)
    with torch.no_grad():
        expected = torch.softmax(model(tokens, torch.tensor(LENGTHS)), dim=1)
    np.testing.assert_allclose(predict(rows), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("time", [0, 13, 64])
def test_a_row_alone_has_the_bits_it_has_in_a_padded_batch(predict, time):
    """Whatever its batch-mates, and however wide they make the batch."""
    rows = rows_of_words()
    together = predict(rows, time)
    for row, expected in zip(rows, together, strict=True):
        assert predict([row]).tobytes() == expected.tobytes()


def test_a_bag_of_words_gives_two_orders_the_same_bits(bundle, predict):
    order, another = torch.tensor([1, 2, 3, 3, 4, 5, 6]), torch.tensor([3, 6, 1, 5, 3, 2, 4])
    is_bag = bundle.manifest.model["reader"] == "bag"
    assert (predict([order]).tobytes() == predict([another]).tobytes()) is is_bag


def test_a_baseline_is_rebuilt_from_its_bundle_alone(bundle, tmp_path):
    again = export_bundle(trained_from_bundle(bundle), tmp_path / bundle.manifest.name / "1")
    assert again.digest == bundle.digest


@pytest.mark.parametrize("reader", EXPORTED)
def test_a_baseline_with_a_table_in_half_precision_passes_the_gate(reader, tmp_path, monkeypatch):
    """A bag of words multiplies by its table, where others look rows up."""
    monkeypatch.setattr(export.weights, "LARGE", 1)
    monkeypatch.setattr(training.models.embedding, "LARGE", 1)
    trained = tiny.baseline(reader, WIDTH)
    model = trained.build()
    round_large_tables(model)
    rounded = replace(trained, weights=model.state_dict())
    bundle = export_bundle(rounded, tmp_path / trained.name / "1")
    assert bundle.manifest.weights.tensors["embedding.weight"].dtype == "float16"
    assert bundle.manifest.export.parity.keys() == {"predict"}


@pytest.mark.parametrize("reader", EXPORTED)
def test_a_baselines_weights_can_be_unfolded(reader):
    model = tiny.baseline(reader, WIDTH).build()
    back = to_pytorch(build(model.config), for_export(model).state_dict())
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_the_service_loads_baselines(baselines):
    """Its probe finds rows independent of their batch."""
    loaded, refused = load_models(baselines, SessionSettings("cpu", "CPUExecutionProvider", 1))
    assert sorted(model.bundle.manifest.name for model in loaded) == sorted(EXPORTED)
    assert refused == []


def test_a_feed_forward_network_is_not_exported(tmp_path):
    """A bundle's graph reads texts of any length, and it cannot."""
    with pytest.raises(ExportRefused, match="reads at most 3 words"):
        export_bundle(tiny.baseline("feedforward", WIDTH), tmp_path / "m" / "1")
    assert not (tmp_path / "m").exists()
