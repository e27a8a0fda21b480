from dataclasses import replace

import pytest
import torch

from export.bundles import export_bundle, trained_from_bundle
from export.weights import for_export, to_pytorch
from tests import tiny
from training.models import build, config_to_json
from training.models.cells import CELLS

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
