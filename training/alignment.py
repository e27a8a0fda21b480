"""A picture of what each token that a model writes looks at in its source."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from training.beam import BeamSettings, beam_search
from training.checkpoint import TrainedModel
from training.models.seq2seq import Seq2Seq

matplotlib.use("Agg")
from matplotlib import pyplot


@torch.no_grad()
def alignment(trained: TrainedModel, text: str) -> tuple[list[str], list[str], Tensor]:
    """The source's symbols, the answer's with its end, and the weights (answer, source).

    Raises TypeError for a model that looks back at no source.
    """
    model = trained.build()
    if not isinstance(model, Seq2Seq):
        raise TypeError(f"{trained.name} looks back at no source")
    reader, writer = trained.tokenizers["input"], trained.tokenizers["output"]
    source = torch.tensor([reader.encode(text).ids])
    lengths = torch.tensor([source.shape[1]])
    greedy = BeamSettings(1, 1.0, trained.limits["output_tokens"])
    (ids,) = beam_search(model, source, lengths, writer.vocabulary, greedy)
    tokens = torch.tensor([[writer.vocabulary.begin_id, *ids]])
    weights = model.align(tokens, model.encode(source, lengths))[0, :, : source.shape[1]]
    said = [writer.vocabulary.symbol_of(token) for token in ids]
    return reader.split(text), [*said, "(end)"], weights


def draw_alignment(trained: TrainedModel, text: str, path: Path) -> None:
    """The darker a cell, the more its row's token looks at its column's."""
    source, said, weights = alignment(trained, text)
    figure, axes = pyplot.subplots(figsize=(1.5 + 0.32 * len(source), 1.2 + 0.28 * len(said)))
    axes.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=90, parse_math=False)
    axes.set_yticks(range(len(said)), said, parse_math=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
