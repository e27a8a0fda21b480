"""Bundles that are broken or change on disk while they are served, from a caller's side."""

import math
import shutil
import threading

import numpy as np
import pytest

from service.app import NothingToServe
from service.engine.errors import ModelRefused
from tests.reweighing import reweigh
from unroll import NO_RETRIES, Client, RequestFailed, Sampling

TEXTS = ["the food is good", "not bad was great"]
FLOODED = 3.3e38  # weights that are finite, and whose products are not


@pytest.fixture
def models(tiny_models, tmp_path):
    for name in ("letters", "mood"):
        shutil.copytree(tiny_models / name, tmp_path / "models" / name)
    return tmp_path / "models"


@pytest.fixture
def service(start_service, models):
    return start_service(models=models)


def load(service, name):
    service.run(service.app.control.load(name))


def letters(client, seed=7, tokens=60):
    """Tokens with the bits of their log-probabilities."""
    pieces = client.generate(
        "letters",
        prompt="abc",
        max_tokens=tokens,
        log_probabilities=True,
        sampling=Sampling(seed=seed),
    )
    return [(token.id, token.log_probability) for piece in pieces for token in piece.tokens]


def answers(client):
    return letters(client), client.classify("mood", TEXTS), client.score("letters", ["abcabc"])


# -- what runs is what was verified ----------------------------------------------------------


def copy_over(folder):
    """As ``cp -r`` of identical files does: each is truncated, then written."""
    for path in folder.iterdir():
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(content)


def overwrite(folder):
    with (folder / "weights.bin").open("r+b") as file:
        size = len(file.read())
        file.seek(0)
        file.write(np.random.default_rng(1).bytes(size))


def truncate(folder):
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.truncate(0)


def remove(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize("change", [copy_over, overwrite, truncate, remove])
def test_a_bundle_that_changes_on_disk_changes_no_answer(service, models, change):
    """Callers that never pause get the same bits before, during and after."""
    changed, failures = threading.Event(), []
    with Client(service.target, timeout=30) as client:
        expected = answers(client)

        def call():
            with Client(service.target, timeout=30) as caller:
                after = 0
                while after < 3:
                    after += changed.is_set()
                    if answers(caller) != expected:
                        failures.append("an answer has changed")

        callers = [threading.Thread(target=call) for _ in range(2)]
        for caller in callers:
            caller.start()
        for name in ("letters", "mood"):
            change(models / name / "1")
        changed.set()
        for caller in callers:
            caller.join(60)
        assert not failures
        assert answers(client) == expected


@pytest.mark.parametrize("change", [overwrite, truncate])
def test_a_load_of_what_was_overwritten_is_refused_and_the_old_one_serves(service, models, change):
    with Client(service.target, timeout=30) as client:
        expected = answers(client)
        change(models / "letters" / "1")
        with pytest.raises(ModelRefused, match="what was served before still is"):
            load(service, "letters")
        assert answers(client) == expected


# -- numbers that are none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factor", "reason"),
    [
        ("letters", math.nan, "holds NaN or infinity"),
        ("mood", math.inf, "holds NaN or infinity"),
        ("mood", FLOODED, "graph 'predict' computes NaN or infinity"),
    ],
    ids=["NaN weights", "infinite weights", "weights too large to multiply"],
)
def test_a_model_that_is_not_finite_does_not_replace_a_good_one(
    service, models, name, factor, reason
):
    with Client(service.target, timeout=30) as client:
        expected = answers(client)
        reweigh(models / name / "1", models / name / "2", factor)
        with pytest.raises(ModelRefused, match=f"{reason}.*; what was served before still is"):
            load(service, name)
        assert answers(client) == expected
    assert service.app.registry.versions(name) == ["1"]


def test_a_model_that_is_not_finite_is_refused_at_the_start(start_service, models):
    reweigh(models / "mood" / "1", models / "mood" / "1", math.nan)
    service = start_service(models=models)
    assert [bundle.name for bundle in service.app.registry.refused] == ["mood"]
    reweigh(models / "letters" / "1", models / "letters" / "1", math.nan)
    with pytest.raises(NothingToServe, match="NaN or infinity"):
        start_service(models=models)


def test_a_request_that_comes_out_as_nan_fails_with_internal_and_is_counted(service):
    """And nothing else does: neither its neighbours nor the engine."""
    with Client(service.target, timeout=30, retries=NO_RETRIES) as client:
        expected = answers(client)
        slots = service.app.registry.get("letters").thread.engine.slots
        runner = service.app.registry.get("mood").thread.engine.runner
        step, predict = service.app.registry.get("letters").thread.engine.runner.step, runner.run

        def broken_step(side, rows):
            step(side, rows)
            slots.log_probability[:rows] = math.nan

        service.app.registry.get("letters").thread.engine.runner.step = broken_step
        runner.run = lambda items: iter([[None for _ in items]])
        for ask in (lambda: letters(client), lambda: client.classify("mood", TEXTS)):
            with pytest.raises(RequestFailed, match="computed NaN or infinity") as caught:
                ask()
            assert caught.value.code == "INTERNAL"
        for model in ("letters", "mood"):
            assert service.metric("unroll_not_finite_total", model=model) == 1
        service.app.registry.get("letters").thread.engine.runner.step = step
        runner.run = predict
        assert answers(client) == expected
