"""What a language model gives each token of a text, read by several readers side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from training.models.cells import State

_WINDOW = 64  # tokens from call to call
_NOT_SCORED = 0  # padding's id, which no token of a text has

# tokens (batch, time), state → logits of each next token (batch, time, vocabulary), state
Reader = Callable[[Tensor, State | None], tuple[Tensor, State]]


@torch.no_grad()
def nats_of(model: Reader, texts: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """-log p of tokens of each text, the texts read side by side: (scored,) float64 each

    texts: token ids (tokens,), and how many of the first are only read, one at least.
    """
    inputs = _side_by_side([ids[:-1] for ids, _ in texts])
    targets = _side_by_side(
        [torch.cat((ids.new_full((read - 1,), _NOT_SCORED), ids[read:])) for ids, read in texts]
    )
    state, found = None, []
    windows = (part.split(_WINDOW, 1) for part in (inputs, targets))
    for window, target in zip(*windows, strict=True):
        logits, state = model(window, state)
        found.append(cross_entropy(logits.transpose(1, 2), target, reduction="none"))
    nats = torch.cat(found, dim=1).double()
    return [row[own != _NOT_SCORED] for row, own in zip(nats, targets, strict=True)]


def _side_by_side(rows: list[Tensor]) -> Tensor:
    """(rows, longest); what a shorter row lacks is not scored."""
    return pad_sequence(rows, batch_first=True, padding_value=_NOT_SCORED)
