import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests import tiny
from training.__main__ import main
from training.checkpoint import TrainedModel
from training.config import RecipeInvalid
from training.ddp import ProcessGroup
from training.loop import CHECKPOINT, FitSettings
from training.run import NonLeaderExit, Run

SETTINGS = FitSettings(seed=1, epochs=2, learning_rate=0.1)


class TowardsOne:
    def batches(self, epoch):
        return [torch.ones(1)] * 3

    def loss(self, model, batch, carry):
        return (model.weight - 1).square().mean(), None

    def validate(self, model):
        return (model.weight - 1).abs().item()


def build(config):
    return nn.Linear(1, 1, bias=False)


@pytest.fixture
def run(tmp_path):
    return Run("pos", quick=True, resume=False, seed=1, folder=tmp_path, data=tmp_path)


def test_the_command_names_a_recipe_of_ones_own(run, tmp_path):
    assert run.command == "python -m training pos --quick --seed 1"
    own = replace(run, recipe_file=tmp_path / "own.toml")
    assert (
        own.command == f"python -m training pos --quick --recipe {tmp_path / 'own.toml'} --seed 1"
    )
    with pytest.raises(RecipeInvalid, match="cannot be read"):
        _ = own.recipe


def test_a_recipe_that_is_wrong_says_so(tmp_path, capsys):
    (tmp_path / "own.toml").write_text("[fits]")
    assert main(["pos", "--recipe", str(tmp_path / "own.toml")]) == 1
    assert "pos: own.toml: [fits] is not one of [data], [task]" in capsys.readouterr().err


def test_a_bundled_model_has_options_of_a_task(capsys):
    with pytest.raises(SystemExit):
        main(["pos", "--help"])
    shown = capsys.readouterr().out
    for option in ("--quick", "--resume", "--set", "--minutes", "--data"):
        assert option in shown


def test_stages_have_folders_of_their_own_and_go_on_where_they_stopped(run, tmp_path):
    """A run that was stopped between its stages begins the second one; a finished one stays."""
    run.fit(build, None, TowardsOne(), SETTINGS, stage="first")
    assert (tmp_path / "first" / CHECKPOINT).exists()
    assert (tmp_path / "first" / "loss.png").exists()
    resumed = replace(run, resume=True)
    _, first = resumed.fit(build, None, TowardsOne(), SETTINGS, stage="first")
    model, history = resumed.fit(build, None, TowardsOne(), SETTINGS, after=first)
    again, same = resumed.fit(build, None, TowardsOne(), SETTINGS, after=first)
    assert torch.equal(model.weight, again.weight)
    assert history.validation_loss == same.validation_loss


def test_a_stage_begun_anew_leaves_nothing_of_a_last_stage_to_resume(run, tmp_path):
    _, first = run.fit(build, None, TowardsOne(), SETTINGS, stage="first")
    run.fit(build, None, TowardsOne(), SETTINGS, after=first)
    assert (tmp_path / CHECKPOINT).exists()
    run.fit(build, None, TowardsOne(), SETTINGS, stage="first")
    assert not (tmp_path / CHECKPOINT).exists()


def test_who_does_not_lead_ends_after_the_last_stage(run, tmp_path):
    helper = replace(run, team=ProcessGroup(rank=1, size=1))
    _, first = helper.fit(build, None, TowardsOne(), SETTINGS, stage="first")
    with pytest.raises(NonLeaderExit):
        helper.fit(build, None, TowardsOne(), SETTINGS, after=first)
    assert not list(tmp_path.rglob(CHECKPOINT))


def test_a_model_samples_as_its_recipe_says(run, tmp_path):
    """Without a recipe, as a model of the study, it keeps what it was given."""
    _, history = run.fit(build, None, TowardsOne(), SETTINGS)
    own = tmp_path / "own.toml"
    own.write_text("[sampling]\ntemperature = 0.5\ntop_k = 3\ntop_p = 1.0\n")
    given = replace(tiny.generator("pos"), sampling={"temperature": 0.9})
    for other, expected in (
        (replace(run, recipe_file=own), {"temperature": 0.5, "top_k": 3, "top_p": 1.0}),
        (run, None),
        (replace(run, model="stranger"), given.sampling),
    ):
        other.finish(given, history)
        assert TrainedModel.load(tmp_path).sampling == expected


def test_a_loss_curve_and_every_setting_lie_in_the_runs_folder(run, tmp_path):
    _, history = run.fit(build, None, TowardsOne(), SETTINGS)
    run.finish(tiny.classifier("pos"), history)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recipe"]["fit"]["epochs"] == run.recipe.fit_settings(1).epochs
    assert report["history"]["validation_loss"] == history.validation_loss
    assert [figure["profile"] for figure in report["figures"]] == ["quick"]
    assert run.facts(build(None), history)["profile"] == "quick"
    assert {path.name for path in tmp_path.iterdir()} >= {"loss.png", "model.pt", CHECKPOINT}
