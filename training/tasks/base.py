"""What a task is to training: the files it reads, what it makes of their rows, and how it learns.

A task is a module beside this one with a Task, a line of TASKS (training/tasks/__init__.py) and
its default recipe, ``training/recipes/tasks/NAME.toml``, which has every key with an explanation.
It owns its batches and loss (a TrainingTask), its measures on held-out rows and their floors.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from bundle.frames import FrameSpec
from bundle.series import SeriesSpec
from bundle.tokenizer import Tokenizer
from training.calibration import calibrate
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.packages import DataPackage
from training.held_out import HeldOut
from training.loop import FitSettings, History, TrainingTask
from training.models import Config
from training.readers import BadRows, DataInvalid, Table, digest_of, read_files
from training.run import Run
from training.splits import Shares, Splits, split_rows

Example = TypeVar("Example")

HEADER = ("auto", "yes", "no")


def option(default: Any, help: str) -> Any:
    """A key of ``[data]`` that is a flag of its task's command too."""
    return field(default=default, metadata={"help": help})


def data_name(recipe: Recipe) -> str:
    """What a description calls the data: the file, without its folders."""
    return Path(str(recipe.data.get("files", recipe.path))).name


@dataclass(frozen=True)
class DataSettings:
    """The table ``[data]`` of every task. ``validation_share`` and ``held_out_share`` are of the
    different rows.

    files: a name, or a pattern with ``*``. most: rows that are read, 0 for all of them.
    """

    files: str = ""
    validation: str = option("", "file of what validates (default: a tenth of --data)")
    held_out: str = option("", "file of what is held out (default: a tenth of --data)")
    format: str = option("", "format of the files (default: by their ending)")
    header: str = option("auto", "whether the first line is a header: auto, yes or no")
    skip_bad: int = option(0, "bad rows that are left out before one is an error (default: 0)")
    licence: str = option("", "licence of the data, for the manifest (default: not stated)")
    description: str = option("", "sentence that says what the model does (default: the task's)")
    validation_share: float = 0.1
    held_out_share: float = 0.1
    most: int = 0

    def named_columns(self) -> tuple[str, ...]:
        """The columns that are chosen by name or number."""
        return tuple(
            value
            for name, value in dataclasses.asdict(self).items()
            if name.endswith("_column") and value
        )


@dataclass(frozen=True)
class Flag:
    """A flag of a task's command that sets ``key`` of the recipe: to ``value``, or where that is
    None to the text that follows it."""

    key: str
    help: str
    value: Any = None


@dataclass(frozen=True)
class Prepared:
    """All that training needs of a recipe and rows, and what a bundle says of them.

    recipe: with nothing left to choose. build: the untrained model of ``config``. facts: what
    was inferred, (what, value) each, printed first. fit: how the run trains it, where that is in
    more stages than one. finish: what is done to the trained model.
    """

    recipe: Recipe
    config: Config
    build: Callable[[Any], Any]
    training: TrainingTask[Any]
    tokenizers: Mapping[str, Tokenizer]
    limits: Mapping[str, int]
    description: str
    facts: Sequence[tuple[str, str]]
    labels: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    series: SeriesSpec | None = None
    frames: FrameSpec | None = None
    fit: Callable[[Run, FitSettings], tuple[Any, History]] | None = None
    finish: Callable[[Any], None] = lambda model: None


class Task(ABC, Generic[Example]):
    """name: as the manifest has it. command: that trains it on files, and its default recipe; the
    name where one task has one way to come. help: a noun phrase. data: the table ``[data]``.
    formats: that it reads. flags: of its command, by name, beside those of ``[data]``.
    beams: widths of the beam searches that its figures are measured by; None where nothing is
    decoded. packages: of a bundled model, the data it learns.
    """

    name: ClassVar[str]
    command: ClassVar[str]
    help: ClassVar[str]
    data: ClassVar[type[DataSettings]] = DataSettings
    formats: ClassVar[tuple[str, ...]]
    flags: ClassVar[Mapping[str, Flag]] = {}
    beams: ClassVar[tuple[int | None, ...]] = (None,)
    packages: ClassVar[tuple[DataPackage, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls) and "command" not in vars(cls):
            cls.command = cls.name

    # -- rows -------------------------------------------------------------------------------

    @abstractmethod
    def examples(
        self, table: Table, settings: Any, bad_rows: BadRows
    ) -> tuple[list[Example], list[tuple[str, str]]]:
        """What is learnt of a file's rows, and what was inferred: (what, value) each.

        Raises DataInvalid.
        """

    @abstractmethod
    def key(self, example: Example) -> str:
        """What an example is about: those with equal keys are in one part of the split."""

    def has_header(self, settings: Any) -> bool:
        """Whether the first line of CSV and TSV names the columns."""
        if settings.header != "auto":
            return bool(settings.header == "yes")
        return not any(column.lstrip("-").isdigit() for column in settings.named_columns())

    def read(self, recipe: Recipe) -> tuple[Splits[Example], list[tuple[str, str]]]:
        """The rows of the recipe's files in their parts, and what was inferred of them.

        Raises DataInvalid, and RecipeInvalid for a table ``[data]`` that is none.
        """
        settings = recipe.data_settings(self.data)
        if settings.header not in HEADER:
            raise DataInvalid(f"header is {settings.header!r}; choose one of {', '.join(HEADER)}")
        for name in ("validation_share", "held_out_share"):
            if not 0 < getattr(settings, name) < 0.5:
                raise DataInvalid(f"{name} is {getattr(settings, name)}; choose 0 to 0.5")
        bad_rows = BadRows(settings.skip_bad)
        rows, facts = self._read_one(settings.files, settings, bad_rows)
        if settings.most and len(rows) > settings.most:
            facts.append(("rows", f"the first {settings.most:,} of {len(rows):,}"))
            rows = rows[: settings.most]
        else:
            facts.append(("rows", f"{len(rows):,}"))
        apart = [
            self._read_one(files, settings, bad_rows)[0] if files else None
            for files in (settings.validation, settings.held_out)
        ]
        if bad_rows.count:
            facts.append(("bad rows", f"{bad_rows.count} left out: {'; '.join(bad_rows.examples)}"))
        splits = self.split(rows, settings, *apart)
        facts += [("split", note) for note in splits.notes]
        return splits, facts

    def split(
        self,
        rows: Sequence[Example],
        settings: DataSettings,
        validation: Sequence[Example] | None,
        held_out: Sequence[Example] | None,
    ) -> Splits[Example]:
        shares = Shares(settings.validation_share, settings.held_out_share)
        return split_rows(rows, self.key, shares, validation, held_out)

    def _read_one(
        self, files: str, settings: DataSettings, bad_rows: BadRows
    ) -> tuple[list[Example], list[tuple[str, str]]]:
        table = read_files(
            files, settings.format, self.formats, self.has_header(settings), bad_rows
        )
        examples, facts = self.examples(table, settings, bad_rows)
        if not examples:
            raise DataInvalid(f"{files} has no row that can be learnt from")
        return examples, [*(("file", f"{files}, {note}") for note in table.notes), *facts]

    # -- learning and measuring -------------------------------------------------------------

    @abstractmethod
    def prepare(self, recipe: Recipe, splits: Splits[Example], seed: int) -> Prepared:
        """The recipe's choices made for these rows. Raises DataInvalid or RecipeInvalid."""

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Example], trained: TrainedModel
    ) -> TrainedModel:
        """What is chosen for the trained ``model`` by what validates: its weights may change.

        trained: what is known of it but its weights; the same with what has changed.
        """
        return trained

    @abstractmethod
    def held_out(self, examples: Sequence[Example], trained: TrainedModel) -> HeldOut[Any, Any]:
        """The held-out examples as questions, and what answers to them are worth."""

    @abstractmethod
    def answers(
        self, model: Any, trained: TrainedModel, questions: Sequence[Any], beam: int | None = None
    ) -> list[Any]:
        """What ``model`` answers: PyTorch's, or what is called like it. trained: of whom it is.
        beam: one of ``beams``.
        """

    def split_name(self, split: str, beam: int | None) -> str:
        """Of what is held out, as figures measured by ``beam`` name it."""
        return split

    @abstractmethod
    def floors(
        self, splits: Splits[Example], trained: TrainedModel, questions: Sequence[Any]
    ) -> dict[str, list[Any]]:
        """What answers the questions without a network, learnt from the training rows: the answers
        by the name of each way."""

    def example_from_json(self, content: Any) -> Example:
        """The inverse of example_to_json: a run on files keeps what it held out."""
        raise NotImplementedError

    def example_to_json(self, example: Example) -> Any:
        return dataclasses.asdict(example)  # type: ignore[call-overload]

    def sources(self, recipe: Recipe) -> tuple[dict[str, str], ...]:
        """What a manifest records of the data: of packages, or of the files of a recipe."""
        if self.packages:
            return tuple(package.describe() for package in self.packages)
        settings = recipe.data_settings(self.data)
        return (
            {
                "package": Path(settings.files).name,
                "version": "a file of its own",
                "sha256": digest_of(settings.files),
                "licence": settings.licence or "not stated",
            },
        )

    def pictures(
        self, trained: TrainedModel, held_out: HeldOut[Any, Any], folder: Path
    ) -> list[tuple[str, str]]:
        """Draws into ``folder`` what a card shows beside the losses: (title, file) each."""
        return []

    def shown(self, question: Any, answer: Any) -> tuple[str, str]:
        """A question and its answer as a card shows them."""
        return str(question), str(answer)


class CalibratedTask(Task[Example]):
    """A task whose model answers with one of its labels, as likely as it says: calibrated on what
    validates, unless the recipe's ``[task]`` has ``calibrated = false``."""

    @abstractmethod
    def validation_logits(
        self, model: Any, examples: Sequence[Any], trained: TrainedModel
    ) -> tuple[Tensor, Tensor]:
        """(questions, labels) and the numbers of the right labels (questions,), of so many of
        ``examples`` as make MOST_LOGITS."""

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Any], trained: TrainedModel
    ) -> TrainedModel:
        if not recipe.task.get("calibrated", True):
            return trained
        logits, answers = self.validation_logits(model, splits.validation, trained)
        return trained.with_facts(calibrate(model, logits, answers))
