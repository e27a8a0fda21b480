import torch

from tests import tiny
from training.checkpoint import MODEL_FILE, TrainedModel


def test_a_trained_model_comes_back_as_it_was_saved(tmp_path):
    """Precisions and their figures too, which a run of an earlier release does not have."""
    model = tiny.generator()
    model.save(tmp_path)
    loaded = TrainedModel.load(tmp_path)
    assert loaded.precisions == model.precisions
    assert (loaded.figures, loaded.limits, loaded.config) == (
        model.figures, model.limits, model.config,
    )  # fmt: skip
    content = torch.load(tmp_path / MODEL_FILE, weights_only=True)
    del content["precisions"]
    torch.save(content, tmp_path / MODEL_FILE)
    assert TrainedModel.load(tmp_path).precisions == {}
