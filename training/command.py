"""The command line and the folder of one training run, the same for every script."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import matplotlib
import torch
from torch import nn

from training.data.packages import DATA_FOLDER, DataUnavailable
from training.loop import (
    AnyModel,
    FitSettings,
    History,
    ResumeImpossible,
    Task,
    Trainer,
    TrainingStopped,
)
from training.trained import TrainedModel, revision

matplotlib.use("Agg")
from matplotlib import pyplot

STOPPED_BY_USER = 130

AnyConfig = TypeVar("AnyConfig")


@dataclass(frozen=True)
class Run:
    """One run of a training script: its profile, its seed, its folders."""

    model: str
    quick: bool
    resume: bool
    seed: int
    folder: Path
    data: Path

    @property
    def command(self) -> str:
        quick = " --quick" if self.quick else ""
        return f"python -m {module_of(self.model)}{quick} --seed {self.seed}"

    def fit(
        self,
        build: Callable[[AnyConfig], AnyModel],
        config: AnyConfig,
        task: Task[AnyModel],
        settings: FitSettings,
    ) -> tuple[AnyModel, History]:
        """A model of ``config`` trained on ``task``, with the weights of its best epoch."""
        torch.manual_seed(settings.seed)
        model = build(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{self.model}: {count:,} parameters, {settings.epochs} epochs")
        identity = {"config": repr(config), "batches": len(task.batches(0))}
        trainer = Trainer(model, task, settings, self.folder, identity, revision())
        return model, trainer.fit(self.resume)

    def facts(self, model: nn.Module, history: History, settings: FitSettings) -> dict[str, object]:
        """What a manifest records of how a model was trained."""
        return {
            "command": self.command,
            "revision": history.revision,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "best_epoch": history.best_epoch + 1,
            "seconds": round(history.seconds),
            "threads": torch.get_num_threads(),
            **asdict(settings),
        }

    def finish(self, trained: TrainedModel, history: History) -> None:
        """Write the report, the loss curve and, last, the model into the run's folder."""
        _plot(history, self.folder / "loss.png", trained.name)
        figures = [asdict(figure) for figure in trained.figures]
        report = {"training": trained.training, "figures": figures, "history": asdict(history)}
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        for figure in trained.figures:
            print(
                f"{trained.name}: {figure.name} {figure.value:.4f} {figure.unit} "
                f"on {figure.examples:,} of {figure.split}"
            )
        trained.save(self.folder)


def module_of(model: str) -> str:
    """The training script of a model; a module's name cannot hold a hyphen."""
    return f"training.{model.replace('-', '_')}"


def _plot(history: History, path: Path, title: str) -> None:
    epochs = range(1, len(history.train_loss) + 1)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.plot(epochs, history.train_loss, marker="o", label="training")
    axes.plot(epochs, history.validation_loss, marker="o", label="validation")
    axes.axvline(history.best_epoch + 1, color="grey", linestyle=":", label="kept")
    axes.set(xlabel="epoch", ylabel="loss (nats)", title=title, xticks=list(epochs))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run_script(
    model: str, train: Callable[[Run], None], arguments: Sequence[str] | None = None
) -> int:
    """Parse the command line every script shares, train, and turn failures into exit codes."""
    parser = argparse.ArgumentParser(prog=f"python -m {module_of(model)}")
    parser.add_argument("--quick", action="store_true", help="a small model in two minutes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches and dropout")
    parser.add_argument("--out", type=Path, default=None, help="folder (default runs/MODEL)")
    parser.add_argument("--data", type=Path, default=DATA_FOLDER, help="folder of data packages")
    chosen = parser.parse_args(arguments)
    folder = chosen.out or Path("runs") / (f"{model}-quick" if chosen.quick else model)
    run = Run(model, chosen.quick, chosen.resume, chosen.seed, folder, chosen.data)
    try:
        train(run)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED_BY_USER
    except KeyboardInterrupt:
        print(f"{model}: stopped outside a training step; --resume goes on", file=sys.stderr)
        return STOPPED_BY_USER
    except (DataUnavailable, ResumeImpossible) as error:
        print(f"{model}: {error}", file=sys.stderr)
        return 1
    return 0
