"""A held-out split as questions to a served model, and what the answers to them are worth.

A task makes one of the examples that were held out (training/tasks/); who asks the questions knows
the task alone, and no model by name. What a question and its answer are, by task:

==========  ==========================================  =========================================
task        question                                    answer
==========  ==========================================  =========================================
classify    a text, or the frames of a sequence,        labels, the likeliest first, five at most
            (time, channels)
tag         the tokens of a text                        the label of each token
fill        a text with ``___`` in it                   words, the likeliest first, 100 at most
generate    a text, and how many of its first           -log p of each of the others, in nats
            characters are only read
seq2seq     a source                                    the text that the model writes
vec2seq     a vector                                    the text that the model writes
forecast    the values of a series, and how many steps  samples of what follows, (samples, steps)
==========  ==========================================  =========================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from training.measurements import Measurement

BLANK = "___"
BEST = 5  # labels of an answer at most, and words of it that are measured
WORDS = 100  # of a blank's answer, at most

Confusion = Counter[tuple[str, str]]  # how often each (true label, said label) came up

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class SeriesQuestion:
    """values: NaN where one is missing. horizon: steps to forecast. start: in ISO 8601, empty where
    nobody knows. covariates: by name, of each value and then of each step to forecast."""

    values: tuple[float, ...]
    horizon: int
    start: str = ""
    covariates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Ranked(list[str]):
    """Labels or words, the likeliest first. confidence: the probability of the first."""

    def __init__(self, names: Iterable[str], confidence: float) -> None:
        super().__init__(names)
        self.confidence = confidence


class FigureName(NamedTuple):
    """split: of a part of what is held out; empty for the whole."""

    name: str
    unit: str
    split: str = ""


@dataclass(frozen=True)
class HeldOut(Generic[Question, Answer]):
    """measure: the answers, in the questions' order → one measurement of each figure.

    Figures come in the manifest's order: a model that is measured several times, by beams of
    several widths, has the same figures of each. confusion: of a model that gives labels.
    figures: what the measurements are of, in their order.
    """

    questions: Sequence[Question]
    measure: Callable[[Sequence[Answer]], Sequence[Measurement]]
    confusion: Callable[[Sequence[Answer]], Confusion] | None = None
    figures: Sequence[FigureName] = ()
