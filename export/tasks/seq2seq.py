"""A sequence made of another one, which is read once and looked back at."""

from __future__ import annotations

from torch import Tensor, nn

from bundle.manifest import StateTensor
from export.graphs import LENGTHS, TOKENS, Graph, stack_state
from export.tasks.base import Wrapped, WritingTask, prefilled
from training.models.cells import State
from training.models.seq2seq import Seq2SeqConfig


class _Prefill(Wrapped):
    def forward(self, tokens: Tensor, lengths: Tensor) -> State:
        state: State = self.model.encode(tokens, lengths)
        return state


class Seq2SeqExport(WritingTask[Seq2SeqConfig]):
    def state(self, config: Seq2SeqConfig) -> tuple[StateTensor, ...]:
        carried = stack_state(config.recurrent)
        if not config.attention:
            return carried
        limit, width = config.source_limit, 2 * config.recurrent.hidden_size
        return (
            StateTensor("memory", "float32", (limit, width), carried=False),
            StateTensor("memory_mask", "float32", (limit,), carried=False),
            *carried,
        )

    def attended(self, config: Seq2SeqConfig) -> int:
        return config.source_limit if config.attention else 0

    def choices(self, config: Seq2SeqConfig) -> int:
        return config.target_vocabulary_size

    def prefill(self, model: nn.Module, config: Seq2SeqConfig) -> list[Graph]:
        state = prefilled(self.state(config))
        return [Graph("prime", _Prefill(model), (TOKENS, LENGTHS), (), state)]
