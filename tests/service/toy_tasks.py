"""Two tasks from outside the packages, as another project would write them in a module of its own.

``reverse`` runs an ONNX graph over ragged rows of ids; ``count`` has no graph and runs numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bundle.tasks import TaskSpec
from service.oip.adapters import InferResult, ModelAdapter
from service.oip.tensors import Array, TensorMetadata
from service.serving.inputs import PredictItem, ReadingModel
from service.serving.model_factory import ModelBuilder
from service.serving.output_stream import run_batch
from service.serving.worker import EngineThread
from service.tasks import Task, register


class RowModel(ReadingModel):
    """Rows of ids in, an array for each out."""

    does = "work on rows"

    def __init__(self, builder: ModelBuilder, thread: EngineThread) -> None:
        super().__init__(builder.probed_card())
        self.thread = thread

    async def run(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        return await run_batch(self.thread, [PredictItem(tuple(row)) for row in rows])


class ReverseRunner:
    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, items: Sequence[PredictItem]) -> Iterator[list[Array]]:
        lengths = np.array([item.length for item in items], np.int64)
        tokens = np.zeros((len(items), lengths.max()), np.int64)
        for row, item in zip(tokens, items, strict=True):
            row[: item.length] = item.tokens
        (found,) = self.session.run(["reversed"], {"tokens": tokens, "lengths": lengths})
        yield [row[: item.length] for row, item in zip(found, items, strict=True)]


class CountRunner:
    def run(self, items: Sequence[PredictItem]) -> Iterator[list[Array]]:
        yield [np.array([item.length], np.int64) for item in items]


class RowAdapter(ModelAdapter):
    """One row a request, which needs no lengths."""

    max_batch = 0
    inputs = (TensorMetadata("tokens", "INT64", (-1,)),)
    outputs = (TensorMetadata("answer", "INT64", (-1,)),)

    def __init__(self, model: RowModel) -> None:
        super().__init__(model.card)
        self.model = model

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        (answer,) = await self.model.run([inputs["tokens"].tolist()])
        return InferResult({"answer": answer})


def build_reverse(builder: ModelBuilder) -> RowModel:
    thread = builder.batch_thread("predict", ReverseRunner(builder.sessions["predict"]))
    return RowModel(builder, thread)


def build_count(builder: ModelBuilder) -> RowModel:
    return RowModel(builder, builder.batch_thread("count", CountRunner()))


register(Task(TaskSpec("reverse", ("predict",)), build_reverse, RowAdapter))
register(Task(TaskSpec("count", ()), build_count, RowAdapter))
