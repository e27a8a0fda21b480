"""The command line of training on files: what it prints, keeps, resumes and compares."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.own_data import write_pairs, write_tickets
from training import budget, config
from training.__main__ import main
from training.budget import within_minutes
from training.checkpoint import TrainedModel
from training.config import load_recipe
from training.loop import CHECKPOINT, METRICS, FitSettings
from training.models import config_from_json
from training.tasks import TASKS, default_recipe

SMALL = ["--quick", "--set", "fit.epochs=2"]


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    """Runs the command on tickets.csv; runs lie in the folder it gives."""
    monkeypatch.chdir(tmp_path)
    write_tickets(tmp_path / "tickets.csv", 60)

    def run(*arguments, name="tickets"):
        return main(["classify", "--name", name, "--data", "tickets.csv", *SMALL, *arguments])

    run.folder = tmp_path / "runs"
    return run


def test_what_was_inferred_is_printed_first(tickets, capsys):
    assert tickets() == 0
    printed = capsys.readouterr().out
    first, _, rest = printed.partition("parameters")
    for fact in ("commas between fields", "texts 'text', labels 'label'", "labels    3: billing",
                 "words,", "tokens in the middle", "by a hash of each row",
                 "2 at most"):  # fmt: skip
        assert fact in first
    assert "accuracy" in rest
    assert "floor: accuracy" in rest


def test_the_same_file_and_seed_give_the_same_model(tickets):
    """And so does the recipe that a run keeps."""
    assert tickets() == 0
    assert tickets(name="again") == 0
    kept = str(tickets.folder / "tickets" / "recipe.toml")
    assert main(["classify", "--name", "third", "--data", "tickets.csv", "--recipe", kept]) == 0
    models = [TrainedModel.load(tickets.folder / name) for name in ("tickets", "again", "third")]
    for other in models[1:]:
        for name, weight in models[0].weights.items():
            assert torch.equal(weight, other.weights[name])
    assert tickets("--seed", "2", name="other") == 0
    other = TrainedModel.load(tickets.folder / "other")
    assert not torch.equal(other.weights["output.weight"], models[0].weights["output.weight"])


def test_a_run_goes_on_with_more_epochs_and_refuses_other_settings(tickets, capsys):
    assert tickets() == 0
    assert tickets("--resume", "--set", "fit.epochs=3") == 0
    lines = (tickets.folder / "tickets" / METRICS).read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert all(epoch["train_loss"] > 0 for epoch in epochs)
    capsys.readouterr()
    assert tickets("--resume", "--set", "fit.learning_rate=0.1") == 1
    assert "learning_rate 0.003 there and 0.1 here" in capsys.readouterr().err


def test_a_run_that_was_never_begun_cannot_go_on(tickets, capsys):
    assert tickets("--resume") == 1
    assert "checkpoint.pt is not there; train without --resume" in capsys.readouterr().err


def test_a_terminated_run_leaves_a_checkpoint(tickets, monkeypatch, capsys):
    """SIGTERM is what a machine that shuts down sends."""
    task = TASKS["classify"]
    prepare = task.prepare

    def prepared(recipe, splits, seed):
        found = prepare(recipe, splits, seed)
        loss = found.training.loss

        def killed(model, batch, carry):
            os.kill(os.getpid(), signal.SIGTERM)
            return loss(model, batch, carry)

        object.__setattr__(found.training, "loss", killed)
        return found

    monkeypatch.setattr(task, "prepare", prepared)
    assert tickets() == 130
    assert "--resume" in capsys.readouterr().err
    assert (tickets.folder / "tickets" / CHECKPOINT).exists()
    monkeypatch.undo()
    monkeypatch.chdir(tickets.folder.parent)
    assert tickets("--resume") == 0


def test_bad_rows_are_counted(tickets, capsys):
    with open("tickets.csv", "a") as file:
        file.write("one field\n")
    assert tickets("--skip-bad", "1") == 0
    assert "bad rows  1 left out: tickets.csv, line 62: 1 fields" in capsys.readouterr().out


def test_files_of_their_own_validate_and_are_held_out(tickets, tmp_path, capsys):
    write_tickets(tmp_path / "held.csv", 12)
    assert tickets("--held-out", "held.csv", "--validation", "held.csv") == 0
    printed = capsys.readouterr().out
    assert "12 rows that validate or are held out are left out of training" in printed
    assert "on 12 of held-out rows" in printed


def test_runs_are_listed_and_compared(tickets, capsys):
    assert tickets() == 0
    assert tickets("--set", "model.dropout=0.1", name="less-dropout") == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert "tickets: whole, 2 epochs, loss" in listed
    assert "less-dropout" in listed
    assert main(["compare", "tickets", "less-dropout"]) == 0
    shown = capsys.readouterr().out
    assert "model.dropout  0.4      0.1" in shown
    assert "task.batch" not in shown  # it is the same
    assert "accuracy" in shown
    assert main(["compare", "tickets", "nobody"]) == 1
    assert main(["runs", "--folder", "nowhere"]) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_default_recipe_explains_every_key(task, capsys):
    """A comment each, and no key of the task's settings is missing."""
    assert main(["recipe", task]) == 0
    text = capsys.readouterr().out
    own = text.partition("[quick.")[0]
    lines = [line for line in own.splitlines() if " = " in line and not line.startswith("#")]
    assert [line for line in lines if " # " not in line] == []
    recipe = default_recipe(task)
    assert len(recipe.values()) == len(lines)
    fields = {f.name for f in config.dataclasses.fields(FitSettings)} - {"seed"}
    assert set(recipe.fit) == fields
    data = {f.name for f in config.dataclasses.fields(TASKS[task].data)}
    assert set(recipe.data) == data
    quick = default_recipe(task, quick=True)
    assert quick.value("model.recurrent.hidden_size") <= 64


def test_a_bundled_models_recipe_is_printed_too(capsys):
    assert main(["recipe", "prose"]) == 0
    assert "[model.recurrent]" in capsys.readouterr().out


def test_a_kept_recipe_is_toml_of_the_same_values(tmp_path):
    recipe = default_recipe("classify").with_value("data.files", 'a "b"\n\\é.csv')
    (tmp_path / "kept.toml").write_text(recipe.to_toml(), encoding="utf8")
    assert load_recipe(tmp_path / "kept.toml").values() == recipe.values()


class Still:
    """Steps that take a known time by a clock of their own."""

    def __init__(self, clock, seconds, batches):
        self.clock, self.seconds, self.count = clock, seconds, batches

    def batches(self, epoch):
        return [torch.ones(1)] * self.count

    def loss(self, model, batch, carry):
        self.clock.now += self.seconds
        return model(batch).sum(), None


@pytest.mark.parametrize(
    ("seconds", "batches", "epochs", "parts"),
    [(0.1, 60, 8, 1), (0.1, 10, 48, 1), (1.0, 60, 4, 5), (1.0, 600, 4, 50), (0.001, 1, 200, 1)],
)
def test_epochs_fit_a_number_of_minutes(monkeypatch, seconds, batches, epochs, parts):
    """A minute, of which a fifth is spared; readings that do not fit are cut."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(budget, "time", clock)
    settings = FitSettings(1, 10, 0.1)
    found = within_minutes(settings, nn.Linear(1, 1), Still(clock, seconds, batches), 1.0)
    assert (found.epochs, found.parts) == (epochs, parts)
    assert found.epochs * batches / found.parts * seconds <= 60


def test_minutes_are_kept_as_epochs(tickets):
    assert tickets("--minutes", "0.001") == 0
    recipe = load_recipe(tickets.folder / "tickets" / "recipe.toml")
    assert recipe.value("fit.parts") >= 1
    lines = (tickets.folder / "tickets" / METRICS).read_text().splitlines()
    assert 1 <= len(lines) <= recipe.value("fit.epochs")
    # Another machine, another hour: what was begun goes on as it was planned.
    assert tickets("--minutes", "5", "--resume") == 0
    again = load_recipe(tickets.folder / "tickets" / "recipe.toml")
    assert again.value("fit.epochs") == recipe.value("fit.epochs")


def test_minutes_that_are_too_few_for_one_reading_say_so(tickets, monkeypatch, capsys):
    monkeypatch.setattr(budget, "_seconds_of_step", lambda *given: 1.0)
    assert tickets("--minutes", "0.01") == 0
    assert "of the training rows, once: give more --minutes" in capsys.readouterr().out


def test_a_number_chooses_a_column_without_a_header(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.tsv", 90)
    task, recipe = TASKS["seq2seq"], default_recipe("seq2seq").with_value("data.files", "pairs.tsv")
    pairs = task.read(recipe)[0].every
    assert {(pair.source, pair.target) for pair in pairs} >= {("0", "zero"), ("42", "forty two")}
    swapped = recipe.with_value("data.source_column", "2").with_value("data.target_column", "1")
    assert {pair.source for pair in task.read(swapped)[0].every} >= {"zero", "forty two"}
    (tmp_path / "pairs.tsv").write_text("target\tsource\n" + "".join(
        f"{n} a\t{n}\n" for n in range(20)))  # fmt: skip
    assert {pair.target for pair in task.read(recipe)[0].every} == {f"{n} a" for n in range(20)}


def test_an_architecture_is_a_key_like_others(tickets):
    assert tickets("--set", "model.recurrent.cell=gru", "--set", "model.recurrent.layers=2") == 0
    trained = TrainedModel.load(tickets.folder / "tickets")
    assert config_from_json(trained.config).recurrent.cell == "gru"
