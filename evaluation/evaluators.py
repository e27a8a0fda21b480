"""Each task's way to ask a served model the questions of its held-out split.

Data, splits and measures are the training's (training/held_out.py); the model is the
bundle that is served, and no PyTorch model takes part. A new model of a known task is asked as
the others are; a new task is an Evaluator and a line of EVALUATORS.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.manifest import (
    CLASSIFY,
    FILL,
    FORECAST,
    GENERATE,
    INT8,
    SEQ2SEQ,
    TAG,
    VEC2SEQ,
    FigureSpec,
)
from bundle.store import Bundle
from bundle.time_features import Frequency
from evaluation.calls import in_calls, written
from evaluation.results import Floor, Result, check
from export.bundles import trained_from_bundle
from export.quality import SteppedModel
from training.forecasting import SAMPLES, floor_forecasts
from training.held_out import BEST, WORDS, Confusion, HeldOut, Ranked, SeriesQuestion
from training.likelihood import nats_of
from training.task_run import held_out_examples
from unroll import Client, Series

_CALLS = 4  # forecasts at a time

Key = TypeVar("Key", int, str)


@dataclass(frozen=True)
class Evaluator:
    """ask: client, model's name, questions, beam's width → the answers, in the same order.

    ask_graph: the same of a step graph in a bundle, in this process; of a task whose questions no
    call of the service answers with its step graphs.
    floors: what answers the questions without a network and without what was trained on, by name;
    of other tasks the training measured it.
    """

    ask: Callable[[Client, str, Sequence[Any], int], list[Any]]
    ask_graph: Callable[[Bundle, str, Sequence[Any]], list[Any]] | None = None
    floors: Callable[[Bundle, Sequence[Any]], dict[str, list[Any]]] | None = None


def held_out_of(bundle: Bundle, data: Path) -> HeldOut[Any, Any] | None:
    """The questions of what was held out of the model's training: by the recipe of a bundled model,
    or as the run of another keeps it; None of neither.

    Raises DataUnavailable where its package cannot be had.
    """
    trained = trained_from_bundle(bundle)
    examples = held_out_examples(trained, data)
    return None if examples is None else examples.questions(trained)


def evaluate(
    client: Client, bundle: Bundle, held_out: HeldOut[Any, Any], claims: Sequence[FigureSpec]
) -> tuple[list[Result], Confusion]:
    """The claims measured through the service, those of one beam together, and which labels the
    model took for which.
    """
    manifest, results, confusion = bundle.manifest, list[Result](), Confusion()
    evaluator = EVALUATORS[manifest.task]
    for beam, figures in _grouped(claims, lambda claim: claim.beam or 1):
        answers = evaluator.ask(client, manifest.name, held_out.questions, beam)
        results += check(figures, held_out.measure(answers))
        if held_out.confusion:
            confusion.update(held_out.confusion(answers))
    return results, confusion


def evaluate_graphs(
    bundle: Bundle, held_out: HeldOut[Any, Any], claims: Sequence[FigureSpec]
) -> list[Result]:
    """The claims of step graphs, measured with the graph of each one's precision.

    Raises TypeError for a task whose questions the service answers.
    """
    ask = EVALUATORS[bundle.manifest.task].ask_graph
    if ask is None:
        raise TypeError(f"the service answers questions of the task {bundle.manifest.task!r}")
    results = []
    for precision, figures in _grouped(claims, lambda claim: claim.precision):
        instead = bundle.manifest.precisions[INT8].graphs if precision == INT8 else {}
        answers = ask(bundle, instead.get("step", "step"), held_out.questions)
        results += check(figures, held_out.measure(answers))
    return results


def measure_floors(bundle: Bundle, held_out: HeldOut[Any, Any]) -> list[Floor]:
    """What the figures are by other means, measured here and now; nothing of a task whose floors
    need what was trained on."""
    floors = EVALUATORS[bundle.manifest.task].floors
    if floors is None:
        return []
    return [
        Floor(figure, by, measurement)
        for by, answers in floors(bundle, held_out.questions).items()
        for figure, measurement in zip(held_out.figures, held_out.measure(answers), strict=True)
    ]


def _grouped(
    claims: Sequence[FigureSpec], key: Callable[[FigureSpec], Key]
) -> Iterable[tuple[Key, list[FigureSpec]]]:
    groups: dict[Key, list[FigureSpec]] = defaultdict(list)
    for claim in claims:
        groups[key(claim)].append(claim)
    return groups.items()


def claims_of(bundle: Bundle, precision: str) -> list[FigureSpec]:
    """What an int8 bundle says of its step graphs, of one of the two."""
    spec = bundle.manifest.precisions.get(INT8)
    return [figure for figure in spec.figures if figure.precision == precision] if spec else []


def _classify(
    client: Client, model: str, questions: Sequence[str | NDArray[Any]], beam: int
) -> list[Ranked]:
    """questions: texts, or sequences of frames."""

    def ask(part: Sequence[Any]) -> list[Ranked]:
        is_text = isinstance(part[0], str)
        rows = client.classify(model, part) if is_text else client.classify(model, frames=part)
        return [_ranked(row.labels[:BEST]) for row in rows]

    return in_calls(ask, questions, len)


def _tag(client: Client, model: str, texts: Sequence[list[str]], beam: int) -> list[list[str]]:
    def ask(part: Sequence[list[str]]) -> list[list[str]]:
        return [[token.label for token in text.tokens] for text in client.tag(model, part)]

    return in_calls(ask, texts, lambda tokens: sum(map(len, tokens)))


def _fill(client: Client, model: str, texts: Sequence[str], beam: int) -> list[Ranked]:
    def ask(part: Sequence[str]) -> list[Ranked]:
        return [_ranked(blank.words) for blank in client.fill(model, part, top=WORDS)]

    return in_calls(ask, texts, len)


def _ranked(best: Sequence[tuple[str, float]]) -> Ranked:
    return Ranked([name for name, _ in best], best[0][1])


def _score(
    client: Client, model: str, texts: Sequence[tuple[str, int]], beam: int
) -> list[list[float]]:
    def ask(part: Sequence[tuple[str, int]]) -> list[list[float]]:
        scored = client.score(model, [text for text, _ in part])
        return [
            [-(token.log_probability or 0.0) for token in row.tokens[read:]]
            for (_, read), row in zip(part, scored, strict=True)
        ]

    return in_calls(ask, texts, lambda question: len(question[0]))


def _score_graph(bundle: Bundle, graph: str, texts: Sequence[tuple[str, int]]) -> list[list[float]]:
    """Score reads in fp32 always, whatever is served."""
    reader = bundle.tokenizers["input"]
    rows = [(torch.tensor(reader.encode(text).ids), read) for text, read in texts]
    return [nats.tolist() for nats in nats_of(SteppedModel(bundle.folder, graph), rows)]


def _write_of_source(client: Client, model: str, sources: Sequence[str], beam: int) -> list[str]:
    return written(client, model, [{"source": source} for source in sources], beam)


def _write_of_vector(
    client: Client, model: str, vectors: Sequence[Sequence[float]], beam: int
) -> list[str]:
    return written(client, model, [{"vector": vector} for vector in vectors], beam)


def _forecast(
    client: Client, model: str, questions: Sequence[SeriesQuestion], beam: int
) -> list[NDArray[Any]]:
    """Each by itself: others of a request have one horizon."""

    def ask(question: SeriesQuestion) -> NDArray[Any]:
        series = Series(question.values, question.start, question.covariates)
        chunks = client.forecast(model, [series], horizon=question.horizon, samples=SAMPLES, seed=0)
        return np.array([step.samples for chunk in chunks for step in chunk.steps]).T

    with ThreadPoolExecutor(_CALLS) as pool:
        return list(pool.map(ask, questions))


def _forecast_floors(
    bundle: Bundle, questions: Sequence[SeriesQuestion]
) -> dict[str, list[NDArray[Any]]]:
    series = bundle.manifest.series
    assert series is not None, "a forecaster has one"
    return floor_forecasts(questions, Frequency(series.frequency).season)


EVALUATORS: dict[str, Evaluator] = {
    CLASSIFY: Evaluator(_classify),
    TAG: Evaluator(_tag),
    FILL: Evaluator(_fill),
    GENERATE: Evaluator(_score, _score_graph),
    SEQ2SEQ: Evaluator(_write_of_source),
    VEC2SEQ: Evaluator(_write_of_vector),
    FORECAST: Evaluator(_forecast, floors=_forecast_floors),
}
