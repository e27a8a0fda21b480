"""One training run: its profile, its seed and its folder, the same for every task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import matplotlib
import torch
from torch import nn

from bundle.manifest import FULL, QUICK
from training.checkpoint import TrainedModel, revision
from training.config import RECIPES, Recipe, RecipeInvalid, load_recipe
from training.data.packages import DataUnavailable
from training.ddp import ProcessGroup
from training.loop import (
    CHECKPOINT,
    AnyModel,
    FitSettings,
    History,
    ResumeImpossible,
    Trainer,
    TrainingStopped,
    TrainingTask,
)
from training.models.embedding import round_large_tables
from training.readers import DataInvalid

matplotlib.use("Agg")
from matplotlib import pyplot

STOPPED_BY_USER = 130

AnyConfig = TypeVar("AnyConfig")


AnyRun = TypeVar("AnyRun", bound="Run")


class NonLeaderExit(Exception):
    """This process has helped to train; the leader of its team measures and writes."""


@dataclass(frozen=True)
class Run:
    """folder: of the run; data: of data packages. recipe_file: None for the model's own. team: of
    the processes that train together.
    """

    model: str
    quick: bool
    resume: bool
    seed: int
    folder: Path
    data: Path
    recipe_file: Path | None = None
    team: ProcessGroup = field(default_factory=ProcessGroup)

    @property
    def command(self) -> str:
        quick = " --quick" if self.quick else ""
        recipe = f" --recipe {self.recipe_file}" if self.recipe_file else ""
        return f"python -m training {self.model}{quick}{recipe} --seed {self.seed}"

    @property
    def profile(self) -> str:
        """``full``, or ``quick`` for the small model of --quick."""
        return QUICK if self.quick else FULL

    @cached_property
    def recipe(self) -> Recipe:
        """Raises RecipeInvalid for a file that cannot be read."""
        return load_recipe(self.recipe_file or RECIPES / f"{self.model}.toml", self.quick)

    def fit(
        self,
        build: Callable[[AnyConfig], AnyModel],
        config: AnyConfig,
        task: TrainingTask[AnyModel],
        settings: FitSettings,
        stage: str = "",
        after: History | None = None,
    ) -> tuple[AnyModel, History]:
        """A model of ``config`` trained on ``task``, with the weights of its best epoch; after the
        last stage its large tables are rounded.

        stage: the name of what comes before the run's last stage, and of its folder.
        after: the history of the stage before; its time counts, and --resume may begin here.

        Raises PartDone after the last stage where another process leads the team.
        """
        folder = self.folder / stage
        if stage and not self.resume and self.team.is_leader:
            # What an earlier run left of the last stage does not go on from this one.
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        begins = after is not None and not (folder / CHECKPOINT).exists()
        torch.manual_seed(settings.seed)
        model = build(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        if self.team.is_leader:
            print(
                f"{self.model} {stage}".strip()
                + f": {count:,} parameters, {settings.epochs} epochs"
            )
        identity = {"config": repr(config), "batches": len(task.batches(0))}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        trainer = Trainer(model, task, settings, folder, identity, revision(), self.team, device)
        history = trainer.fit(self.resume and not begins)
        if not stage:
            round_large_tables(model)
        history = replace(history, stage=stage, before=after, settings=asdict(settings))
        if after is not None:
            history.seconds += after.seconds
        if stage and self.team.is_leader:
            _plot(history, folder / "loss.png", f"{self.model}, {stage}")
        if not stage and not self.team.is_leader:
            raise NonLeaderExit
        return model, history

    def facts(self, model: nn.Module, history: History) -> dict[str, object]:
        """What a manifest records of how a model was trained."""
        return {
            "command": self.command,
            "profile": self.profile,
            "revision": history.revision,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            **history.curves(),
            "earlier_stages": history.earlier(),
            "seconds": round(history.seconds),
            "threads": torch.get_num_threads(),
            "processes": self.team.size,
            **history.settings,
        }

    def finish(self, trained: TrainedModel, history: History) -> None:
        """Write the report, the loss curve and, last, the model into the run's folder.

        Its figures get the run's profile, and its sampling is the recipe's.
        """
        trained = replace(
            trained,
            figures=tuple(replace(figure, profile=self.profile) for figure in trained.figures),
            sampling=self.recipe.sampling if self._has_recipe else trained.sampling,
        )
        _plot(history, self.folder / "loss.png", trained.name)
        figures = [asdict(figure) for figure in trained.figures]
        report = {
            "training": trained.training,
            "recipe": self.recipe.to_json() if self._has_recipe else {},
            "figures": figures,
            "history": asdict(history),
        }
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        for figure in trained.figures:
            print(
                f"{trained.name}: {figure.name} {figure.value:.4f} {figure.unit} "
                f"on {figure.examples:,} of {figure.split}"
            )
        trained.save(self.folder)

    @property
    def _has_recipe(self) -> bool:
        """Not so for a model whose settings are in no file, as the study's are."""
        return bool(self.recipe_file) or (RECIPES / f"{self.model}.toml").exists()


def _plot(history: History, path: Path, title: str) -> None:
    epochs = range(1, len(history.train_loss) + 1)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(epochs, history.train_loss, marker="o", label="training")
    axes.plot(epochs, history.validation_loss, marker="o", label="validation")
    axes.axvline(history.kept_epoch + 1, color="grey", linestyle=":", label="kept")
    axes.set(xlabel="epoch", ylabel="loss (nats)", title=title, xticks=list(epochs))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def started(train: Callable[[AnyRun], None], run: AnyRun) -> int:
    """The exit code of a run: 0, 1 with a sentence on standard error, or STOPPED_BY_USER."""
    try:
        train(run)
    except NonLeaderExit:
        return 0
    except TrainingStopped as stopped:
        if run.team.is_leader:
            print(stopped, file=sys.stderr)
        return STOPPED_BY_USER
    except KeyboardInterrupt:
        print(f"{run.model}: stopped outside a training step; --resume goes on", file=sys.stderr)
        return STOPPED_BY_USER
    except (DataInvalid, DataUnavailable, ResumeImpossible, RecipeInvalid) as error:
        print(f"{run.model}: {error}", file=sys.stderr)
        return 1
    return 0
