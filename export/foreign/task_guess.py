"""Which task a foreign graph is for, guessed from its inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from bundle.manifest import CLASSIFY, GENERATE, STEP
from export.foreign.surgery import real_inputs
from export.foreign.trial import Found, Port, declared_dims

# Fewer numbers than these are hardly the logits of a vocabulary.
_LEAST_WIDE = 8
_IDS = ("int64", "int32")


@dataclass(frozen=True)
class TaskGuess:
    """tokens, mask, lengths, answer: of the graph's names, for a task of texts; empty for none.
    is_probability: of the answer."""

    task: str
    tokens: str = ""
    mask: str = ""
    lengths: str = ""
    answer: str = ""
    is_probability: bool = False

    @property
    def line(self) -> str:
        """For people."""
        why = {
            STEP: "it reads numbers a step at a time",
            GENERATE: f"{self.tokens} is a token, and {self.answer} is of the next one",
            CLASSIFY: f"{self.tokens} is a text's tokens, and {self.answer} is of its labels",
        }[self.task]
        return f"guess: {why}, so the task is {self.task}"


def guessed_task(model: ModelProto, found: Found, states: Mapping[str, str]) -> TaskGuess:
    """found: of ``model``, by ``explore``. states: input → output."""
    given = {name: port for name, port in found.inputs.items() if name not in states}
    mask = next((name for name in given if "mask" in name.lower()), "")
    lengths = next((name for name in given if "len" in name.lower()), "")
    left = [port for name, port in given.items() if name not in (mask, lengths)]
    answers = [
        port
        for name, port in found.outputs.items()
        if name not in states.values() and port.dtype.startswith("float")
    ]
    if len(left) != 1 or left[0].dtype not in _IDS or not answers:
        return TaskGuess(STEP)
    tokens, answer = left[0], max(answers, key=lambda port: port.shape[-1:])
    is_sequence = _is_free(model, tokens)
    is_probability = _is_probability(model, answer)
    is_token = math.prod(tokens.shape) == 1 or (is_sequence and bool(states))
    if is_token and answer.shape[-1:] >= (_LEAST_WIDE,) and not (mask or lengths):
        return TaskGuess(GENERATE, tokens.name, answer=answer.name, is_probability=is_probability)
    if is_sequence and not states:
        return TaskGuess(CLASSIFY, tokens.name, mask, lengths, answer.name, is_probability)
    return TaskGuess(STEP)


def _is_free(model: ModelProto, port: Port) -> bool:
    """Whether its last axis, behind the batch's, may be of any size."""
    dims = next(declared_dims(p) for p in real_inputs(model.graph) if p.name == port.name)
    return len(dims) > 1 and not isinstance(dims[-1], int)


def _is_probability(model: ModelProto, port: Port) -> bool:
    made = next((n.op_type for n in model.graph.node if port.name in n.output), "")
    name = port.name.lower()
    return made == "Softmax" or ("prob" in name and "log" not in name)
