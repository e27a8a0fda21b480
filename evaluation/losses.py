"""The loss of every epoch of a bundle's training, as its manifest records it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evaluation.curves import plt

# What a manifest calls the two curves, a number an epoch each, and those of stages before.
TRAINING, VALIDATION = CURVES = ("train_loss", "validation_loss")
EARLIER = "earlier_stages"

CAPTION = (
    "The mean loss of each epoch: of its training batches, with all that training adds (dropout, "
    "smoothing) and while the weights move, and of the validation split after it. The bundle "
    "holds the weights of the epoch that is marked; the losses of stages are of different tasks."
)
_MOST_MARKED = 30  # epochs whose points can be distinguished


def has_losses(training: Mapping[str, Any]) -> bool:
    """Whether a manifest's training facts hold both curves; those of older bundles do not."""
    return all(training.get(name) for name in CURVES)


def draw_losses(training: Mapping[str, Any], path: Path) -> None:
    """A plot a stage, the last one last.

    training: a manifest's, with both curves, ``best_epoch``, counted from 1, and ``keep_last``.
    """
    earlier: Mapping[str, Mapping[str, Any]] = training.get(EARLIER, {})
    stages = [*earlier.items(), ("last stage" if earlier else "", training)]
    figure, plots = plt.subplots(
        1, len(stages), figsize=(6.5 if len(stages) == 1 else 4 * len(stages), 3.6),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axes, (title, curves) in zip(plots[0], stages, strict=True):
        _draw(axes, title, curves)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _draw(axes: Axes, title: str, curves: Mapping[str, Any]) -> None:
    epochs = range(1, len(curves[VALIDATION]) + 1)
    marker = "o" if len(epochs) <= _MOST_MARKED else ""
    for name, label in ((TRAINING, "training"), (VALIDATION, "validation")):
        axes.plot(epochs, curves[name], marker=marker, markersize=4, label=label)
    kept = len(epochs) if curves.get("keep_last") else curves["best_epoch"]
    axes.axvline(kept, color="grey", linestyle=":", label=f"kept: epoch {kept}")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="loss (nats)", xlim=(0.5, len(epochs) + 0.5), title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
