"""A graph as a module to trace, with the names and free axes of its tensors.

Which graphs a bundle has is its task's to say (export/tasks/); the two that every task that goes
token by token needs, ``step`` and ``score``, are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import FunctionProto
from torch import Tensor, nn

from bundle.manifest import ADJUSTED, ATTENTION, BATCH, STEP_INPUTS, TIME, StateTensor, step_inputs
from export.sampler import draw, draw_functions
from training.models.cells import State
from training.models.options import RecurrentOptions

# The free axis of what stands to the right of a blank.
RIGHT_TIME = "right_time"

# Sizes of free axes other than 1, which a tracer would take for a constant, and different.
EXAMPLE_SIZES = {BATCH: 3, TIME: 5, RIGHT_TIME: 4, ADJUSTED: 2}


@dataclass(frozen=True)
class GraphTensor:
    """One input or output: its name, type and axes, a free axis by name. signed: of a vector,
    whether values may lie below 0; unknown: whether they may be NaN."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    signed: bool = False
    unknown: bool = False

    def example(self, sizes: dict[str, int]) -> Tensor:
        """Zeros, or for whole numbers ones, of this shape."""
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in self.shape]
        fill = 0 if self.dtype.is_floating_point else 1
        return torch.full(shape, fill, dtype=self.dtype)


@dataclass(frozen=True)
class Graph:
    """A module to trace. Its last argument, where it has a state, is the tuple ``state``.

    weights_prefix: what the weights file's names of its model's tensors begin with.
    functions: that its operators of this project's own call.
    """

    name: str
    module: nn.Module
    inputs: tuple[GraphTensor, ...]
    state: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    weights_prefix: str = ""
    functions: tuple[FunctionProto, ...] = ()


class _Step(nn.Module):
    """Called with STEP_INPUTS in their order, then the state of a model that has one.

    suppressed: (vocabulary,) what the sampler adds, -inf for ids that stand for no symbol.
    looks_back: whether the model has attention, which is written too.
    """

    suppressed: Tensor

    def __init__(
        self, model: Any, suppressed: Tensor, fixed: int, looks_back: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed
        self.looks_back = looks_back
        self.register_buffer("suppressed", suppressed, persistent=False)

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        controls = dict(zip(STEP_INPUTS, inputs, strict=False))
        state: State = inputs[-1] if len(inputs) > len(STEP_INPUTS) else ()
        token = controls["token"]
        looked: tuple[Tensor, ...] = ()
        if self.looks_back:
            logits, after, *looked = self.model.step_with_attention(token, state)
        else:
            logits, after = self.model.step(token, state)
        drawn = draw(logits, self.suppressed, controls)
        return (*drawn, logits, *looked, *after[self.fixed :])


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


TOKENS = GraphTensor("tokens", torch.int64, (BATCH, TIME))
LENGTHS = GraphTensor("lengths", torch.int64, (BATCH,))


def stack_state(options: RecurrentOptions) -> tuple[StateTensor, ...]:
    """What a stack of recurrent layers carries from token to token."""
    if not options.carries_hidden:
        return ()
    kinds = ("hidden", "cell") if options.cell == "lstm" else ("hidden",)
    return tuple(
        StateTensor(f"{kind}_{layer}", "float32", (options.output_size,), carried=True)
        for layer in range(options.layers)
        for kind in kinds
    )


def score_of(model: nn.Module, state: Sequence[StateTensor]) -> Graph:
    """The graph that gives the log-probability of each token of a text, over ``model`` itself."""
    ports, carried = state_ports(state)
    targets = GraphTensor("targets", torch.int64, (BATCH, TIME))
    scored = GraphTensor("log_probabilities", torch.float32, (BATCH, TIME))
    module = _Score(model, len(ports) - len(carried))
    return Graph("score", module, (TOKENS, targets, LENGTHS), ports, (scored, *carried))


def step_of(
    model: nn.Module,
    tensors: Sequence[StateTensor],
    vocabulary: int,
    never_sampled_ids: Sequence[int],
    name: str = "step",
    weights_prefix: str = "",
    attended: int = 0,
) -> Graph:
    """The graph of one token, drawn inside it, over ``model.step``.

    tensors: of the state. vocabulary: how many tokens it draws among; a tagger's reads a token
    and draws its label. attended: places that the model's attention looks at; 0 for a model
    without, else ``model.step_with_attention`` is called.
    """
    state, carried = state_ports(tensors)
    suppressed = torch.zeros(vocabulary)
    suppressed[list(never_sampled_ids)] = float("-inf")
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
    looked = (GraphTensor(ATTENTION, torch.float32, (BATCH, attended)),) if attended else ()
    module = _Step(model, suppressed, len(state) - len(carried), bool(attended))
    return Graph(
        name,
        module,
        controls,
        state,
        (*drawn, *looked, *carried),
        weights_prefix,
        draw_functions(vocabulary),
    )


def state_ports(
    state: Sequence[StateTensor],
) -> tuple[tuple[GraphTensor, ...], tuple[GraphTensor, ...]]:
    """The state as a graph reads it, and what of it a graph writes anew."""
    ports = [GraphTensor(t.name, getattr(torch, t.dtype), (BATCH, *t.shape)) for t in state]
    carried = [made_anew(port) for port, tensor in zip(ports, state, strict=True) if tensor.carried]
    return tuple(ports), tuple(carried)


def made_anew(port: GraphTensor) -> GraphTensor:
    """A tensor of the state as a graph writes it."""
    return GraphTensor(f"next_{port.name}", port.dtype, port.shape)
