"""A text that goes on: after a prompt, token by token."""

from __future__ import annotations

from torch import Tensor, nn

from bundle.manifest import StateTensor
from export.graphs import LENGTHS, TOKENS, Graph, stack_state, state_ports
from export.tasks.base import UNCHANGED, Wrapped, WritingTask
from training.models.cells import State
from training.models.generator import GeneratorConfig


class _Prefill(Wrapped):
    def forward(self, tokens: Tensor, lengths: Tensor, state: State) -> State:
        after: State = self.model.read(tokens, state, lengths)[1]
        return after


class GenerateExport(WritingTask[GeneratorConfig]):
    """There is no best way to go on, so a token is drawn from the model as it is."""

    sampling = UNCHANGED

    def state(self, config: GeneratorConfig) -> tuple[StateTensor, ...]:
        return stack_state(config.recurrent)

    def choices(self, config: GeneratorConfig) -> int:
        return config.vocabulary_size

    def prefill(self, model: nn.Module, config: GeneratorConfig) -> list[Graph]:
        """None for a generator that carries nothing: only its last token matters."""
        state, carried = state_ports(self.state(config))
        return [Graph("prime", _Prefill(model), (TOKENS, LENGTHS), state, carried)] if state else []
