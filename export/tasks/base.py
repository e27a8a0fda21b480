"""What a task is to export: its graphs and what a stream of it carries."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from torch import nn

from bundle.manifest import StateTensor
from bundle.sampling import SamplingDefaults
from bundle.stepping import SteppingSpec
from export.graphs import Graph, GraphTensor, made_anew, score_of, state_ports, step_of

AnyConfig = TypeVar("AnyConfig")

# Of every model that has a best answer: the likeliest token at each step.
LIKELIEST: SamplingDefaults = MappingProxyType({"temperature": 0.0, "top_k": 0, "top_p": 1.0})
# As the model is.
UNCHANGED: SamplingDefaults = MappingProxyType({"temperature": 1.0, "top_k": 0, "top_p": 1.0})


class ExportTask(Generic[AnyConfig]):
    """A task of the manifest, of models whose configuration is an ``AnyConfig``.

    sampling: of a model whose training says nothing of it.
    """

    sampling: SamplingDefaults = LIKELIEST

    def state(self, config: AnyConfig) -> tuple[StateTensor, ...]:
        """What a stream carries, fixed tensors first; nothing where there is no step."""
        return ()

    def stepping(self, config: AnyConfig, frame_seconds: float) -> SteppingSpec | None:
        """How the model is stepped over a caller's frames; None for one that is not.

        frame_seconds: of real time that a frame stands for, 0 where it is not said.
        """
        return None

    def graphs(
        self, model: nn.Module, config: AnyConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        """Every fp32 graph of the bundle of ``model``.

        traced: whether ``model`` is one made for export; otherwise it is the PyTorch model
        itself, which the exported graphs are compared with.

        Raises ExportRefused for a model that the task's graphs cannot hold.
        """
        raise NotImplementedError

    def choices(self, config: AnyConfig) -> int:
        """How many tokens, or labels, a step draws among."""
        raise NotImplementedError

    def attended(self, config: AnyConfig) -> int:
        """How many places the attention of a step looks at, 0 for a model without."""
        return 0

    def step(
        self,
        model: nn.Module,
        config: AnyConfig,
        never_sampled_ids: Sequence[int],
        name: str = "step",
        weights_prefix: str = "",
    ) -> Graph:
        """The graph of one token over ``model.step``; weights_prefix: as Graph's."""
        state, choices = self.state(config), self.choices(config)
        attended = self.attended(config)
        return step_of(model, state, choices, never_sampled_ids, name, weights_prefix, attended)


class WritingTask(ExportTask[AnyConfig]):
    """A task that writes token by token, after something has been read: prime, step and score."""

    def prefill(self, model: nn.Module, config: AnyConfig) -> list[Graph]:
        """The graph ``prime``, which makes a state of what is read; none if there is no state."""
        raise NotImplementedError

    def graphs(
        self, model: nn.Module, config: AnyConfig, never_sampled_ids: Sequence[int], traced: bool
    ) -> list[Graph]:
        return [
            *self.prefill(model, config),
            self.step(model, config, never_sampled_ids),
            score_of(model, self.state(config)),
        ]


class Wrapped(nn.Module):
    """A module over a model, for a graph to call it another way than training does."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


def prefilled(state: Sequence[StateTensor]) -> tuple[GraphTensor, ...]:
    """The whole state as a graph writes it that begins a stream."""
    ports, _ = state_ports(state)
    return tuple(made_anew(port) for port in ports)
