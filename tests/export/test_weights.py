from dataclasses import replace

import pytest
import torch
from torch import nn

import export.weights
import training.models.embedding
from export.bundles import export_bundle, trained_from_bundle
from export.weights import for_export, to_pytorch
from tests import tiny
from training.models import build, config_to_json
from training.models.cells import CELLS
from training.models.embedding import round_large_tables

MAKERS = (tiny.generator, tiny.seq2seq, tiny.classifier)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_folding_weights_can_be_undone(make, cell):
    """PyTorch's layout to ONNX's and back is the identity, for each cell and direction."""
    model = make(cell=cell).build()
    tensors = for_export(model).state_dict()
    back = to_pytorch(build(model.config), tensors)
    assert back.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back[name]), name


@pytest.mark.parametrize("make", [tiny.generator, tiny.seq2seq])
def test_a_tied_model_is_exported_and_comes_back_tied(make, tmp_path):
    """The gate compares its graphs with PyTorch; the bundle holds the matrix at both ends."""
    trained = make()
    config = trained.build().config
    width = config.recurrent.output_size
    config = replace(config, embedding_size=width, tied=True)
    torch.manual_seed(0)
    model = build(config)
    tied = replace(
        trained, config=config_to_json(config), weights=model.state_dict(), precisions={}
    )
    back = trained_from_bundle(export_bundle(tied, tmp_path / trained.name / "1")).build()
    table = back.embedding if hasattr(back, "embedding") else back.target_embedding
    assert back.output.weight is table.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


@pytest.fixture
def every_table_is_large(monkeypatch):
    monkeypatch.setattr(export.weights, "LARGE", 1)
    monkeypatch.setattr(training.models.embedding, "LARGE", 1)


@pytest.mark.parametrize("make", MAKERS)
def test_a_rounded_table_takes_half_its_bytes_and_comes_back_as_it_was(
    make, tmp_path, every_table_is_large
):
    """The gate compares its graphs with PyTorch's; what is not rounded stays whole."""
    trained = make()
    model = trained.build()
    round_large_tables(model)
    rounded = replace(trained, weights=model.state_dict())
    for given, dtype in ((rounded, "float16"), (trained, "float32")):
        bundle = export_bundle(given, tmp_path / dtype / "1")
        stored = {n: t.dtype for n, t in bundle.manifest.weights.tensors.items()}
        linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        tables = [n for n in stored if n.endswith("embedding.weight") or n in linear]
        assert linear
        assert len(tables) > len(linear)
        assert {stored.pop(name) for name in tables} == {dtype}
        assert "float16" not in stored.values()
        for name, tensor in trained_from_bundle(bundle).weights.items():
            assert torch.equal(tensor, given.weights[name]), name


def test_rounding_is_within_half_precision_and_leaves_small_tables_alone(
    every_table_is_large, monkeypatch
):
    model = tiny.generator().build()
    before = model.embedding.weight.detach().clone()
    round_large_tables(model)
    moved = (model.embedding.weight - before).abs()
    assert 0 < moved.max() <= before.abs().max() / 2048
    monkeypatch.setattr(training.models.embedding, "LARGE", before.numel() + 1)
    small = tiny.generator().build()
    round_large_tables(small)
    assert torch.equal(small.embedding.weight, before)
