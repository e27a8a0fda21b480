import pytest
import torch

from export.weights import for_export, to_pytorch
from tests import tiny
from training.models import build
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
