"""A probabilistic forecaster: the distribution of a series' next value, from those before it.

DeepAR (Salinas, Flunkert, Gasthaus and Januschowski 2020, arXiv:1704.04110): an LSTM reads the
value before, values of some steps before that (lags), the features of the step and the series'
scale; what is drawn is read in the next step. The likelihood's parameters see what the LSTM reads,
too: a linear term that carries a level on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bundle.manifest import FORECAST
from bundle.series import OBSERVED, VALUE
from training.models.cells import State
from training.models.dropout import make_dropout
from training.models.heads import HEADS, make_head
from training.models.options import (
    DesignInvalid,
    RecurrentOptions,
    check_hidden_recurrence,
    check_one_direction,
)
from training.models.recurrent import RecurrentStack

# Of the state, before what the stack carries: fixed, then what moves with each step.
LOG_SCALE, HISTORY, HISTORY_OBSERVED = "log_scale", "history", "history_observed"


@dataclass(frozen=True)
class ForecasterConfig:
    """distribution: of HEADS. features: of each step. lags: how many steps before, beside 1, the
    values are that a step reads. dropout: share of the last layer's output that is dropped while
    training.
    """

    architecture: ClassVar[str] = "forecaster"
    task: ClassVar[str] = FORECAST
    features: int
    distribution: str
    recurrent: RecurrentOptions
    lags: tuple[int, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lags", tuple(self.lags))  # JSON and TOML have lists
        if self.distribution not in HEADS:
            known = ", ".join(HEADS)
            raise DesignInvalid(f"distribution {self.distribution!r} is not one of {known}")
        if self.features < 1:
            raise DesignInvalid("features are at least 1")
        if list(self.lags) != sorted(set(self.lags)) or min(self.lags, default=2) < 2:
            raise DesignInvalid(f"lags ascend from 2, they are {list(self.lags)}")
        check_one_direction(self.recurrent, "a forecaster", "what it would read is not there yet")
        check_hidden_recurrence(
            self.recurrent, "a forecaster", "what it draws is its next input already"
        )

    @property
    def history(self) -> int:
        """Values before the last one that a step may read."""
        return max(self.lags, default=1) - 1

    @property
    def input_size(self) -> int:
        return 2 * (1 + len(self.lags)) + self.features + 1


class Forecaster(nn.Module):
    """Its state is the series' log_scale (batch,), then history and history_observed (batch,
    history) where it has lags, then its stack's tensors.

    All values are in units of the series' scale. mean, spread: (features,) of the features in
    training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("spread", torch.ones(config.features))
        self.stack = RecurrentStack(config.recurrent, config.input_size)
        self.dropout = make_dropout(config.dropout, config.recurrent.one_mask)
        self.head = make_head(config.distribution)
        read = config.recurrent.output_size + config.input_size
        self.output = nn.Linear(read, self.head.parameters_size)

    def standardise(self, features: Tensor) -> None:
        """Take mean and spread from ``features`` (steps, features)."""
        self.mean.copy_(features.mean(dim=0))
        spread = features.std(dim=0)
        self.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def first_state(self, log_scale: Tensor) -> State:
        """log_scale (batch,) of the series → the state before a series' first step"""
        history = log_scale.new_zeros((log_scale.shape[0], self.config.history))
        moving = (history, history) if self.config.history else ()
        return (log_scale, *moving, *self.stack.zero_state(log_scale.shape[0], log_scale))

    def forward(
        self, series: Tensor, features: Tensor, lengths: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        """series (batch, time, 2): before each step the value, and whether it is there; features
        (batch, time, features) of the steps → parameters (batch, time, parameters), state

        lengths: (batch,) steps that count, None for all.
        """
        scale, past, carried = self._parts(state)
        columns, moved = self._read(series, past, lengths)
        entering = self._entering(columns, features, scale.unsqueeze(1))
        read, after = self.stack(entering, carried, lengths)
        return self._distribution(read, entering), (scale, *moved, *after)

    def step(
        self, value: Tensor, observed: Tensor, features: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """value, observed (batch,) of the step before, features (batch, features) of this one →
        parameters of its value (batch, parameters), state
        """
        scale, past, carried = self._parts(state)
        series = torch.stack((value, observed), dim=1).unsqueeze(1)
        columns, moved = self._read(series, past, None)
        entering = self._entering(columns, features.unsqueeze(1), scale.unsqueeze(1)).squeeze(1)
        read, after = self.stack.step(entering, carried)
        return self._distribution(read, entering), (scale, *moved, *after)

    def draw(self, parameters: Tensor, uniform: Tensor, log_scale: Tensor) -> Tensor:
        """(batch,) values of these distributions, by inverse transform of ``uniform`` (batch,)"""
        drawn: Tensor = self.head.draw(parameters, uniform, log_scale)
        return drawn

    def _parts(self, state: State) -> tuple[Tensor, State, State]:
        """The scale, what is kept of earlier values, and what the stack carries."""
        count = 3 if self.config.history else 1
        return state[0], state[1:count], state[count:]

    def _read(
        self, series: Tensor, past: State, lengths: Tensor | None
    ) -> tuple[list[Tensor], State]:
        """The columns (batch, time) of what a step reads of the values, and the history after."""
        columns = [series[:, :, VALUE], series[:, :, OBSERVED]]
        if not past:
            return columns, ()
        size, moved = self.config.history, []
        for kept, number in zip(past, (VALUE, OBSERVED), strict=True):
            whole = torch.cat((kept, series[:, :, number]), dim=1)
            # Lag 1 is the last column of a step, the value itself.
            columns += [
                whole[:, size + 1 - lag : whole.shape[1] + 1 - lag] for lag in self.config.lags
            ]
            moved.append(self._latest(whole, lengths))
        return columns, tuple(moved)

    def _latest(self, whole: Tensor, lengths: Tensor | None) -> Tensor:
        """What of (batch, history + time) the next step finds before its own value."""
        size = self.config.history
        if lengths is None:
            return whole[:, whole.shape[1] - size :]
        return whole.gather(1, lengths.unsqueeze(1) + torch.arange(size, device=whole.device))

    def _entering(self, columns: list[Tensor], features: Tensor, log_scale: Tensor) -> Tensor:
        """(batch, time, input_size)"""
        standard = (features - self.mean) / self.spread
        # Series of millions beside series of units: a decade is a third.
        size = (log_scale.unsqueeze(2) / 7.0).expand(-1, features.shape[1], 1)
        return torch.cat((torch.stack(columns, dim=2), standard, size), dim=2)

    def _distribution(self, read: Tensor, entering: Tensor) -> Tensor:
        made: Tensor = self.output(torch.cat((self.dropout(read), entering), dim=-1))
        return made
