from dataclasses import replace

import torch

from tests import tiny
from training.checkpoint import MODEL_FILE, Figure, TrainedModel


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


def test_a_run_of_an_earlier_release_gets_the_fields_that_its_text_says(tmp_path):
    """Its figures say nothing of beam and profile, and it nothing of sampling."""
    figure = Figure("errors", 1.0, "%", "a tenth, beam of 5", 9, "python -m training.g2p --quick")
    facts = {"seed": 1, "command": figure.command}
    replace(tiny.seq2seq(), figures=(figure,), training=facts).save(tmp_path)
    content = torch.load(tmp_path / MODEL_FILE, weights_only=True)
    for field in ("beam", "precision", "profile"):
        del content["figures"][0][field]
    del content["sampling"]
    torch.save(content, tmp_path / MODEL_FILE)
    loaded = TrainedModel.load(tmp_path)
    assert loaded.figures == (replace(figure, beam=5, profile="quick"),)
    assert loaded.training["profile"] == "quick"
    assert loaded.sampling is None


def test_a_model_knows_its_task_by_its_configuration():
    assert (tiny.generator().task, tiny.classifier().task) == ("generate", "classify")
    assert tiny.baseline("bag", 0).task == "classify"
