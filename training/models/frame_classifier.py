"""Numbers in time, single output: one label for a sequence of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.manifest import CLASSIFY
from training.models.cells import State
from training.models.dropout import make_dropout
from training.models.layers import length_mask
from training.models.options import DesignInvalid, RecurrentOptions, check_hidden_recurrence
from training.models.recurrent import RecurrentStack

# Of the state, before what the stack carries.
PEAK = "peak"

# Added to the outputs of a stack, which lie in [-1, 1]: what has read nothing is then 0, as the
# state of a new stream is.
_ABOVE_ZERO = 1.0


@dataclass(frozen=True)
class FrameClassifierConfig:
    """channels: numbers of a frame. noise: standard deviation of what is added to the standardised
    numbers while training. dropout: share dropped of the pooled features while training.
    """

    architecture: ClassVar[str] = "frame_classifier"
    task: ClassVar[str] = CLASSIFY
    channels: int
    labels: int
    recurrent: RecurrentOptions
    dropout: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise DesignInvalid("channels are at least 1")
        if self.noise < 0:
            raise DesignInvalid(f"noise is {self.noise:g}; it is at least 0")
        check_hidden_recurrence(
            self.recurrent, "a classifier of frames", "its one output comes after the last frame"
        )

    @property
    def is_stepped(self) -> bool:
        """Whether it can answer after each frame: nothing is read from the end."""
        return not self.recurrent.bidirectional


class FrameClassifier(nn.Module):
    """Standardised frames → recurrent stack → maximum over time → linear.

    A maximum depends on neither the order nor the number of padded frames, and can be carried from
    frame to frame: after a sequence's last frame, step by step, stands what forward() says of it.

    mean, spread: (channels,) of the frames in training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: FrameClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("spread", torch.ones(config.channels))
        self.stack = RecurrentStack(config.recurrent, config.channels)
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        self.output = nn.Linear(config.recurrent.output_size, config.labels)

    def standardise(self, frames: Tensor) -> None:
        """Take mean and spread from ``frames`` (frames, channels)."""
        self.mean.copy_(frames.mean(dim=0))
        spread = frames.std(dim=0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """frames (batch, time, channels), lengths (batch,) → logits (batch, labels)"""
        features = self.stack.read(self._entering(frames), lengths) + _ABOVE_ZERO
        inside = length_mask(frames, lengths).unsqueeze(2)
        return self._logits(torch.where(inside, features, 0.0).amax(dim=1))

    def first_state(self, batch: int) -> State:
        """The state before a sequence's first frame."""
        peak = self.mean.new_zeros((batch, self.config.recurrent.output_size))
        return (peak, *self.stack.zero_state(batch, peak))

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """frame (batch, channels) → logits (batch, labels) of all frames so far, state"""
        peak, *carried = state
        features, after = self.stack.step(self._entering(frame), tuple(carried))
        peak = torch.maximum(peak, features + _ABOVE_ZERO)
        return self._logits(peak), (peak, *after)

    def _entering(self, frames: Tensor) -> Tensor:
        standard = (frames - self.mean) / self.spread
        if self.training and self.config.noise:
            standard = standard + self.config.noise * torch.randn_like(standard)
        return standard

    def _logits(self, peak: Tensor) -> Tensor:
        made: Tensor = self.output(self.dropout(peak))
        return made
