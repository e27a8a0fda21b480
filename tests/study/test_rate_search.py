"""Each design learns at the rate that validates best, and the page says what it was given."""

import json
from pathlib import Path

import pytest

from study import rate_search
from study.artifact_cache import ArtifactCache
from study.rate_search import RateSearch, as_json, lowest_loss, next_rates, render
from study.recipes import Learner
from study.settings import CharacterSettings, Settings
from training.checkpoint import MODEL_FILE
from training.loop import History

INF = float("inf")
LEARNER = Learner("forcing", "characters", "gru")
SETTINGS = Settings(
    characters=CharacterSettings(seeds=(1, 2, 3), learning_rate=0.003, most_rates=5)
)


def searched(losses_of_rates, most_rates=5):
    """The rates that are tried, in their order, where each has the loss it has here."""
    settings = CharacterSettings(learning_rate=0.003, most_rates=most_rates)
    losses = {}
    while rates := next_rates(settings, losses):
        losses |= {rate: losses_of_rates[rate] for rate in rates}
    return list(losses)


@pytest.mark.parametrize(
    ("losses", "tried"),
    [
        ({0.001: 2, 0.003: 1, 0.009: 2}, [0.003, 0.009, 0.001]),
        ({0.003: 2, 0.009: 1, 0.027: 2}, [0.003, 0.009, 0.027]),
        (
            {0.001: 2, 0.003: 3, 0.009: 4, 0.00033: 1, 0.00011: 2},
            [0.003, 0.009, 0.001, 0.00033, 0.00011],
        ),
        ({0.003: INF, 0.009: 1, 0.027: 1}, [0.003, 0.009, 0.027]),
    ],
)
def test_a_search_ends_where_both_neighbours_of_the_best_are_worse(losses, tried):
    assert searched(losses) == tried


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_search_tries_no_more_rates_than_it_may(most):
    """Losses that go on falling would go on for ever."""
    falling = {0.003: 3, 0.009: 2, 0.027: 1, 0.081: 0}
    assert searched(falling, most) == [0.003, 0.009, 0.027, 0.081][:most]


def test_a_run_that_diverged_is_never_chosen():
    nan = float("nan")
    assert lowest_loss(History(validation_loss=[nan, 2.0, nan])) == 2.0
    assert lowest_loss(History(validation_loss=[nan, nan])) == INF


class FakeTrainer:
    """Leaves a history whose lowest loss follows from the rate, 0.009 being the best."""

    def __init__(self, cache):
        self.cache = cache
        self.trained = []

    def train(self, recipe):
        folder = self.cache.prepare(recipe)
        loss = 1 + abs(recipe.learning_rate - 0.009)
        history = {
            "train_loss": [2.0, 1.0, 0.5],
            "validation_loss": [3.0, loss, 2.5],
            "settings": {"epochs": 3},
        }
        (folder / "report.json").write_text(json.dumps({"history": history}))
        (folder / MODEL_FILE).touch()
        self.trained.append((recipe.learning_rate, recipe.seed))


@pytest.fixture
def trainer(tmp_path):
    return FakeTrainer(ArtifactCache(tmp_path, SETTINGS))


RUNS = [(0.003, 1), (0.009, 1), (0.027, 1), (0.009, 2), (0.009, 3)]


def test_the_first_seed_searches_and_the_others_have_its_rate(trainer):
    """The searching seed's run at the chosen rate is one of the three, and not trained again."""
    search = RateSearch(trainer.cache)
    search.train(trainer, [LEARNER], workers=1)
    assert trainer.trained == RUNS
    choice = search.choice(LEARNER)
    assert (choice.learning_rate, choice.seeds, choice.epochs) == (0.009, [1, 2, 3], 3)
    assert choice.kept == [2, 2, 2]
    assert [rate for rate, _ in choice.tried] == [0.003, 0.009, 0.027]
    assert dict(choice.tried)[0.009] == 1


@pytest.mark.parametrize("stopped_after", range(1, len(RUNS)))
def test_a_stopped_search_goes_on_where_it_stood(trainer, monkeypatch, stopped_after):
    train = trainer.train

    def stop(recipe):
        if len(trainer.trained) == stopped_after:
            raise KeyboardInterrupt
        train(recipe)

    monkeypatch.setattr(trainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        RateSearch(trainer.cache).train(trainer, [LEARNER], workers=1)
    monkeypatch.setattr(trainer, "train", train)
    RateSearch(trainer.cache).train(trainer, [LEARNER], workers=1)
    assert trainer.trained == RUNS


def test_learners_that_take_longest_are_trained_first(trainer, monkeypatch):
    names = []

    def record(trainer, recipes, workers):
        names.extend(recipe.name for recipe in recipes)
        for recipe in recipes:
            trainer.train(recipe)

    monkeypatch.setattr(rate_search, "train_all", record)
    learners = [Learner("order", "sentences", "lstm"), LEARNER]
    RateSearch(trainer.cache).train(trainer, learners, workers=2)
    assert names[:4] == [
        "characters-gru-0.003-1", "characters-gru-0.009-1", "sentences-lstm-0.002-1",
        "sentences-lstm-0.006-1",
    ]  # fmt: skip


def test_models_of_every_rate_and_seed_are_discarded_and_no_others(trainer):
    other = Learner("depth", "characters", "gru-deep")
    for learner in (LEARNER, other):
        RateSearch(trainer.cache).train(trainer, [learner], workers=1)
    trainer.cache.discard_models(LEARNER)
    left = {path.name for path in (Path(trainer.cache.root) / "trained").iterdir()}
    assert len(left) == len(RUNS)
    assert all(name.startswith("characters-gru-deep-") for name in left)


def test_a_page_shows_what_was_tried_and_what_was_not(trainer):
    search = RateSearch(trainer.cache)
    search.train(trainer, [LEARNER], workers=1)
    found = json.loads(json.dumps(as_json({LEARNER: search.choice(LEARNER)})))
    found["alone"] = {
        "learning_rate": 0.1, "tried": [[0.1, INF]], "seeds": [1], "epochs": 2, "kept": [1],
    }  # fmt: skip
    page = render(found)
    edge = {**found["alone"], "tried": [[0.03, 2.0], [0.1, 1.0]]}
    assert "It ended before that for `edge`." in render({**found, "edge": edge})
    assert (
        "| `characters-gru` | 0.003: 1.006, **0.009: 1.000**, 0.027: 1.018 | 3 | "
        "2, 2 and 2 | 1, 2 and 3 |"
    ) in page
    assert "It ended before that" not in page
    assert "| `alone` | **0.1: diverged** | 2 | 1 | 1 |" in page
    assert "One rate alone, and so no search, had `alone`." in page
