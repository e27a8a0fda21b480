"""What hidden units of a character model follow, drawn on the text that they read.

After Karpathy, Johnson and Li 2015, Visualizing and Understanding Recurrent Networks
(arXiv:1506.02078).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor, nn

from bundle.store import Bundle
from evaluation.curves import plt
from evaluation.text import table
from evaluation.units import SPEAKER, Floats, Follower, find_followers
from export.bundles import trained_from_bundle
from training.checkpoint import TrainedModel
from training.held_out import HeldOut
from training.models.generator import Generator

_CHARACTERS = 20_000
_UNITS, _LINES = 4, 12
_END = "↵"
_CELL = (0.122, 0.215)  # inches of a character
_NARROWEST = 56  # characters, so that titles fit
# Light enough at both ends for the letters upon it.
_COLOURS = LinearSegmentedColormap.from_list("units", ["#5b9bd5", "#f7f7f7", "#e8705a"])


@dataclass(frozen=True)
class UnitActivity:
    """A text and what the units of every layer did after each of its characters.

    activity: (characters, layers * size), layer by layer. size: units of a layer.
    """

    text: str
    activity: Floats
    size: int
    followers: Sequence[Follower]

    def name_of(self, unit: int) -> str:
        layer, number = divmod(unit, self.size)
        return f"layer {layer + 1}, unit {number + 1}"


def held_out_activity(bundle: Bundle, held_out: HeldOut[tuple[str, int], Any]) -> UnitActivity:
    """The bundle's model over the beginning of its held-out text."""
    (first, _), *others = held_out.questions
    # What only leads up to a piece is the end of the one before.
    text = "".join([first, *(piece[read:] for piece, read in others)])
    return activity_over(trained_from_bundle(bundle), text[:_CHARACTERS])


def activity_over(trained: TrainedModel, text: str) -> UnitActivity:
    """Raises TypeError for a model that generates nothing."""
    model = trained.build()
    if not isinstance(model, Generator):
        raise TypeError(f"{trained.name} reads no text to go on with it")
    ids = torch.tensor([trained.tokenizers["input"].encode(text).ids])
    activity = activity_of(model, ids)
    size = model.config.recurrent.output_size
    return UnitActivity(text, activity, size, find_followers(text, activity))


@torch.no_grad()
def activity_of(model: Generator, tokens: Tensor) -> Floats:
    """tokens (1, time) → h of all layers after each (time, layers * size), from zeros."""
    outputs: list[Tensor] = []

    def keep(layer: nn.Module, given: object, made: tuple[Tensor, object]) -> None:
        outputs.append(made[0][0])

    hooks = [layer.register_forward_hook(keep) for layer in model.stack.layers]
    model.read(tokens)
    for hook in hooks:
        hook.remove()
    activity: Floats = torch.cat(outputs, dim=1).numpy()
    return activity


def drawn_of(followers: Sequence[Follower], most: int = _UNITS) -> list[Follower]:
    """The first ones, each unit once."""
    first: dict[int, Follower] = {}
    for follower in followers:
        first.setdefault(follower.unit, follower)
    return list(first.values())[:most]


def lines_after(text: str, begin: int, most: int = _LINES) -> list[tuple[int, str]]:
    """Lines with their ends, and where they begin: from the first speaker's name on.

    begin: where to look for the name from; without one the lines begin with the next line.
    """
    is_name = SPEAKER.measure(text)[begin:]
    start = begin + int(is_name.argmax()) if is_name.any() else text.find("\n", begin) + 1
    lines = []
    for line in text[start:].splitlines(keepends=True)[:most]:
        lines.append((start, line))
        start += len(line)
    return lines


def draw_units(units: UnitActivity, path: Path) -> None:
    """The same lines once a unit, each character on the colour of the unit's output after it."""
    followers = drawn_of(units.followers)
    lines = lines_after(units.text, len(units.text) // 2)
    width = max([_NARROWEST, *(len(line) for _, line in lines)])
    size = (_CELL[0] * width + 0.1, (_CELL[1] * len(lines) + 0.36) * len(followers) + 0.5)
    figure, grid = plt.subplots(
        len(followers), 1, figsize=size, layout="constrained", squeeze=False
    )
    for axes, follower in zip(grid.flat, followers, strict=True):
        image = axes.imshow(
            _cells(units.activity[:, follower.unit], lines, width),
            cmap=_COLOURS, vmin=-1, vmax=1, aspect="auto",
        )  # fmt: skip
        _write(axes, lines)
        axes.set_title(title_of(units, follower), loc="left", fontsize=10, weight="bold")
    figure.colorbar(
        image, ax=grid, location="bottom", ticks=(-1, 0, 1), shrink=0.4, aspect=30, pad=0.01,
        label="the unit's output",
    )  # fmt: skip
    figure.savefig(path, dpi=150)
    plt.close(figure)


def title_of(units: UnitActivity, follower: Follower) -> str:
    """What is followed, by which unit, in which direction and how well."""
    feature = follower.feature
    unit = f"{units.name_of(follower.unit)}, {follower.direction}"
    return f"{_capital(feature.name)}: {unit}; {feature.score.name} {follower.score:.2f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cells(output: Floats, lines: Sequence[tuple[int, str]], width: int) -> Floats:
    """A unit's output (characters,) by line and column (lines, width), masked after a line."""
    cells = np.full((len(lines), width), np.nan)
    for row, (start, line) in enumerate(lines):
        cells[row, : len(line)] = output[start : start + len(line)]
    return np.ma.masked_invalid(cells)


def _write(axes: Axes, lines: Sequence[tuple[int, str]]) -> None:
    for row, (_, line) in enumerate(lines):
        for column, character in enumerate(line.replace("\n", _END)):
            colour = "0.55" if character == _END else "black"
            axes.text(
                column, row, character, family="monospace", fontsize=11, color=colour,
                ha="center", va="center_baseline", parse_math=False,
            )  # fmt: skip
    axes.set_axis_off()


def caption_of_units(units: UnitActivity) -> str:
    """The picture's caption, and every feature's unit as a table."""
    rows = [
        (
            f.feature.name, units.name_of(f.unit), f.direction, f.feature.score.name,
            f"{f.chosen_by:.3f}", f"{f.score:.3f}",
        )
        for f in units.followers
    ]  # fmt: skip
    found = table(("what", "unit", "it is", "measure", "first half", "second half"), rows)
    count, half = units.activity.shape[1], len(units.text) // 2
    return f"""\
The model's hidden units while it reads {len(units.text):,} characters of its held-out text, \
the colour of a character being the unit's output after it: red 1, blue -1. Of all {count:,} \
units (layers and units are counted from 1) the one is shown that follows each thing best on the \
first {half:,} characters; its score in the title is of the others, which had no say in the \
choice, and the lines are the first of those. An area of 0.5 and a correlation of 0 say nothing; \
a unit that follows two things is drawn once. \
The last character of a line shows a unit that knows of the line's end before it is read. The \
text has no quotation marks, so no unit is sought that follows those. After Karpathy, Johnson and \
Li 2015 (arXiv:1506.02078).

{found}"""
