"""The pictures of a bundle's card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.store import Bundle
from evaluation import losses
from evaluation.confusion import caption_of_confusion, draw_confusion, mistakes
from evaluation.unit_picture import caption_of_units, draw_units, held_out_activity
from export.bundles import trained_from_bundle
from training.alignment import draw_alignment
from training.config import CardSettings
from training.held_out import Confusion, HeldOut


@dataclass(frozen=True)
class Plot:
    """file: its name in the card's folder. caption: Markdown, a table in it where one belongs."""

    title: str
    file: str
    caption: str


def draw_plots(
    bundle: Bundle,
    card: CardSettings,
    confusion: Confusion,
    held_out: HeldOut[Any, Any],
    folder: Path,
) -> list[Plot]:
    """Draw into ``folder`` whatever there is to draw of a bundle.

    card: of the model's recipe. confusion: empty for a model that gives no labels.
    """
    name, training = bundle.manifest.name, bundle.manifest.training
    plots = []
    if losses.has_losses(training):
        plots.append(Plot("Loss of every epoch", f"{name}-loss.png", losses.CAPTION))
        losses.draw_losses(training, folder / plots[-1].file)
    if mistakes(confusion):
        caption = caption_of_confusion(confusion)
        plots.append(Plot("Labels taken for others", f"{name}-confusion.png", caption))
        draw_confusion(confusion, folder / plots[-1].file)
    if card.alignment:
        caption = (
            "The darker a cell, the more its row's token looks at its column's while it is written."
        )
        plots.append(Plot("What it looks at", f"{name}-alignment.png", caption))
        draw_alignment(trained_from_bundle(bundle), card.alignment, folder / plots[-1].file)
    if card.units:
        units = held_out_activity(bundle, held_out)
        plots.append(Plot("What hidden units follow", f"{name}-units.png", caption_of_units(units)))
        draw_units(units, folder / plots[-1].file)
    return plots
