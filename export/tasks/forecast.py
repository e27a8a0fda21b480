"""How a series goes on: its context is read, then a value is drawn for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundle.manifest import (
    BATCH,
    SERIES_STEP_OUTPUTS,
    TIME,
    StateTensor,
    series_step_inputs,
)
from export.graphs import LENGTHS, Graph, GraphTensor, stack_state, state_ports
from export.onnx_files import ExportRefused
from export.tasks.base import UNCHANGED, ExportTask, Wrapped
from training.models.cells import State
from training.models.forecaster import HISTORY, HISTORY_OBSERVED, LOG_SCALE, ForecasterConfig

_FIXED = 1  # the scale


class _Prefill(Wrapped):
    def forward(self, series: Tensor, features: Tensor, lengths: Tensor, state: State) -> State:
        after: State = self.model(series, features, lengths, state)[1]
        return after[_FIXED:]


class _Step(Wrapped):
    """``parameters`` are of the distribution that ``next_value`` is drawn from."""

    def forward(
        self, value: Tensor, observed: Tensor, features: Tensor, uniform: Tensor, state: State
    ) -> tuple[Any, ...]:
        parameters, after = self.model.step(value, observed, features, state)
        drawn = self.model.draw(parameters, uniform, state[0])
        return (drawn, parameters, *after[_FIXED:])


class ForecastExport(ExportTask[ForecasterConfig]):
    """A value is drawn from the model as it is."""

    sampling = UNCHANGED

    def state(self, config: ForecasterConfig) -> tuple[StateTensor, ...]:
        kept = tuple(
            StateTensor(name, "float32", (config.history,), carried=True)
            for name in (HISTORY, HISTORY_OBSERVED)
        )
        return (
            StateTensor(LOG_SCALE, "float32", (), carried=False),
            *(kept if config.history else ()),
            *stack_state(config.recurrent),
        )

    def graphs(
        self,
        model: nn.Module,
        config: ForecasterConfig,
        never_sampled_ids: Sequence[int],
        traced: bool,
    ) -> list[Graph]:
        return [self._prefill(model, config), self.step(model, config, never_sampled_ids)]

    def _prefill(self, model: nn.Module, config: ForecasterConfig) -> Graph:
        state, carried = state_ports(self.state(config))
        series = GraphTensor("series", torch.float32, (BATCH, TIME, 2))
        features = GraphTensor("features", torch.float32, (BATCH, TIME, config.features))
        return Graph("prime", _Prefill(model), (series, features, LENGTHS), state, carried)

    def step(
        self,
        model: nn.Module,
        config: ForecasterConfig,
        never_sampled_ids: Sequence[int],
        name: str = "step",
        weights_prefix: str = "",
    ) -> Graph:
        if weights_prefix:
            raise ExportRefused("a forecaster has no step in int8; export it without --int8")
        state, carried = state_ports(self.state(config))
        controls = tuple(
            GraphTensor(spec.name, getattr(torch, spec.dtype), spec.shape)
            for spec in series_step_inputs(config.features)
        )
        value, parameters = SERIES_STEP_OUTPUTS
        head: Any = model.get_submodule("head")
        drawn = (
            GraphTensor(value, torch.float32, (BATCH,)),
            GraphTensor(parameters, torch.float32, (BATCH, head.parameters_size)),
        )
        return Graph(name, _Step(model), controls, state, (*drawn, *carried))
