"""What a section of the study is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.text import listed
from study.artifact_cache import ArtifactCache, Found
from study.rate_search import RateSearch
from study.recipes import Learner
from study.settings import Settings
from study.trainer import Trainer
from training.checkpoint import TrainedModel
from training.loop import History

# Where a page says what each design was given.
CHOICES_TITLE = "What each design was given"
CHOICES = "#what-each-design-was-given"


@dataclass(frozen=True)
class Study:
    """What a section measures with. models: the bundled ones."""

    settings: Settings
    cache: ArtifactCache
    trainer: Trainer
    models: Path

    @cached_property
    def search(self) -> RateSearch:
        return RateSearch(self.cache)

    def rates(self, learners: Iterable[Learner]) -> dict[str, Any]:
        """Of each design its learning rate, and how many were tried."""
        choices = {learner.design: self.search.choice(learner) for learner in learners}
        return {
            design: {"rate": choice.learning_rate, "tried": len(choice.tried)}
            for design, choice in choices.items()
        }

    def trained(self, learner: Learner) -> list[TrainedModel]:
        """Its models, a seed each."""
        return [self.cache.trained(recipe) for recipe in self.search.recipes(learner)]

    def histories(self, learner: Learner) -> list[History]:
        """A seed each."""
        return [self.cache.history(recipe) for recipe in self.search.recipes(learner)]


def say_seeds(seeds: Sequence[int]) -> str:
    """Of which seeds a section's figures are."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} alone"
    return f"median (lowest–highest) of the seeds {listed([str(seed) for seed in seeds])}"


def say_rates(rates: Mapping[str, Any]) -> str:
    """What a section says of what Study.rates() gave."""
    if any(row["tried"] > 1 for row in rates.values()):
        return f"each at [a learning rate of its own]({CHOICES})"
    shared = listed([f"{rate:g}" for rate in dict.fromkeys(r["rate"] for r in rates.values())])
    return f"all at the learning rate {shared}, [which was not searched]({CHOICES})"


@dataclass(frozen=True)
class Section:
    """One argument of the lecture.

    learners: whose models it needs. measure: what it finds, as JSON holds it. render: that as
    Markdown, without the title. draw: its figure into a file, where it has one.
    """

    name: str
    title: str
    measure: Callable[[Study], Found]
    render: Callable[[Found], str]
    learners: Sequence[Learner] = ()
    draw: Callable[[Found, Path], object] | None = None
