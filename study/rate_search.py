"""Which learning rate each design learns best with, by its validation loss, and what it was given.

Whatever was trained lies in the artifact cache, and the search is read from there: one that was
stopped goes on where it stood, and its first seed's run at the chosen rate is not trained again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.text import listed, table
from study.artifact_cache import ArtifactCache
from study.recipes import Learner, Recipe
from study.settings import SearchSettings
from study.trainer import Trainer
from study.worker_pool import train_all
from training.loop import History

_FACTOR = 3.0  # between a learning rate and its neighbours

# The longest to train come first, so that the workers end together.
_DATASETS = ("spelling", "characters", "sentences")


@dataclass(frozen=True)
class Choice:
    """What a learner was given.

    tried: each learning rate with the lowest validation loss of its run, in nats. epochs: of each
    run. kept: the epoch that was kept, from 1, a seed each.
    """

    learning_rate: float
    tried: list[tuple[float, float]]
    seeds: list[int]
    epochs: int
    kept: list[int]


class RateSearch:
    def __init__(self, cache: ArtifactCache) -> None:
        self.cache = cache

    def train(self, trainer: Trainer, learners: Sequence[Learner], workers: int) -> None:
        """Train what the cache lacks: at rates to choose from, then with the other seeds.

        Raises what train_all() does.
        """
        learners = sorted(learners, key=lambda learner: _DATASETS.index(learner.dataset))
        while waiting := [recipe for learner in learners for recipe in self.waiting(learner)]:
            train_all(trainer, waiting, workers)

    def waiting(self, learner: Learner) -> list[Recipe]:
        """What can be trained next; nothing where all is."""
        settings = self._settings(learner)
        losses = self._losses(learner)
        seed = settings.seeds[0]
        rates = next_rates(settings, losses)
        recipes = [learner.recipe(rate, seed) for rate in rates] or self.recipes(learner)
        return [recipe for recipe in recipes if not self.cache.has_model(recipe)]

    def recipes(self, learner: Learner) -> list[Recipe]:
        """Those of the chosen rate, a seed each."""
        rate = best_rate(self._losses(learner))
        return [learner.recipe(rate, seed) for seed in self._settings(learner).seeds]

    def choice(self, learner: Learner) -> Choice:
        """Of a learner for which nothing is waiting."""
        recipes = self.recipes(learner)
        histories = [self.cache.history(recipe) for recipe in recipes]
        return Choice(
            recipes[0].learning_rate,
            sorted(self._losses(learner).items()),
            [recipe.seed for recipe in recipes],
            histories[0].settings["epochs"],
            [history.kept_epoch + 1 for history in histories],
        )

    def _settings(self, learner: Learner) -> SearchSettings:
        settings: SearchSettings = getattr(self.cache.settings, learner.dataset)
        return settings

    def _losses(self, learner: Learner) -> dict[float, float]:
        """The lowest validation loss at each rate that was tried, so far as the runs are there."""
        settings = self._settings(learner)
        losses: dict[float, float] = {}
        while rates := next_rates(settings, losses):
            recipes = [learner.recipe(rate, settings.seeds[0]) for rate in rates]
            if not all(self.cache.has_model(recipe) for recipe in recipes):
                break
            losses |= {r.learning_rate: lowest_loss(self.cache.history(r)) for r in recipes}
        return losses


def lowest_loss(history: History) -> float:
    """Of any epoch on the validation split; infinite where none is a number."""
    loss = history.validation_loss[history.best_epoch]
    return math.inf if math.isnan(loss) else loss


def best_rate(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda rate: (losses[rate], rate))


def next_rates(settings: SearchSettings, losses: Mapping[float, float]) -> list[float]:
    """Rates to try after those that gave ``losses``: the neighbours that the best one lacks.

    The first two are the settings' own and the next higher one.

    So the best of all has a worse one on either side, unless ``most_rates`` end the search.
    """
    first = settings.learning_rate
    best = round(math.log(best_rate(losses) / first, _FACTOR)) if losses else 0
    steps = (best - 1, best + 1) if losses else (0, 1)
    wanted = [float(f"{first * _FACTOR**step:.2g}") for step in steps]
    missing = [rate for rate in wanted if rate not in losses]
    return missing[: max(0, settings.most_rates - len(losses))]


def as_json(choices: Mapping[Learner, Choice]) -> dict[str, Any]:
    """By the learners' models."""
    return {learner.model: asdict(choice) for learner, choice in choices.items()}


def render(found: Mapping[str, Any]) -> str:
    """A table of what as_json() gave."""
    rows = (
        (
            f"`{model}`",
            ", ".join(_trial(rate, loss, row["learning_rate"]) for rate, loss in row["tried"]),
            str(row["epochs"]),
            listed([str(epoch) for epoch in row["kept"]]),
            listed([str(seed) for seed in row["seeds"]]),
        )
        for model, row in sorted(found.items())
    )
    alone = [f"`{model}`" for model, row in found.items() if len(row["tried"]) == 1]
    unsearched = f" One rate alone, and so no search, had {listed(alone)}." if alone else ""
    ended = [f"`{model}`" for model, row in found.items() if _ends_early(row)]
    early = f" It ended before that for {listed(ended)}." if ended else ""
    header = ("design", "learning rate: lowest validation loss", "epochs", "kept", "seeds")
    return f"""\
The first seed searches, by steps of {_FACTOR:g} times as high or as low, until both neighbours of \
the best rate are worse.{early} The rate with the lowest validation loss, in \
bold, trains the other seeds. Every run has as many steps as the others of its comparison, its \
rate rising and falling over all of them, and keeps its epoch of the lowest validation \
loss.{unsearched} One that kept its last epoch might have gone on. What is held out chooses nothing.

{table(header, rows)}"""


def _ends_early(row: Mapping[str, Any]) -> bool:
    """Whether the best of several rates lacks a neighbour."""
    rates = [rate for rate, _ in row["tried"]]
    return len(rates) > 1 and row["learning_rate"] in (min(rates), max(rates))


def _trial(rate: float, loss: float, chosen: float) -> str:
    text = f"{rate:g}: {loss:.3f}" if math.isfinite(loss) else f"{rate:g}: diverged"
    return f"**{text}**" if rate == chosen else text
