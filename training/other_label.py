"""A label for what a trained classifier has no label for, learnt from the few examples there are.

The rest of the model stays as it is: the label is one more row of the output layer over features
that are done (Kang et al. 2020, arXiv:1910.09217, section 4, fit an output layer so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.held_out import BEST
from training.models.classifier import Classifier

DECAYS = (1e-5, 1e-4, 1e-3, 1e-2)  # of the row's weights, that are tried
BIASES = tuple(step / 4 for step in range(-8, 33))  # that are tried, added to the fitted one


@dataclass(frozen=True)
class Read:
    """Examples as the output layer reads them.

    features (examples, size). labels (examples,): the number of each one's label among those that
    stay; what has none counts as ``others``, the number after the last.
    """

    features: Tensor
    labels: Tensor
    others: int

    @property
    def is_other(self) -> Tensor:
        return self.labels == self.others


@torch.no_grad()
def keep_labels(model: Classifier, kept: Sequence[int]) -> None:
    """Leaves the output layer its rows ``kept``, in this order, and adds one that is never said."""
    old = model.output
    model.output = nn.Linear(old.in_features, len(kept) + 1)
    model.output.weight.zero_()
    model.output.weight[:-1] = old.weight[list(kept)]
    model.output.bias[:-1] = old.bias[list(kept)]
    model.output.bias[-1] = -1e4
    model.config = replace(model.config, labels=len(kept) + 1)


def fit_other(
    model: Classifier, train: Read, share: float, validation: Read, cost: float
) -> dict[str, float]:
    """Fits the last row of the output layer; what was chosen on ``validation``.

    share: of the examples of other labels that ``train`` holds. The row's decay is that of the
    least loss on validation. Its bias is the largest that costs at most ``cost``, in percent of
    the examples, of what is right at first and of what is right among five.
    """
    output = model.output
    with torch.no_grad():
        known = [output(read.features)[:, :-1] for read in (train, validation)]
    rows = [_fitted(train, known[0], share, decay) for decay in DECAYS]
    losses = [_loss(validation, known[1], row, 1.0).item() for row in rows]
    best = min(range(len(DECAYS)), key=losses.__getitem__)
    weight, bias = rows[best]
    added = _largest_bias(validation, known[1], validation.features @ weight + bias, cost)
    with torch.no_grad():
        output.weight[-1] = weight
        output.bias[-1] = bias + added
    return {"other_decay": DECAYS[best], "other_bias": added}


def _fitted(read: Read, known: Tensor, share: float, decay: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(read.features.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = _loss(read, known, (weight, bias), share) + decay * weight.square().sum()
        loss.backward()
        return loss

    search.step(closure)
    return weight.detach(), bias.detach()


def _loss(read: Read, known: Tensor, row: tuple[Tensor, Tensor], share: float) -> Tensor:
    """Nats an example of -log p(whether it is of another label), each of the ``known`` labels'
    examples counted 1 / share times."""
    weight, bias = row
    against = read.features @ weight + bias - known.logsumexp(dim=1)
    counts = torch.where(read.is_other, 1.0, 1 / share)
    nats = binary_cross_entropy_with_logits(against, read.is_other.float(), counts, reduction="sum")
    return nats / counts.sum()


def _largest_bias(read: Read, known: Tensor, other: Tensor, cost: float) -> float:
    """The largest of BIASES whose answers cost no more than ``cost``, or the smallest of all."""
    never = _right(read, torch.cat((known, torch.full_like(known[:, :1], -torch.inf)), dim=1))
    chosen = BIASES[0]
    for bias in BIASES:
        right = _right(read, torch.cat((known, (other + bias).unsqueeze(1)), dim=1))
        if all(before - after <= cost for before, after in zip(never, right, strict=True)):
            chosen = bias
    return chosen


def _right(read: Read, logits: Tensor) -> tuple[float, float]:
    """Right at first and among five, in percent."""
    best = logits.topk(min(BEST, logits.shape[1]), dim=1).indices == read.labels.unsqueeze(1)
    return 100 * best[:, 0].float().mean().item(), 100 * best.any(dim=1).float().mean().item()
