"""The graphs of a bundle as modules to trace, with the names and free axes of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bundle.manifest import BATCH, STEP_INPUTS, TIME, StateTensor, step_inputs
from export.sampler import draw
from export.weights import scanned
from training.models import Config
from training.models.baselines import BaselineConfig
from training.models.cells import State
from training.models.classifier import ClassifierConfig
from training.models.fill import FillConfig
from training.models.layers import unroll
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2SeqConfig
from training.models.tagger import TaggerConfig
from training.models.vec2seq import VectorToSequenceConfig

# The free axis of what stands to the right of a blank.
RIGHT_TIME = "right_time"

# Sizes of free axes other than 1, which a tracer would take for a constant, and different.
EXAMPLE_SIZES = {BATCH: 3, TIME: 5, RIGHT_TIME: 4}


@dataclass(frozen=True)
class GraphTensor:
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
    inputs: tuple[GraphTensor, ...]
    state: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    weights_prefix: str = ""


class _Predict(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model(tokens, lengths), dim=1)


class _PredictBlank(nn.Module):
    """``tokens`` are those to the left of the blank."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, lengths: Tensor, right: Tensor, right_lengths: Tensor
    ) -> Tensor:
        return torch.softmax(self.model(tokens, lengths, right, right_lengths), dim=1)


class _PredictTags(nn.Module):
    """traced: whether the label that is fed back runs through a Scan, or step by step."""

    def __init__(self, model: Any, traced: bool) -> None:
        super().__init__()
        self.model = model
        self.unroll = scanned if traced else unroll

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.softmax(self.model.tag(tokens, lengths, self.unroll), dim=2)


class _PrefillWithPrompt(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor, state: State) -> State:
        after: State = self.model.read(tokens, state, lengths)[1]
        return after


class _PrefillWithSource(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> State:
        state: State = self.model.encode(tokens, lengths)
        return state


class _PrefillWithVector(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, vector: Tensor) -> State:
        state: State = self.model.encode(vector)
        return state


class _Step(nn.Module):
    """Called with STEP_INPUTS in their order, then the state of a model that has one.

    silent: (vocabulary,) what the sampler adds, -inf for ids that stand for no symbol.
    """

    silent: Tensor

    def __init__(self, model: Any, silent: Tensor, fixed: int) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed
        self.register_buffer("silent", silent, persistent=False)

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        controls = dict(zip(STEP_INPUTS, inputs, strict=False))
        state: State = inputs[-1] if len(inputs) > len(STEP_INPUTS) else ()
        logits, after = self.model.step(controls["token"], state)
        return (*draw(logits, self.silent, controls), logits, *after[self.fixed :])


class _Score(nn.Module):
    def __init__(self, model: Any, fixed: int) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed

    def forward(
        self, tokens: Tensor, targets: Tensor, lengths: Tensor, state: State = ()
    ) -> tuple[Any, ...]:
        logits, after = self.model(tokens, state, lengths)
        chosen = torch.log_softmax(logits, dim=2).gather(2, targets.unsqueeze(2))
        return (chosen.squeeze(2), *after[self.fixed :])


def state_of(config: Config) -> tuple[StateTensor, ...]:
    """What a stream of this model carries: fixed tensors first, then its stack's."""
    if isinstance(config, ClassifierConfig | BaselineConfig | FillConfig):
        return ()
    if isinstance(config, TaggerConfig) and not config.streams:
        return ()
    return _before_the_stack(config) + tuple(
        StateTensor(name, "float32", (config.recurrent.output_size,), carried=True)
        for name in _stack_names(config.recurrent)
    )


def _before_the_stack(config: Config) -> tuple[StateTensor, ...]:
    if isinstance(config, Seq2SeqConfig) and config.attention:
        width = 2 * config.recurrent.hidden_size
        return (
            StateTensor("memory", "float32", (config.source_limit, width), carried=False),
            StateTensor("memory_mask", "float32", (config.source_limit,), carried=False),
        )
    if isinstance(config, VectorToSequenceConfig):
        condition = StateTensor("condition", "float32", (config.condition_size,), carried=False)
        if not config.examples:
            return (condition,)
        slots = config.nearest * config.example_tokens
        return (
            condition,
            StateTensor("memory", "float32", (slots, config.key_size), carried=False),
            StateTensor("memory_tokens", "int64", (slots,), carried=False),
            StateTensor("memory_scores", "float32", (slots,), carried=False),
        )
    if isinstance(config, TaggerConfig) and config.recurrent.reads_output:
        return (StateTensor("previous_label", "int64", (), carried=True),)
    return ()


def _stack_names(options: RecurrentOptions) -> list[str]:
    if not options.carries_hidden:
        return []
    kinds = ("hidden", "cell") if options.cell == "lstm" else ("hidden",)
    return [f"{kind}_{layer}" for layer in range(options.layers) for kind in kinds]


_TOKENS = GraphTensor("tokens", torch.int64, (BATCH, TIME))
_LENGTHS = GraphTensor("lengths", torch.int64, (BATCH,))


def graphs_of(
    model: nn.Module, config: Config, never_sampled_ids: Sequence[int], traced: bool = False
) -> list[Graph]:
    """Every fp32 graph of the bundle of ``model``.

    traced: whether ``model`` is one made for export; otherwise it is the PyTorch model itself,
    which the exported graphs are compared with.
    """
    if isinstance(config, ClassifierConfig | BaselineConfig | FillConfig):
        return [_predict_of(model, config)]
    if isinstance(config, TaggerConfig):
        probabilities = GraphTensor("probabilities", torch.float32, (BATCH, TIME, config.labels))
        tags = _PredictTags(model, traced)
        predict = Graph("predict", tags, (_TOKENS, _LENGTHS), (), (probabilities,))
        return [predict, step_of(model, config, ())] if config.streams else [predict]
    state, carried = _ports(config)
    fixed = len(state) - len(carried)
    targets = GraphTensor("targets", torch.int64, (BATCH, TIME))
    scored = GraphTensor("log_probabilities", torch.float32, (BATCH, TIME))
    score = Graph(
        "score", _Score(model, fixed), (_TOKENS, targets, _LENGTHS), state, (scored, *carried)
    )
    return [*_prefill_of(model, config), step_of(model, config, never_sampled_ids), score]


def _predict_of(model: nn.Module, config: ClassifierConfig | BaselineConfig | FillConfig) -> Graph:
    inputs: tuple[GraphTensor, ...] = (_TOKENS, _LENGTHS)
    if isinstance(config, ClassifierConfig | BaselineConfig):
        probabilities = GraphTensor("probabilities", torch.float32, (BATCH, config.labels))
        return Graph("predict", _Predict(model), inputs, (), (probabilities,))
    right = GraphTensor("right", torch.int64, (BATCH, RIGHT_TIME))
    inputs += (right, GraphTensor("right_lengths", torch.int64, (BATCH,)))
    probabilities = GraphTensor("probabilities", torch.float32, (BATCH, config.candidates))
    return Graph("predict", _PredictBlank(model), inputs, (), (probabilities,))


def _prefill_of(model: nn.Module, config: Config) -> list[Graph]:
    """None for a generator that carries nothing: only its last token matters."""
    state, carried = _ports(config)
    prefilled = tuple(GraphTensor(f"next_{port.name}", port.dtype, port.shape) for port in state)
    if isinstance(config, Seq2SeqConfig):
        return [Graph("prime", _PrefillWithSource(model), (_TOKENS, _LENGTHS), (), prefilled)]
    if isinstance(config, VectorToSequenceConfig):
        vector = GraphTensor("vector", torch.float32, (BATCH, config.vector_size))
        return [Graph("prime", _PrefillWithVector(model), (vector,), (), prefilled)]
    if not state:
        return []
    return [Graph("prime", _PrefillWithPrompt(model), (_TOKENS, _LENGTHS), state, carried)]


def _choices(config: Config) -> int:
    """How many tokens, or labels, a step draws among."""
    if isinstance(config, Seq2SeqConfig):
        return config.target_vocabulary_size
    return config.labels if isinstance(config, TaggerConfig) else config.vocabulary_size


def step_of(
    model: nn.Module,
    config: Config,
    never_sampled_ids: Sequence[int],
    name: str = "step",
    weights_prefix: str = "",
) -> Graph:
    """The graph of one token, drawn inside it, over ``model.step``.

    A tagger's reads a token and draws its label.
    """
    state, carried = _ports(config)
    vocabulary = _choices(config)
    silent = torch.zeros(vocabulary)
    silent[list(never_sampled_ids)] = float("-inf")
    controls = tuple(
        GraphTensor(spec.name, getattr(torch, spec.dtype), spec.shape)
        for spec in step_inputs(vocabulary)
    )
    drawn = (
        GraphTensor("next_token", torch.int64, (BATCH,)),
        GraphTensor("log_probability", torch.float32, (BATCH,)),
        GraphTensor("log_probabilities", torch.float32, (BATCH, vocabulary)),
        GraphTensor("logits", torch.float32, (BATCH, vocabulary)),
    )
    module = _Step(model, silent, len(state) - len(carried))
    return Graph(name, module, controls, state, (*drawn, *carried), weights_prefix)


def _ports(config: Config) -> tuple[tuple[GraphTensor, ...], tuple[GraphTensor, ...]]:
    """The state as a graph reads it, and what of it a graph writes anew."""
    state = state_of(config)
    ports = [GraphTensor(t.name, getattr(torch, t.dtype), (BATCH, *t.shape)) for t in state]
    carried = [
        GraphTensor(f"next_{port.name}", port.dtype, port.shape)
        for port, tensor in zip(ports, state, strict=True)
        if tensor.carried
    ]
    return tuple(ports), tuple(carried)
