"""The mean of a model's weights over the steps of its training, which is what is then evaluated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# How a mean is taken: not at all, of all steps alike, or the more of a step the later it was.
NONE, UNIFORM, EXPONENTIAL = "none", "uniform", "exponential"
AVERAGES = (NONE, UNIFORM, EXPONENTIAL)


class AverageUnknown(ValueError):
    """There is no average of that name."""


class WeightAverage:
    """uniform: as in stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407) and
    averaged SGD (Polyak and Juditsky 1992). exponential: an old mean's share falls by ``decay``
    a step; early on it falls faster, so that the first weights are soon forgotten.

    Raises AverageUnknown for another kind.
    """

    def __init__(self, kind: str, decay: float) -> None:
        if kind not in AVERAGES:
            raise AverageUnknown(f"average {kind!r} is not one of {', '.join(AVERAGES)}")
        self.kind = kind
        self.decay = decay
        self.steps = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Take in the weights that ``model`` has after a step."""
        if self.kind == NONE:
            return
        self.steps += 1
        share = 1 / self.steps
        if self.kind == EXPONENTIAL:
            share = max(1 - self.decay, 1 / (1 + 0.1 * self.steps))
        for name, weight in model.state_dict().items():
            if name not in self.mean or not weight.is_floating_point():
                self.mean[name] = weight.detach().clone()
            else:
                self.mean[name].lerp_(weight, share)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The mean so far, or where there is none yet, the weights of ``model``."""
        return self.mean or {k: v.detach() for k, v in model.state_dict().items()}

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "mean": self.mean}

    def restore(self, steps: int, mean: dict[str, Tensor]) -> None:
        self.steps, self.mean = steps, mean
