"""Curves over one axis, as PNG files; pyplot without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


@dataclass(frozen=True)
class Curve:
    """spread: half the height of each point's error bar; none where empty."""

    points: Points
    dashed: bool = False
    colour: int | None = None
    spread: Sequence[float] = ()
    marker: str = ""


def draw_curves(
    path: Path,
    curves: Mapping[str, Curve],
    x: str,
    y: str,
    log: bool = False,
    ticks: Sequence[tuple[float, str]] = (),
) -> Path:
    """x, y: what the axes are, with their units. ticks: places on the x axis and their names."""
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for number, (name, curve) in enumerate(curves.items()):
        _draw(axes, name, curve, number)
    if ticks:
        places, names = zip(*ticks, strict=True)
        axes.set_xticks(places, names)
    if log:
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _draw(axes: Axes, name: str, curve: Curve, number: int) -> None:
    places, values = zip(*curve.points, strict=True)
    colour = _COLOURS[(number if curve.colour is None else curve.colour) % len(_COLOURS)]
    style = "--" if curve.dashed else "-"
    if curve.spread:
        axes.errorbar(
            places, values, curve.spread, linestyle=style, color=colour, label=name,
            marker="o", markersize=4, capsize=2,
        )  # fmt: skip
    else:
        axes.plot(
            places, values, style, color=colour, label=name, marker=curve.marker, markersize=4
        )
