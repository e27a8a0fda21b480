"""Numbers in time: how series go on, from their last values and what is known of each step.

A file has a row a step. Its numeric columns are series side by side, or one column is, of which
another says whose each row is. What is held out is the end of every series, what validates the
part before it: nothing that is forecast from looks behind its origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.manifest import FORECAST
from bundle.series import NEGATIVE_BINOMIAL, STUDENT_T, SeriesSpec
from bundle.time_features import Frequency, FrequencyInvalid, TimeInvalid, parse_time
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.series import Series, Window, rolling_windows
from training.forecasting import (
    MEASURES,
    SAMPLES,
    ForecastSettings,
    ForecastTask,
    floor_forecasts,
    question_of,
    sample_paths,
    score_measurements,
    score_points,
    score_samples,
    training_features,
    window_of,
)
from training.held_out import FigureName, HeldOut, SeriesQuestion
from training.measurements import Measurement
from training.models.forecaster import Forecaster, ForecasterConfig
from training.models.heads import MOST_COUNT
from training.readers import CSV, JSONL, PARQUET, TSV, BadRows, DataInvalid, Row, Table, listed
from training.splits import Splits, epochs_of, hidden_size
from training.tasks.base import DataSettings, Prepared, Task, option

GROUPS = "forecasts"
# Forecasts of a series that are held out, each a share of a horizon after the one before.
_ROLLING = 4
_LEAST_VALUES = 8  # before what validates
_MISSING = ("", "nan", "na", "null", "none")
# Differences of timestamps in seconds, and in months.
_SECONDS = {60: "min", 3600: "h", 86_400: "D", 604_800: "W"}
_MONTHS = {1: "M", 3: "Q", 12: "Y"}


@dataclass(frozen=True)
class ForecastData(DataSettings):
    time_column: str = option("time", "column of timestamps: a name, or a number from 1")
    targets: str = option("", "columns to forecast, between commas (default: all others)")
    covariates: str = option("", "columns that are known of steps to come too, between commas")
    series_column: str = option("", "column that says whose series a row is of (default: none)")
    frequency: str = option("", "how far steps are apart: min, h, D, W, M, Q, Y or 15min, …")
    context: int = option(0, "values that a forecast reads at most (default: two seasons or more)")
    horizon: int = option(0, "steps that are forecast at most (default: a season, 30 at most)")

    def named_columns(self) -> tuple[str, ...]:
        lists = (part.strip() for of in (self.targets, self.covariates) for part in of.split(","))
        return (*super().named_columns(), *filter(None, lists))


@dataclass(frozen=True)
class Example:
    """A series: its values behind ``end`` are held out, None where nobody has said so yet.

    frequency, covariates: of it, and their names.
    """

    series: Series
    frequency: str
    covariates: tuple[str, ...]
    end: int | None = None


class Forecast(Task[Example]):
    name = FORECAST
    help = "how series go on, with what is not known: CSV, TSV, JSONL or Parquet"
    data = ForecastData
    formats = (CSV, TSV, JSONL, PARQUET)
    # -- rows -------------------------------------------------------------------------------

    def examples(
        self, table: Table, settings: ForecastData, bad_rows: BadRows
    ) -> tuple[list[Example], list[tuple[str, str]]]:
        time, targets, covariates = _columns(table, settings)
        whose = settings.series_column and table.column(
            settings.series_column, settings.files, "--series-column"
        )
        rows: dict[str, dict[np.datetime64, Row]] = {}  # of each series, by their times
        for row in table.rows:
            try:
                _take(rows, row, time, whose)
            except DataInvalid as problem:
                bad_rows.report(problem)
        frequency = _frequency(rows, settings)
        found = [
            Example(
                _series(f"{name} {target}".strip(), rows[name], target, covariates, frequency),
                frequency.name,
                tuple(covariates),
            )
            for name in rows
            for target in targets
        ]
        facts = [
            ("columns", f"time {time!r}, targets {listed(targets)}"
             + (f", covariates {listed(covariates)}" if covariates else "")),
            ("frequency", f"{frequency.name}, a season of {frequency.season} steps"),
            ("series", f"{len(found):,} of {min(map(_length, found)):,} to "
             f"{max(map(_length, found)):,} steps, {_missing_share(found):.1%} missing"),
        ]  # fmt: skip
        return found, facts

    def key(self, example: Example) -> str:
        return example.series.name

    def split(
        self,
        rows: Sequence[Example],
        settings: DataSettings,
        validation: Sequence[Example] | None,
        held_out: Sequence[Example] | None,
    ) -> Splits[Example]:
        """All of every series: the horizon is not known here, and prepare() cuts them by it."""
        if validation is not None or held_out is not None:
            raise DataInvalid(
                "a forecaster validates on the end of each series; leave --validation and "
                "--held-out, and give one file with all values"
            )
        return Splits(rows, rows, rows, ("by time: the end of every series is held out",))

    # -- learning and measuring -------------------------------------------------------------

    def prepare(self, recipe: Recipe, splits: Splits[Example], seed: int) -> Prepared:
        recipe, facts = _choose(recipe, splits.train)
        return self.prepared(recipe, splits, seed, facts)

    def prepared(
        self,
        recipe: Recipe,
        splits: Splits[Example],
        seed: int,
        facts: Sequence[tuple[str, str]],
    ) -> Prepared:
        """By a recipe that leaves nothing open."""
        first, settings = splits.train[0], recipe.task_settings(ForecastSettings)
        past = [example.series.before(_end(example, settings)) for example in splits.train]
        spec = SeriesSpec(
            first.frequency,
            recipe.model["distribution"],
            first.covariates,
            settings.calendar,
            settings.least_context,
        )
        least = settings.horizon + settings.least_context
        learnt = [s.before(len(s) - settings.horizon) if len(s) >= least else s for s in past]
        training = ForecastTask(spec, learnt, past, settings, seed)
        config = recipe.config(ForecasterConfig, features=spec.features_size)

        def build(config: ForecasterConfig) -> Forecaster:
            model = Forecaster(config)
            model.standardise(training_features(training))
            return model

        others = f" and {len(splits.train) - 1:,} others" if len(splits.train) > 1 else ""
        return Prepared(
            recipe, config, build, training, {},
            {"context": settings.context, "horizon": settings.horizon},
            f"Forecasts {settings.horizon} steps of {first.series.name!r}{others}.",
            facts, series=spec,
        )  # fmt: skip

    def held_out(
        self, examples: Sequence[Example], trained: TrainedModel
    ) -> HeldOut[SeriesQuestion, NDArray[Any]]:
        windows, horizon = _windows(examples, trained), trained.limits["horizon"]
        return held_out_forecasts([("", windows, horizon)], trained)

    def answers(
        self,
        model: Any,
        trained: TrainedModel,
        questions: Sequence[SeriesQuestion],
        beam: int | None = None,
    ) -> list[NDArray[Any]]:
        assert trained.series is not None, "a forecaster has one"
        found: list[NDArray[Any]] = []
        for horizon, some in groupby(questions, key=lambda question: question.horizon):
            settings = ForecastSettings(
                trained.limits["context"], horizon, trained.series.least_context, 1, 1,
                trained.series.calendar, SAMPLES,
            )  # fmt: skip
            windows = [window_of(question) for question in some]
            found += list(sample_paths(model, windows, trained.series, settings))
        return found

    def floors(
        self, splits: Splits[Example], trained: TrainedModel, questions: Sequence[SeriesQuestion]
    ) -> dict[str, list[Any]]:
        return {**floor_forecasts(questions, Frequency(splits.held_out[0].frequency).season)}

    def example_to_json(self, example: Example) -> Any:
        series = example.series
        covariates = None if series.covariates is None else series.covariates.tolist()
        return {
            "name": series.name,
            "values": [None if math.isnan(value) else value for value in series.values.tolist()],
            "start": None if series.start is None else str(series.start),
            "covariates": covariates,
            "frequency": example.frequency,
            "names": list(example.covariates),
            "end": example.end,
        }

    def example_from_json(self, content: Any) -> Example:
        covariates = content["covariates"]
        series = Series(
            content["name"],
            np.array([math.nan if v is None else v for v in content["values"]]),
            None if content["start"] is None else parse_time(content["start"]),
            None if covariates is None else np.array(covariates),
        )
        return Example(series, content["frequency"], tuple(content["names"]), content["end"])

    def shown(self, question: SeriesQuestion, answer: NDArray[Any]) -> tuple[str, str]:
        last = ", ".join(f"{value:.4g}" for value in question.values[-12:])
        return f"… {last}", ", ".join(f"{value:.4g}" for value in np.median(answer, axis=0))


def held_out_forecasts(
    parts: Sequence[tuple[str, Sequence[Window], int]], trained: TrainedModel
) -> HeldOut[SeriesQuestion, NDArray[Any]]:
    """parts: of what is held out the split's name, the forecasts and their horizon.

    An answer of one sample is a point.
    """
    assert trained.series is not None, "a forecaster has one"
    spec, season = trained.series, Frequency(trained.series.frequency).season

    def measure(answers: Sequence[NDArray[Any]]) -> list[Measurement]:
        left, measured = iter(answers), list[Measurement]()
        for _, windows, _ in parts:
            paths = np.stack([next(left) for _ in windows])
            score = score_points if paths.shape[1] == 1 else score_samples
            measured += score_measurements(
                score(windows, paths[:, 0] if score is score_points else paths, season), GROUPS
            )
        return measured

    questions = [question_of(w, horizon, spec) for _, windows, horizon in parts for w in windows]
    figures = [FigureName(name, unit, split) for split, _, _ in parts for name, unit in MEASURES]
    return HeldOut(questions, measure, figures=figures)


# -- rows -------------------------------------------------------------------------------------


def _columns(table: Table, settings: ForecastData) -> tuple[str, list[str], list[str]]:
    """Of the times, the targets and the covariates."""
    file = settings.files
    time = table.column(settings.time_column, file, "--time-column")
    covariates = [table.column(name, file, "--covariates") for name in _names(settings.covariates)]
    targets = [table.column(name, file, "--targets") for name in _names(settings.targets)]
    taken = {time, *covariates, settings.series_column}
    targets = targets or [column for column in table.columns if column not in taken]
    if not targets:
        raise DataInvalid(f"{file}: no column is left to forecast; name one by --targets")
    return time, targets, covariates


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _take(rows: dict[str, dict[np.datetime64, Row]], row: Row, time: str, whose: str) -> None:
    """Put a row in its place. Raises DataInvalid for no time, and for one that comes twice."""
    text = str(row.values.get(time) or "")
    try:
        found = parse_time(text)
    except TimeInvalid as error:
        raise row.bad(time, str(error), "give the time of each row") from None
    of = rows.setdefault(row.label(whose) if whose else "", {})
    if found in of:
        raise row.bad(
            time, f"{text!r} is there already, in line {of[found].line}",
            "give each time once; where rows are of several series, say by --series-column whose",
        )  # fmt: skip
    of[found] = row


def _frequency(
    rows: Mapping[str, Mapping[np.datetime64, Row]], settings: ForecastData
) -> Frequency:
    """What the settings say, or the smallest step between two rows of a series."""
    try:
        if settings.frequency:
            return Frequency(settings.frequency)
    except FrequencyInvalid as error:
        raise DataInvalid(str(error)) from None
    steps = [step for of in rows.values() for step in np.diff(np.array(sorted(of)))]
    if not steps:
        raise DataInvalid(f"{settings.files} has no series of two rows; give more, or --frequency")
    seconds = int(min(steps).astype(np.int64))
    for months, unit in _MONTHS.items():
        if 28 * months <= seconds / 86_400 <= 31 * months + (months > 1):
            return Frequency(unit)
    for size, unit in sorted(_SECONDS.items(), reverse=True):
        if seconds >= size and not seconds % size:
            return Frequency(unit if seconds == size else f"{seconds // size}{unit}")
    raise DataInvalid(
        f"{settings.files}: the shortest step between two rows is {seconds} s, which is no whole "
        "number of minutes; give --frequency, or rows at even steps"
    )


def _series(
    name: str,
    rows: Mapping[np.datetime64, Row],
    target: str,
    covariates: Sequence[str],
    frequency: Frequency,
) -> Series:
    """With NaN for a row that is not there. Raises DataInvalid for one between two steps."""
    times = sorted(rows)
    start, count = times[0], 1
    while frequency.times(start, count - 1, 1)[0] < times[-1]:
        count *= 2
    places = {time: n for n, time in enumerate(frequency.times(start, 0, count).tolist())}
    for time in times:
        if time.item() not in places:
            raise rows[time].bad(
                "time", f"{time} is no step of {frequency.name!r} after {start}",
                "give rows at even steps, or the right --frequency",
            )  # fmt: skip
    length = places[times[-1].item()] + 1
    values = np.full(length, np.nan)
    beside = np.zeros((length, len(covariates)))
    seen = np.zeros(length, bool)
    for time, row in rows.items():
        place = places[time.item()]
        seen[place] = True
        values[place] = _number(row, target)
        beside[place] = [row.number(column) for column in covariates]
    if covariates and not seen.all():
        missing = frequency.times(start, int(np.flatnonzero(~seen)[0]), 1)[0]
        raise DataInvalid(
            f"{rows[times[0]].file}: the row of {missing} is not there, and covariates are known "
            "of every step; give it, its targets may be empty"
        )
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise rows[times[0]].bad(target, "no number in any row", "give one, or another column")
    end = int(known[-1]) + 1
    return Series(name or target, values[:end], start, beside[:end] if covariates else None)


def _number(row: Row, column: str) -> float:
    """NaN where nothing is there."""
    value = row.values.get(column)
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    return row.number(column)


def _length(example: Example) -> int:
    return len(example.series)


def _missing_share(examples: Sequence[Example]) -> float:
    missing = sum(int(np.isnan(example.series.values).sum()) for example in examples)
    return missing / sum(map(_length, examples))


# -- choices ----------------------------------------------------------------------------------


def _choose(recipe: Recipe, examples: Sequence[Example]) -> tuple[Recipe, list[tuple[str, str]]]:
    """What the recipe leaves to the data. Raises DataInvalid for series that are too short."""
    data = recipe.data_settings(ForecastData)
    season = Frequency(examples[0].frequency).season
    longest = max(map(_length, examples))
    horizon = data.horizon or min(season if season > 1 else 6, 30, max(1, longest // 6))
    context = data.context or max(2 * season + 1, 4 * horizon, 24)
    context = min(context, max(1, longest - 3 * horizon))
    lags = sorted({2, 3, season - 1, season, season + 1, 2 * season} - {0, 1})
    recipe = recipe.chosen(
        {
            "task.horizon": horizon,
            "task.context": context,
            "task.least_context": max(1, min(context, season + 1)),
            "task.calendar": bool(Frequency(examples[0].frequency).calendar),
            "model.distribution": _distribution(examples),
            "model.lags": [lag for lag in lags if lag < context] or [2],
        }
    )
    settings = recipe.task_settings(ForecastSettings)
    least = 3 * settings.horizon + max(settings.least_context, _LEAST_VALUES)
    if longest < least:
        raise DataInvalid(
            f"the longest series has {longest} values; a horizon of {settings.horizon} takes "
            f"{least}, of which two horizons are held out and one validates: give more, or a "
            "smaller --horizon"
        )
    hidden = hidden_size(sum(map(_length, examples)))
    windows = settings.batch * settings.batches
    recipe = recipe.chosen(
        {"model.recurrent.hidden_size": hidden, "fit.epochs": epochs_of(settings.batches)}
    )
    facts = [
        ("context", f"{settings.least_context} to {settings.context} values are read"),
        ("horizon", f"{settings.horizon} steps, {recipe.model['distribution']}"),
        ("windows", f"{windows:,} an epoch"),
    ]
    return recipe, facts


def _distribution(examples: Sequence[Example]) -> str:
    """Counts where all values are small whole numbers from 0 on."""
    for example in examples:
        there = example.series.values[~np.isnan(example.series.values)]
        if (there < 0).any() or (there != np.floor(there)).any() or there.max() > MOST_COUNT / 8:
            return STUDENT_T
    return NEGATIVE_BINOMIAL


def _end(example: Example, settings: ForecastSettings) -> int:
    """Values that are not held out: two horizons are, of a series that is long enough."""
    if example.end is not None:
        return example.end
    least = 3 * settings.horizon + max(settings.least_context, _LEAST_VALUES)
    length = len(example.series)
    return length - 2 * settings.horizon if length >= least else length


def _windows(examples: Sequence[Example], trained: TrainedModel) -> list[Window]:
    """Forecasts of what is held out, from several origins."""
    assert trained.series is not None, "a forecaster has one"
    limits = trained.limits
    settings = ForecastSettings(
        limits["context"], limits["horizon"], trained.series.least_context, 1, 1, False, 1
    )
    series = [example.series for example in examples]
    ends = [_end(example, settings) for example in examples]
    stride = max(1, settings.horizon // _ROLLING)
    return rolling_windows(series, ends, settings.horizon, stride)
