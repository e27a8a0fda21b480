"""What is chosen for a trained model by what validates, and chosen anew."""

import json
from dataclasses import replace

import pytest
import torch

from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.quality import adjusted
from tests import tiny
from training.calibration import FIGURE
from training.held_out import Ranked
from training.splits import Splits
from training.task_run import RECIPE_FILE
from training.tasks import TASKS, default_recipe
from training.tasks.classify import Labelled
from training.tasks.fill import Line

TEXTS = ["good food", "bad food", "the food is great", "not good", "not bad", "great", "bad"]


def rows(labels):
    """Texts with labels that no model can know, so that what is sure of them is too sure."""
    texts = [f"{text} {number % 7}" for number in range(30) for text in TEXTS]
    return [Labelled(text, labels[n * n % 3 % len(labels)]) for n, text in enumerate(texts)]


def recipe_for(task, folder, content, **values):
    (folder / "rows").write_text(content)
    recipe = default_recipe(task).with_value("data.files", str(folder / "rows"))
    for key, value in values.items():
        recipe = recipe.with_value(f"task.{key}", value)
    (folder / RECIPE_FILE).write_text(recipe.to_toml())
    return recipe


@pytest.fixture
def classifier():
    """Of large weights: it is sure of what it says."""
    return replace(tiny.classifier("mood"), training={"seed": 1})


def test_a_classifier_is_calibrated_and_says_so(classifier):
    task, recipe = TASKS["classify"], default_recipe("classify")
    model, labelled = classifier.build(), rows(classifier.labels)
    with torch.no_grad():
        model.output.weight.mul_(5)
    splits = Splits([], labelled, labelled)
    held_out = task.held_out(labelled, classifier)
    assert held_out.figures[-1].name == FIGURE
    before = task.answers(model, classifier, held_out.questions)
    found = task.adjust(model, recipe, splits, classifier)
    after = task.answers(model, classifier, held_out.questions)
    assert found.training["calibration_temperature"] > 1
    assert before == after
    assert isinstance(after[0], Ranked)
    assert held_out.measure(after)[-1].value < held_out.measure(before)[-1].value
    off = recipe.with_value("task.calibrated", False)
    assert task.adjust(model, off, splits, classifier) is classifier


def test_a_fill_in_model_is_calibrated_on_its_blanks():
    task, trained = TASKS["fill"], replace(tiny.fill("blank"), training={"seed": 1})
    model = trained.build()
    lines = [Line(f"the {word} is {other}") for word in tiny.WORDS for other in tiny.WORDS]
    held_out = task.held_out(lines, trained)
    before = task.answers(model, trained, held_out.questions)
    found = task.adjust(model, default_recipe("fill"), Splits([], lines, lines), trained)
    after = task.answers(model, trained, held_out.questions)
    assert found.training["calibration_temperature"] != pytest.approx(1, abs=0.1)
    assert [list(one) for one in before] == [list(one) for one in after]
    assert held_out.measure(after)[-1].value < held_out.measure(before)[-1].value


def test_a_run_of_files_is_adjusted_anew(classifier, tmp_path):
    """By the rows of its recipe; the bundle of it answers as it did, less sure of itself."""
    labelled = rows(classifier.labels)
    content = "\n".join(json.dumps({"text": r.text, "label": r.label}) for r in labelled)
    recipe_for("classify", tmp_path, content, tokens="words", input_limit=64)
    (tmp_path / "rows").rename(tmp_path / "rows.jsonl")
    recipe = (tmp_path / RECIPE_FILE).read_text().replace('/rows"', '/rows.jsonl"')
    (tmp_path / RECIPE_FILE).write_text(recipe)
    bundle = tiny.export(classifier, tmp_path / "mood" / "1")
    trained = trained_from_bundle(bundle)
    again = adjusted(trained, tmp_path, run=tmp_path)
    temperature = again.training["calibration_temperature"]
    torch.testing.assert_close(
        again.weights["output.weight"] * temperature, trained.weights["output.weight"],
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    with pytest.raises(ExportRefused, match="no recipe of 'mood' is known"):
        adjusted(trained, tmp_path, run=tmp_path / "nowhere")


def test_a_length_penalty_goes_through_a_bundle(tmp_path):
    trained = replace(tiny.seq2seq("speller"), length_penalty=0.6)
    bundle = export_bundle(trained, tmp_path / "speller" / "1")
    assert bundle.manifest.length_penalty == 0.6
    assert trained_from_bundle(bundle).length_penalty == 0.6
    assert trained.load(trained.save(tmp_path).parent).length_penalty == 0.6
    plain = tiny.export(tiny.seq2seq("speller"), tmp_path / "speller" / "2")
    assert "length_penalty" not in json.loads((plain.folder / "manifest.json").read_text())
