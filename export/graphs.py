"""The graphs of a bundle as modules to trace, with the names and free axes of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH, StateTensor
from export.sampler import Controls, draw
from training.models import Config
from training.models.baselines import BaselineConfig
from training.models.classifier import ClassifierConfig
from training.models.generator import GeneratorConfig
from training.models.recurrent import RecurrentOptions, State
from training.models.seq2seq import Seq2SeqConfig

# Free axes. Sizes other than 1, which a tracer would take for a constant.
TIME = "time"
EXAMPLE_SIZES = {BATCH: 3, TIME: 5}


@dataclass(frozen=True)
class Port:
    """One input or output: its name, type and axes, a free axis by name."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]

    def example(self, sizes: dict[str, int]) -> Tensor:
        """Zeros, or for whole numbers ones, of this shape."""
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in self.shape]
        fill = 0 if self.dtype.is_floating_point else 1
        return torch.full(shape, fill, dtype=self.dtype)


@dataclass(frozen=True)
class Graph:
    """A module to trace. Its last argument, where it has a state, is the tuple ``state``.

    weights_prefix: what the weights file's names of its model's tensors begin with.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    state: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights_prefix: str = ""


class _Predict(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model(tokens, lengths), dim=1)


class _PrimeWithPrompt(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor, state: State) -> State:
        after: State = self.model.read(tokens, state, lengths)[1]
        return after


class _PrimeWithSource(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> State:
        state: State = self.model.encode(tokens, lengths)
        return state


class _Step(nn.Module):
    """silent: (vocabulary,) what the sampler adds, -inf for ids that stand for no symbol."""

    silent: Tensor

    def __init__(self, model: Any, silent: Tensor, fixed: int) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed
        self.register_buffer("silent", silent, persistent=False)

    def forward(
        self,
        token: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        uniform: Tensor,
        repetition: Tensor,
        seen: Tensor,
        bias: Tensor,
        state: State,
    ) -> tuple[Any, ...]:
        logits, after = self.model.step(token, state)
        controls = Controls(temperature, top_k, top_p, min_p, uniform, repetition, seen, bias)
        return (*draw(logits, self.silent, controls), logits, *after[self.fixed :])


class _Score(nn.Module):
    def __init__(self, model: Any, fixed: int) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed

    def forward(
        self, tokens: Tensor, targets: Tensor, lengths: Tensor, state: State
    ) -> tuple[Any, ...]:
        logits, after = self.model(tokens, state, lengths)
        chosen = torch.log_softmax(logits, dim=2).gather(2, targets.unsqueeze(2))
        return (chosen.squeeze(2), *after[self.fixed :])


def state_of(config: Config) -> tuple[StateTensor, ...]:
    """What a stream of this model carries: fixed tensors first, then its stack's."""
    if isinstance(config, ClassifierConfig | BaselineConfig):
        return ()
    fixed: tuple[StateTensor, ...] = ()
    if isinstance(config, Seq2SeqConfig):
        width = 2 * config.recurrent.hidden_size
        fixed = (
            StateTensor("memory", "float32", (config.source_limit, width), carried=False),
            StateTensor("memory_mask", "float32", (config.source_limit,), carried=False),
        )
    return fixed + tuple(
        StateTensor(name, "float32", (config.recurrent.output_size,), carried=True)
        for name in _stack_names(config.recurrent)
    )


def _stack_names(options: RecurrentOptions) -> list[str]:
    kinds = ("hidden", "cell") if options.cell == "lstm" else ("hidden",)
    return [f"{kind}_{layer}" for layer in range(options.layers) for kind in kinds]


def graphs_of(model: nn.Module, config: Config, silent_ids: Sequence[int]) -> list[Graph]:
    """Every fp32 graph of the bundle of ``model``, which is a model made for export."""
    tokens = Port("tokens", torch.int64, (BATCH, TIME))
    lengths = Port("lengths", torch.int64, (BATCH,))
    if isinstance(config, ClassifierConfig | BaselineConfig):
        probabilities = Port("probabilities", torch.float32, (BATCH, config.labels))
        return [Graph("predict", _Predict(model), (tokens, lengths), (), (probabilities,))]
    state, carried = _ports(config)
    fixed = len(state) - len(carried)
    if isinstance(config, Seq2SeqConfig):
        primed = tuple(Port(f"next_{port.name}", port.dtype, port.shape) for port in state)
        prime = Graph("prime", _PrimeWithSource(model), (tokens, lengths), (), primed)
    else:
        prime = Graph("prime", _PrimeWithPrompt(model), (tokens, lengths), state, carried)
    targets = Port("targets", torch.int64, (BATCH, TIME))
    scored = Port("log_probabilities", torch.float32, (BATCH, TIME))
    score = Graph(
        "score", _Score(model, fixed), (tokens, targets, lengths), state, (scored, *carried)
    )
    return [prime, step_of(model, config, silent_ids), score]


def step_of(
    model: nn.Module,
    config: GeneratorConfig | Seq2SeqConfig,
    silent_ids: Sequence[int],
    name: str = "step",
    weights_prefix: str = "",
) -> Graph:
    """The graph of one token, drawn inside it, over ``model.step``."""
    state, carried = _ports(config)
    vocabulary = (
        config.target_vocabulary_size
        if isinstance(config, Seq2SeqConfig)
        else config.vocabulary_size
    )
    silent = torch.zeros(vocabulary)
    silent[list(silent_ids)] = float("-inf")
    controls = (
        Port("token", torch.int64, (BATCH,)),
        Port("temperature", torch.float32, (BATCH,)),
        Port("top_k", torch.int64, (BATCH,)),
        Port("top_p", torch.float32, (BATCH,)),
        Port("min_p", torch.float32, (BATCH,)),
        Port("uniform", torch.float32, (BATCH,)),
        Port("repetition", torch.float32, (BATCH,)),
        Port("seen", torch.bool, (BATCH, vocabulary)),
        Port("bias", torch.float32, (BATCH, vocabulary)),
    )
    drawn = (
        Port("next_token", torch.int64, (BATCH,)),
        Port("log_probability", torch.float32, (BATCH,)),
        Port("log_probabilities", torch.float32, (BATCH, vocabulary)),
        Port("logits", torch.float32, (BATCH, vocabulary)),
    )
    module = _Step(model, silent, len(state) - len(carried))
    return Graph(name, module, controls, state, (*drawn, *carried), weights_prefix)


def _ports(config: Config) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The state as a graph reads it, and what of it a graph writes anew."""
    state = state_of(config)
    ports = tuple(Port(t.name, torch.float32, (BATCH, *t.shape)) for t in state)
    carried = tuple(
        Port(f"next_{t.name}", torch.float32, (BATCH, *t.shape)) for t in state if t.carried
    )
    return ports, carried
