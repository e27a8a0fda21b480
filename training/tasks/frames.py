"""Labels of sequences of numbers: of each sequence its frames, one after the other, and one label.

A file has a row a frame, with a column that says which sequence it is of, or a row a sequence with
the list of its frames.
"""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bundle.frames import FrameSpec
from bundle.manifest import CLASSIFY
from training.calibration import MOST_LOGITS, ranked, with_calibration
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.frames import Frames, LabelledFrames
from training.floors.nearest import nearest_vectors
from training.held_out import BEST, Confusion, FigureName, HeldOut, Ranked
from training.measurements import Measurement, macro_f1, share
from training.models import config_from_json
from training.models.frame_classifier import FrameClassifier, FrameClassifierConfig
from training.readers import CSV, JSONL, PARQUET, TSV, BadRows, DataInvalid, Row, Table, listed
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import CalibratedTask, DataSettings, Prepared, option
from training.tasks.classify import EVALUATION_BATCH, ClassifyTask, labels_of, make_batches
from training.tasks.texts import limit_for

MOST_FRAMES = 4_096
MOST_NUMBER = 1e9
# That a stream brings at once.
MESSAGE_STEPS = 1_024
# Of the frames of what is held out: a model that is stepped answers after each.
SHARES = {"the first quarter": 0.25, "the first half": 0.5, "the first three quarters": 0.75}


@dataclass(frozen=True)
class FramesData(DataSettings):
    sequence_column: str = option("sequence", "column that says which sequence a row's frame is of")
    frames_column: str = option("frames", "key of the list of frames, where a row is a sequence")
    label_column: str = option("label", "column of the labels: a name, or a number from 1")
    time_column: str = option("", "column that orders a sequence's frames (default: as they come)")
    channels: str = option("", "columns of a frame's numbers, between commas (default: all others)")
    frame_seconds: float = option(0.0, "seconds that a frame stands for (default: not said)")

    def named_columns(self) -> tuple[str, ...]:
        channels = (part.strip() for part in self.channels.split(","))
        return (*super().named_columns(), *filter(None, channels))


@dataclass(frozen=True)
class FramesSettings:
    """The table ``[task]``, as recipes/tasks/classify-frames.toml explains it."""

    batch: int
    input_limit: int
    label_smoothing: float
    calibrated: bool = True


class ClassifyFrames(CalibratedTask[LabelledFrames]):
    name = CLASSIFY
    command = "classify-frames"
    help = "a label for each sequence of numbers: CSV, TSV, JSONL or Parquet with frames and labels"
    data = FramesData
    formats = (CSV, TSV, JSONL, PARQUET)

    # -- rows -------------------------------------------------------------------------------

    def examples(
        self, table: Table, settings: FramesData, bad_rows: BadRows
    ) -> tuple[list[LabelledFrames], list[tuple[str, str]]]:
        label = table.column(settings.label_column, settings.files, "--label-column")
        column = settings.frames_column
        if column in table.columns and settings.sequence_column not in table.columns:
            found = _listed_sequences(table, settings, label, bad_rows)
            told = f"frames {column!r}, labels {label!r}"
        else:
            found, told = _sequences_of_rows(table, settings, label, bad_rows)
        channels = found[0].channels if found else ()
        return found, [("columns", told), ("channels", listed(channels))]

    def key(self, example: LabelledFrames) -> str:
        return hashlib.sha256(example.frames.tobytes()).hexdigest()

    # -- learning and measuring -------------------------------------------------------------

    def prepare(self, recipe: Recipe, splits: Splits[LabelledFrames], seed: int) -> Prepared:
        labels, facts = labels_of(splits)
        lengths = [len(example.frames) for example in splits.every]
        recipe = recipe.chosen(
            {
                "task.input_limit": limit_for(lengths, MOST_FRAMES),
                "task.batch": min(32, max(8, len(splits.train) // 40)),
                "model.recurrent.hidden_size": min(128, hidden_size(sum(lengths))),
            }
        )
        settings = recipe.task_settings(FramesSettings)
        batches = -(-len(splits.train) // settings.batch)
        recipe = recipe.chosen({"fit.epochs": epochs_of(batches)})
        channels = splits.train[0].channels
        training = ClassifyTask(
            _numbered(splits.train, labels, settings.input_limit),
            _numbered(splits.validation, labels, settings.input_limit),
            seed, settings.batch, settings.label_smoothing,
        )  # fmt: skip
        config = recipe.config(FrameClassifierConfig, channels=len(channels), labels=len(labels))
        learnt = torch.from_numpy(np.concatenate([frames for frames, _ in training.rows]))

        def build(config: FrameClassifierConfig) -> FrameClassifier:
            model = FrameClassifier(config)
            model.standardise(learnt)
            return model

        limits = {"input_frames": settings.input_limit}
        if config.is_stepped:
            limits["message_steps"] = MESSAGE_STEPS
        longer = sum(length > settings.input_limit for length in lengths)
        cut = f", {longer:,} sequences are longer" if longer else ""
        facts += [
            (
                "lengths",
                f"{statistics.median(lengths):g} frames in the middle, {max(lengths):,} at most; "
                f"limit {settings.input_limit:,}{cut}",
            ),
            (
                "answers",
                "after each frame, too: it reads in one direction"
                if config.is_stepped
                else "of whole sequences alone: it reads from both ends",
            ),
        ]
        return Prepared(
            recipe, config, build, training, {}, limits,
            f"Labels a sequence of {len(channels)} numbers a frame as one of {len(labels)}: "
            f"{listed(labels, 8)}.",
            facts, labels, frames=FrameSpec(channels, self._frame_seconds(recipe)),
        )  # fmt: skip

    def _frame_seconds(self, recipe: Recipe) -> float:
        return recipe.data_settings(FramesData).frame_seconds

    def held_out(
        self, examples: Sequence[LabelledFrames], trained: TrainedModel
    ) -> HeldOut[Frames, Sequence[str]]:
        """Of a model that is stepped, what it says after a share of each sequence's frames, too."""
        limit = trained.limits["input_frames"]
        truth = [example.label for example in examples]
        whole = [example.frames[:limit] for example in examples]
        config = config_from_json(trained.config)
        assert isinstance(config, FrameClassifierConfig), "of this task"
        shares = SHARES if config.is_stepped else {}
        split = "whole sequences" if shares else ""
        figures = [FigureName("accuracy", "%", split), FigureName("macro F1", "%", split)]
        figures += [FigureName("accuracy", "%", f"{name} of the frames") for name in shares]
        beginnings = [
            frames[: max(1, round(part * len(frames)))]
            for part in shares.values()
            for frames in whole
        ]

        def measure(answers: Sequence[Sequence[str]]) -> list[Measurement]:
            first = [best[0] for best in answers]
            of_whole = first[: len(truth)]
            measured = [_accuracy(of_whole, truth), macro_f1(truth, of_whole)]
            for number in range(1, 1 + len(shares)):
                part = first[number * len(truth) : (number + 1) * len(truth)]
                measured.append(_accuracy(part, truth))
            return measured

        def confusion(answers: Sequence[Sequence[str]]) -> Confusion:
            return Confusion(zip(truth, (best[0] for best in answers[: len(truth)]), strict=True))

        held_out = HeldOut([*whole, *beginnings], measure, confusion, figures)
        return with_calibration(held_out, truth, split)

    @torch.no_grad()
    def validation_logits(
        self, model: Any, examples: Sequence[LabelledFrames], trained: TrainedModel
    ) -> tuple[Tensor, Tensor]:
        first = examples[: MOST_LOGITS // len(trained.labels)]
        rows = _numbered(first, trained.labels, trained.limits["input_frames"])
        found = [
            (model(frames, lengths), answers)
            for frames, lengths, answers in make_batches(rows, random.Random(0), EVALUATION_BATCH)
        ]
        logits, answers = zip(*found, strict=True)
        return torch.cat(logits), torch.cat(answers)

    @torch.no_grad()
    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[Frames],
        beam: int | None = None,
    ) -> list[Ranked]:
        found = [Ranked((), math.nan)] * len(questions)
        rows = [(frames, number) for number, frames in enumerate(questions)]
        for frames, lengths, numbers in make_batches(rows, random.Random(0), EVALUATION_BATCH):
            said = ranked(model(frames, lengths), trained.labels)
            for number, best in zip(numbers.tolist(), said, strict=True):
                found[number] = best
        return found

    def floors(
        self,
        splits: Splits[LabelledFrames],
        trained: TrainedModel,
        questions: Sequence[Frames],
    ) -> dict[str, list[Sequence[str]]]:
        labels = [example.label for example in splits.train]
        likeliest = [label for label, _ in Counter(labels).most_common(BEST)]
        near = nearest_vectors(
            [_summary(example.frames) for example in splits.train], list(map(_summary, questions))
        )
        return {
            "the most frequent label": [likeliest for _ in questions],
            "the sequence nearest in mean and spread": [[labels[number]] for number in near],
        }

    def example_to_json(self, example: LabelledFrames) -> Any:
        return {
            "frames": example.frames.tolist(),
            "label": example.label,
            "channels": list(example.channels),
        }

    def example_from_json(self, content: Any) -> LabelledFrames:
        return LabelledFrames(
            np.array(content["frames"], np.float32), content["label"], tuple(content["channels"])
        )

    def shown(self, question: Frames, answer: Sequence[str]) -> tuple[str, str]:
        last = ", ".join(f"{value:.3g}" for value in question[-1][:6])
        more = ", …" if question.shape[1] > 6 else ""
        return f"{len(question)} frames, the last one {last}{more}", ", ".join(answer)


def _accuracy(said: Sequence[str], truth: Sequence[str]) -> Measurement:
    return share([a == b for a, b in zip(said, truth, strict=True)])


def _summary(frames: Frames) -> list[float]:
    """Mean and standard deviation of each channel."""
    return [*frames.mean(axis=0).tolist(), *frames.std(axis=0).tolist()]


def _numbered(
    examples: Sequence[LabelledFrames], labels: Sequence[str], limit: int
) -> list[tuple[Frames, int]]:
    numbers = {label: number for number, label in enumerate(labels)}
    return [(example.frames[:limit], numbers[example.label]) for example in examples]


# -- rows -------------------------------------------------------------------------------------


def _sequences_of_rows(
    table: Table, settings: FramesData, label: str, bad_rows: BadRows
) -> tuple[list[LabelledFrames], str]:
    """A row a frame."""
    file = settings.files
    whose = table.column(settings.sequence_column, file, "--sequence-column")
    time = settings.time_column and table.column(settings.time_column, file, "--time-column")
    names = [name.strip() for name in settings.channels.split(",") if name.strip()]
    channels = [table.column(name, file, "--channels") for name in names]
    channels = channels or [c for c in table.columns if c not in (whose, time, label)]
    if not channels:
        raise DataInvalid(f"{file}: no column is left for numbers; name some by --channels")
    rows: dict[str, list[tuple[float, Row, list[float]]]] = {}
    for row in table.rows:
        try:
            values = [_number(row, channel) for channel in channels]
            place = row.number(time) if time else 0.0
            rows.setdefault(row.label(whose), []).append((place, row, values))
        except DataInvalid as problem:
            bad_rows.report(problem)
    found = []
    for of in rows.values():
        of.sort(key=lambda frame: frame[0])  # stable: without times, as they came
        try:
            said = _one_label([row for _, row, _ in of], label, whose)
        except DataInvalid as problem:
            bad_rows.report(problem)
            continue
        frames = np.array([values for _, _, values in of], np.float32)
        found.append(LabelledFrames(frames, said, tuple(channels)))
    told = f"sequences {whose!r}, labels {label!r}" + (f", order {time!r}" if time else "")
    return found, told


def _one_label(rows: Sequence[Row], label: str, whose: str) -> str:
    """That of all frames. Raises DataInvalid for a sequence with two."""
    first = rows[0].label(label)
    for row in rows[1:]:
        if row.label(label) != first:
            raise row.bad(
                label, f"{row.label(label)!r}, and line {rows[0].line} of the same sequence has "
                f"{first!r}", f"give each sequence, {whose!r}, one label",
            )  # fmt: skip
    return first


def _listed_sequences(
    table: Table, settings: FramesData, label: str, bad_rows: BadRows
) -> list[LabelledFrames]:
    """A row a sequence: a list of frames, each a list of numbers."""
    names = tuple(name.strip() for name in settings.channels.split(",") if name.strip())
    found: list[LabelledFrames] = []
    for row in table.rows:
        try:
            frames = _frames_of(row, settings.frames_column)
            width = found[0].frames.shape[1] if found else len(names) or frames.shape[1]
            if frames.shape[1] != width:
                raise row.bad(
                    settings.frames_column, f"{frames.shape[1]} numbers a frame",
                    f"give {width} in every frame, as before" if found or not names
                    else f"give {width}, as --channels names",
                )  # fmt: skip
            channels = names or tuple(f"channel {number}" for number in range(1, width + 1))
            found.append(LabelledFrames(frames, row.label(label), channels))
        except DataInvalid as problem:
            bad_rows.report(problem)
    return found


def _frames_of(row: Row, column: str) -> Frames:
    value = row.values.get(column)
    right = "give a list of frames, each a list of as many numbers: [[0.1, 2], [0.3, 1]]"
    try:
        if not isinstance(value, list) or not all(isinstance(frame, list) for frame in value):
            raise ValueError
        if any(type(number) not in (int, float) for frame in value for number in frame):
            raise ValueError
        frames = np.array(value, np.float64)
    except ValueError:
        raise row.bad(column, "no list of frames of one size", right) from None
    if frames.ndim != 2 or not frames.size:
        raise row.bad(column, "no frame, or frames without numbers", right)
    if not (np.abs(frames) <= MOST_NUMBER).all():
        raise row.bad(
            column, "a number that is not finite, or above a billion", "give it in a larger unit"
        )
    return frames.astype(np.float32)


def _number(row: Row, column: str) -> float:
    value = row.number(column)
    if abs(value) > MOST_NUMBER:
        raise row.bad(
            column, f"{value:g} is not from {-MOST_NUMBER:g} to {MOST_NUMBER:g}",
            "give the column in a larger unit",
        )  # fmt: skip
    return value
