"""The runs that lie in a folder, and two of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import MODEL_FILE
from training.config import RecipeInvalid, load_recipe
from training.loop import CHECKPOINT, METRICS
from training.task_run import RECIPE_FILE

REPORT = "report.json"


@dataclass(frozen=True)
class KeptRun:
    """epochs: a line of its metrics each. settings: by ``table.key``. figures: of a whole run."""

    name: str
    is_whole: bool
    epochs: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any]
    figures: Sequence[Mapping[str, Any]]

    @property
    def best(self) -> Mapping[str, float] | None:
        return min(self.epochs, key=lambda epoch: epoch["validation_loss"], default=None)


def list_runs(folder: Path) -> int:
    """Prints a line a run."""
    runs = list(_runs(folder))
    if not runs:
        print(f"{folder} holds no runs", file=sys.stderr)
        return 1
    for run in runs:
        best = run.best
        state = "whole" if run.is_whole else "stopped: --resume goes on"
        losses = f"loss {best['validation_loss']:.4f} at epoch {best['epoch']}" if best else ""
        minutes = f"{run.epochs[-1]['seconds'] / 60:.1f} minutes" if run.epochs else ""
        figures = ", ".join(f"{f['name']} {f['value']:.2f} {f['unit']}" for f in run.figures[:2])
        facts = (state, f"{len(run.epochs)} epochs", losses, minutes, figures)
        print(f"{run.name}: {', '.join(fact for fact in facts if fact)}")
    return 0


def compare_runs(first: str, second: str, folder: Path) -> int:
    """Prints what two runs do not share, and the losses of each epoch."""
    runs = []
    for name in (first, second):
        path = Path(name) if "/" in name else folder / name
        run = _run_of(path)
        if run is None:
            print(f"{path} is no run; `python -m training runs` lists them", file=sys.stderr)
            return 1
        runs.append(run)
    left, right = runs
    keys = dict.fromkeys((*left.settings, *right.settings))
    rows = [
        (key, str(left.settings.get(key, "")), str(right.settings.get(key, "")))
        for key in keys
        if left.settings.get(key) != right.settings.get(key)
    ]
    _print(("setting", left.name, right.name), rows)
    epochs = range(max(len(left.epochs), len(right.epochs)))
    curves = [(str(n + 1), _losses(left, n), _losses(right, n)) for n in epochs]
    _print(("epoch", "training, validation", "training, validation"), curves)
    names = dict.fromkeys(f["name"] for run in runs for f in run.figures)
    _print(
        ("figure", left.name, right.name),
        [(name, _figure(left, name), _figure(right, name)) for name in names],
    )
    return 0


def _losses(run: KeptRun, number: int) -> str:
    if number >= len(run.epochs):
        return ""
    epoch = run.epochs[number]
    return f"{epoch['train_loss']:.4f}, {epoch['validation_loss']:.4f}"


def _figure(run: KeptRun, name: str) -> str:
    found = [f"{f['value']:.4f} {f['unit']}" for f in run.figures if f["name"] == name]
    return found[0] if found else ""


def _print(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    for row in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print()


def _runs(folder: Path) -> Iterator[KeptRun]:
    for path in sorted(folder.glob("*")):
        run = _run_of(path)
        if run is not None:
            yield run


def _run_of(path: Path) -> KeptRun | None:
    """None for a folder in which nothing was trained."""
    if not any((path / name).exists() for name in (CHECKPOINT, MODEL_FILE, METRICS)):
        return None
    epochs = []
    if (path / METRICS).exists():
        epochs = [json.loads(line) for line in (path / METRICS).read_text().splitlines()]
    is_whole = (path / MODEL_FILE).exists() and (path / REPORT).exists()
    report = json.loads((path / REPORT).read_text()) if is_whole else {}
    return KeptRun(path.name, is_whole, epochs, _settings(path, report), report.get("figures", ()))


def _settings(path: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Those of its recipe; of an earlier release's run, those of its report."""
    try:
        recipe = load_recipe(path / RECIPE_FILE)
        return recipe.values()
    except RecipeInvalid:
        tables = report.get("recipe", {})
        return {
            f"{table}.{key}": v for table, values in tables.items() for key, v in values.items()
        }
