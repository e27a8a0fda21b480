"""Classifiers: texts or sequences of frames in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.engine.errors import WrongInput
from service.serving.inputs import (
    MAX_TEXTS,
    MOST_NUMBER,
    PredictItem,
    ReadingModel,
    checked_size,
    is_free,
    off_loop,
)
from service.serving.model_info import ModelCard
from service.serving.output_stream import run_batch
from service.serving.served_model import ServedModel
from service.serving.worker import EngineThread

if TYPE_CHECKING:
    from bundle.tokenizer import Encoded, Tokenizer
    from service.serving.named_states import StateMaker
    from service.serving.stepper import StepperModel

# Numbers of all sequences of a request together: 4 MiB.
MAX_REQUEST_NUMBERS = 2**20


@dataclass(frozen=True)
class Classified:
    """probabilities: of the model's labels, in their order. input_tokens: or frames."""

    labels: Sequence[str]
    probabilities: Sequence[float]
    input_tokens: int
    unknown_symbols: int

    def ranked(self) -> list[tuple[str, float]]:
        """Every label with its probability, the most probable first."""
        pairs = zip(self.labels, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def best(self) -> tuple[str, float]:
        """The first of them."""
        probability = max(self.probabilities)
        return self.labels[self.probabilities.index(probability)], probability


@dataclass(frozen=True, eq=False)
class FramesItem:
    """frames: (time, channels) float32 of one sequence."""

    frames: NDArray[Any]

    @property
    def length(self) -> int:
        return len(self.frames)


class ClassifierModel(ServedModel):
    """A model that labels texts or sequences of frames: one of the two."""

    does = "classify"

    async def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Raises WrongInput, QueueFull or EngineFailed."""
        raise WrongInput(
            f"model {self.card.name!r} reads frames of numbers, not texts; send frames of the "
            "channels that GetModel names"
        )

    async def classify_frames(self, sequences: Sequence[NDArray[Any]]) -> list[Classified]:
        """sequences: (time, channels) float32 each. Raises as classify()."""
        raise WrongInput(f"model {self.card.name!r} reads texts, not frames; send texts")


class TextClassifierModel(ReadingModel, ClassifierModel):
    def __init__(self, card: ModelCard, reader: Tokenizer, thread: EngineThread) -> None:
        super().__init__(card)
        self.reader = reader
        self.thread = thread

    @property
    def calls(self) -> str:
        return "Classify"

    async def classify(self, texts: Sequence[str]) -> list[Classified]:
        size = checked_size("texts", [len(text) for text in texts])
        if is_free(size):
            encoded = self._encode_all(texts)
        else:
            encoded = await off_loop(size, lambda: self._encode_all(texts))
        items = [PredictItem(tuple(part.ids)) for part in encoded]
        rows = await run_batch(self.thread, items)
        return [
            Classified(self.card.labels, row, len(part.ids), part.unknown)
            for part, row in zip(encoded, rows, strict=True)
        ]

    async def predict(self, rows: Sequence[Sequence[int]]) -> list[Sequence[float]]:
        """The probability of each label, in their order, for rows of ids.

        Raises WrongInput, QueueFull or EngineFailed.
        """
        return await run_batch(self.thread, self.items_of(rows))

    def _encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.read(self.reader, text, f"texts[{i}]") for i, text in enumerate(texts)]


class FrameClassifierModel(ClassifierModel):
    """stepper: answers after each frame of a stream; None for a model that reads from both ends."""

    def __init__(
        self, card: ModelCard, thread: EngineThread, stepper: StepperModel | None = None
    ) -> None:
        super().__init__(card)
        self.thread = thread
        self._stepper = stepper
        assert card.frames is not None, "a classifier without a tokenizer has them"
        self.channels = card.frames.channels

    @property
    def calls(self) -> str:
        return "Classify or StreamStep" if self._stepper else "Classify"

    @property
    def frame_stepper(self) -> StepperModel:
        """Raises WrongInput for a model that needs whole sequences."""
        if self._stepper is None:
            raise WrongInput(
                f"model {self.card.name!r} reads a sequence from both ends; call Classify with all "
                "of its frames"
            )
        return self._stepper

    @property
    def state_maker(self) -> StateMaker:
        return self._stepper or super().state_maker

    async def classify_frames(self, sequences: Sequence[NDArray[Any]]) -> list[Classified]:
        self._check(sequences)
        size = sum(frames.size for frames in sequences)
        items = await off_loop(size, lambda: self._items_of(sequences))
        rows = await run_batch(self.thread, items)
        return [
            Classified(self.card.labels, row, item.length, 0)
            for item, row in zip(items, rows, strict=True)
        ]

    def _check(self, sequences: Sequence[NDArray[Any]]) -> None:
        """Raises WrongInput."""
        if not 1 <= len(sequences) <= MAX_TEXTS:
            raise WrongInput(
                f"frames holds {len(sequences)} sequences; send 1 to {MAX_TEXTS} a request"
            )
        name, limit, width = self.card.name, self.card.limits["input_frames"], len(self.channels)
        for number, frames in enumerate(sequences):
            if frames.ndim != 2 or frames.shape[1] != width:
                raise WrongInput(
                    f"frames[{number}] has the shape {list(frames.shape)}; model {name!r} takes "
                    f"[frames, {width}], the channels as GetModel names them"
                )
            if not 1 <= len(frames) <= limit:
                raise WrongInput(
                    f"frames[{number}] has {len(frames)} frames, model {name!r} accepts 1 to "
                    f"{limit}"
                )
        if (size := sum(frames.size for frames in sequences)) > MAX_REQUEST_NUMBERS:
            raise WrongInput(
                f"frames hold {size} numbers together; send at most {MAX_REQUEST_NUMBERS} a request"
            )

    def _items_of(self, sequences: Sequence[NDArray[Any]]) -> list[FramesItem]:
        """Raises WrongInput for a number that is not finite, or too large."""
        for number, frames in enumerate(sequences):
            is_fine = np.abs(frames) <= MOST_NUMBER  # NaN is not
            if not is_fine.all():
                frame, channel = np.argwhere(~is_fine)[0].tolist()
                raise WrongInput(
                    f"frames[{number}] is {frames[frame, channel]:g} in frame {frame}, channel "
                    f"{channel} ({self.channels[channel]!r}); send a number from "
                    f"{-MOST_NUMBER:g} to {MOST_NUMBER:g}"
                )
        return [FramesItem(frames) for frames in sequences]
