"""A model of a known task is a recipe and the module it names, and no list anywhere names it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.store import read_bundle
from evaluation import __main__ as evaluation
from examples.demonstrations import demonstrate
from export import __main__ as export
from export import quality
from export.bundles import export_bundle
from tests import tiny
from training import bundled, config
from training.task_run import figures_of, held_out_examples
from unroll import Client

ROOT = Path(__file__).parents[1]
RECIPE = """
[data]
module = "training.bundled.tenth"
description = "Knows three letters."

[sampling]
temperature = 0.5
top_k = 3
top_p = 0.9

[export]
int8 = true

[[goals]]
figure = "loss"
bar = 100
is_error = true

[card]
weaknesses = "It knows no letter."
"""
MODULE = """
from training.data.packages import DataPackage
from training.held_out import FigureName, HeldOut
from training.measurements import ratio
from training.splits import Splits
from training.tasks.generate import Document, Generate

TEXT = "abcabcabc"


class Tenth(Generate):
    packages = (DataPackage("none", "0", "none", "0", "none"),)

    def read(self, recipe):
        return Splits([Document(TEXT)], [Document(TEXT)], [Document(TEXT)], name="a text"), []

    def held_out(self, examples, trained):
        def measure(answers):
            (nats,) = answers
            return [ratio(nats, [1] * len(nats), len(nats), "letters")]

        return HeldOut([(TEXT, 1)], measure, figures=[FigureName("loss", "nats a letter")])


TASK = Tenth()
"""


@pytest.fixture
def tenth(tmp_path, monkeypatch):
    """Its recipe and the module that it names lie beside those of the nine."""
    recipes, modules = tmp_path / "recipes", tmp_path / "modules"
    for folder, name, content in (
        (recipes, "tenth.toml", RECIPE), (modules, "tenth.py", MODULE)
    ):  # fmt: skip
        folder.mkdir()
        (folder / name).write_text(content)
    monkeypatch.setattr(config, "RECIPES", recipes)
    monkeypatch.setattr(bundled, "__path__", [*bundled.__path__, str(modules)])
    yield recipes / "tenth.toml"
    sys.modules.pop("training.bundled.tenth", None)


_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


@pytest.fixture
def make(tmp_path, tenth):
    """What `make` prints in a folder with the recipe, where everything is installed."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "recipes").symlink_to(tenth.parent)
    # Whoever runs the tests by make has flags and a level of their own.
    environment = {key: value for key, value in os.environ.items() if key not in _OF_MAKE}

    def run(*arguments):
        return subprocess.run(
            ["make", "-f", ROOT / "Makefile", "-o", ".venv/.dev", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip

    return run


def test_an_edited_recipe_trains_anew_and_a_stopped_run_goes_on(tmp_path, tenth, make):
    run = tmp_path / "runs" / "tenth"
    run.mkdir(parents=True)
    python = ".venv/bin/python -m training tenth"
    assert [line.strip() for line in make("-n", "runs/tenth/model.pt")] == [python]
    for name, age in (("checkpoint.pt", 20), ("model.pt", 10)):
        (run / name).touch()
        os.utime(run / name, (1_700_000_000 - age,) * 2)
    os.utime(tenth, (1_700_000_000 - 30,) * 2)
    assert python not in "\n".join(make("-n", "runs/tenth/model.pt"))
    (run / "model.pt").unlink()
    assert [line.strip() for line in make("-n", "runs/tenth/model.pt")] == [f"{python} --resume"]
    os.utime(tenth, (1_700_000_000,) * 2)
    assert [line.strip() for line in make("-n", "runs/tenth/model.pt")] == [python]


def test_a_file_of_ones_own_is_trained_exported_checked_and_loaded(make):
    shown = make("-n", "model", "TASK=classify", "NAME=mine", "DATA=a b.csv", "ARGS=--minutes 5")
    commands = [line for line in shown if " -m " in line]
    assert commands.pop().startswith(".venv/bin/python -m unroll load mine ")
    assert commands == [
        ".venv/bin/python -m training classify --name mine --data 'a b.csv' --minutes 5",
        ".venv/bin/python -m export mine",
        ".venv/bin/python -m service check",
    ]


def test_the_makefile_trains_and_exports_whatever_has_a_recipe(make):
    shown = make("-npq")
    assert "MODELS := tenth" in shown
    assert "INT8 := tenth" in shown
    assert "BUNDLES := models/tenth/1/manifest.json" in shown


def test_a_tenth_model_is_exported_evaluated_and_shown(
    tmp_path, tenth, monkeypatch, capsys, start_service
):
    monkeypatch.setattr(quality, "_ROUND_SECONDS", 0.001)
    recipe = config.recipe_of("tenth")
    made = tiny.trained(
        "tenth", tiny.generator().build().config,
        {"input": tiny.LETTER_READER, "output": tiny.LETTER_READER},
    )  # fmt: skip
    facts = {"command": "none", "seconds": 9, "threads": 1, "parameters": 9}
    figures = figures_of(held_out_examples(made, tmp_path), made, made.build(), "none")
    training_facts = {**made.training, **facts}
    made = replace(made, figures=figures, sampling=recipe.sampling, training=training_facts)
    target = tmp_path / "models" / "tenth" / "1"
    export_bundle(made, target)
    arguments = ["export", "tenth", "--bundle", str(target), "--models", str(tmp_path / "models")]
    monkeypatch.setattr("sys.argv", [*arguments, "--int8"])
    assert export.main() == 0
    manifest = read_bundle(target).manifest
    assert manifest.sampling == recipe.sampling
    assert [f.precision for f in manifest.precisions["int8"].figures] == ["int8", "fp32"]

    pages = ["--models", str(tmp_path / "models"), "--output", str(tmp_path / "docs")]
    assert evaluation.main(pages) == 0
    assert "It knows no letter." in (tmp_path / "docs" / "models" / "tenth.md").read_text()
    assert "| tenth | loss, a text | ≤ 100 |" in (tmp_path / "docs" / "models.md").read_text()

    service = start_service(models=tmp_path / "models")
    with Client(service.target, timeout=20) as client:
        (model,) = client.list_models().models
        assert demonstrate(client, model)
    assert "generate --model tenth" in capsys.readouterr().out
