"""The pictures of a bundle's card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bundle.store import Bundle
from evaluation import losses
from evaluation.alignment import ALIGNED, draw_alignment
from evaluation.confusion import Confusion, draw_confusion, mistakes, tell_confusion
from evaluation.unit_picture import draw_units, tell_units, watch_units

WATCHED = "prose"  # whose units are drawn, over a text of its own


@dataclass(frozen=True)
class Picture:
    """file: its name in the card's folder. caption: Markdown, a table in it where one belongs."""

    title: str
    file: str
    caption: str


def illustrate(bundle: Bundle, confusion: Confusion, data: Path, folder: Path) -> list[Picture]:
    """Draw into ``folder`` whatever there is to draw of a bundle.

    confusion: empty for a model that gives no labels. data: folder of data packages.
    """
    name, training = bundle.manifest.name, bundle.manifest.training
    pictures = []
    if losses.has_losses(training):
        pictures.append(Picture("Loss of every epoch", f"{name}-loss.png", losses.CAPTION))
        losses.draw_losses(training, folder / pictures[-1].file)
    if mistakes(confusion):
        caption = tell_confusion(confusion)
        pictures.append(Picture("Labels taken for others", f"{name}-confusion.png", caption))
        draw_confusion(confusion, folder / pictures[-1].file)
    if name in ALIGNED:
        caption = (
            "The darker a cell, the more its row's token looks at its column's while it is written."
        )
        pictures.append(Picture("What it looks at", f"{name}-alignment.png", caption))
        draw_alignment(bundle, ALIGNED[name], folder / pictures[-1].file)
    if name == WATCHED:
        watched = watch_units(bundle, data)
        pictures.append(
            Picture("What hidden units follow", f"{name}-units.png", tell_units(watched))
        )
        draw_units(watched, folder / pictures[-1].file)
    return pictures
