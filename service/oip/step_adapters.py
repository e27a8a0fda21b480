"""Adapters of models that are stepped over numbers: frames in, what their steps give out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.engine.frame_stepping import shared_of
from service.engine.requests import FrameAnswered, StepSnapshot
from service.oip.adapters import InferResult, ModelAdapter
from service.oip.tensors import Array, TensorMetadata, datatype_of
from service.serving.stepper import FrameTurn, StepperModel
from service.step_model import FramePort


class FrameAdapter(ModelAdapter):
    """One step a row. A row starts anew, or goes on from the last one of its sequence.

    What rows share is an optional input: a value a row.
    """

    keeps_sequences = True
    steps: tuple[int, ...] = ()  # the axis of steps after that of rows, where there is one

    def __init__(self, model: StepperModel) -> None:
        super().__init__(model.card)
        self.model = model
        self._frames, self._answers = model.stepper.model.inputs, model.stepper.model.outputs
        self._shared = tuple(
            TensorMetadata(port.name, datatype_of(port.dtype), (-1, 1), optional=True)
            for port in model.stepper.shared_ports
        )
        self.inputs = (*map(self._port, self._frames), *self._shared)
        self.outputs = tuple(map(self._port, self._answers))

    def _port(self, port: FramePort) -> TensorMetadata:
        shape = (-1, *self.steps, *_shape_of(port))
        return TensorMetadata(port.name, datatype_of(port.dtype), shape)

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        first = inputs[self._frames[0].name]
        return len(first) * self.model.waiting_bytes(self._count(first))

    def _count(self, frames: Array) -> int:
        return frames.shape[1] if self.steps else 1

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        turns = self._turns(inputs)
        found = await self.model.turns(turns)
        return self._result([answer for answer, _ in found], turns[0].steps)

    async def go_on(
        self, inputs: Mapping[str, Array], settings: Any, state: StepSnapshot | None
    ) -> tuple[InferResult, StepSnapshot]:
        turns = self._turns(inputs, state)
        ((answer, after),) = await self.model.turns(turns)
        return self._result([answer], turns[0].steps), after

    def _turns(
        self, inputs: Mapping[str, Array], before: StepSnapshot | None = None
    ) -> list[FrameTurn]:
        rows = self.batch(inputs)
        steps = {port.name: self._count(inputs[port.name]) for port in self._frames}
        count = steps[self._frames[0].name]
        for name, found in steps.items():
            if found != count:
                raise WrongInput(
                    f"input {name!r} has {found} steps, input {self._frames[0].name!r} has "
                    f"{count}; send as many"
                )
        self.model.check_steps(count)
        return [
            FrameTurn(
                tuple(inputs[port.name][row].tobytes() for port in self._frames),
                count,
                self._choice(inputs, row, before),
                before,
            )
            for row in range(rows)
        ]

    def _choice(self, inputs: Mapping[str, Array], row: int, before: StepSnapshot | None) -> int:
        given = {
            port.name: float(inputs[port.name][row, 0])
            for port in self._shared
            if port.name in inputs
        }
        begun = None if before is None else shared_of(before)
        if begun is not None and not given:
            return begun
        chosen = self.model.choice_of(given)
        if begun not in (None, chosen):
            raise WrongInput(
                f"input {next(iter(given))!r} is another one than the sequence began with; leave "
                "it out, or begin anew with sequence_start"
            )
        return chosen

    def _result(self, answers: Sequence[FrameAnswered], steps: int) -> InferResult:
        of_steps = (steps,) if self.steps else ()
        return InferResult(
            {
                port.name: np.frombuffer(
                    b"".join([answer.outputs[number] for answer in answers]), port.dtype
                ).reshape(len(answers), *of_steps, *_shape_of(port))
                for number, port in enumerate(self._answers)
            }
        )


def _shape_of(port: FramePort) -> tuple[int, ...]:
    """Of a step; of a number, one of one number: clients know no other."""
    return port.shape or (1,)


class FramesAdapter(FrameAdapter):
    """As FrameAdapter, of several steps a row."""

    steps = (-1,)
