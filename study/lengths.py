"""Longer sequences than any that were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from evaluation.curves import Curve, draw_curves
from evaluation.text import middle, table
from study.artifact_cache import Found
from study.bins import Bin, count_bins
from study.recipes import Learner, command_of
from study.sections import Section, Study, say_rates, say_seeds
from study.sentences import ANY, SHORT, SPLIT, SentenceDataset, is_right, logits_of
from training.data.sentiment import Example
from training.models.baselines import FEEDFORWARD, TextTooLong

NAME = "lengths"

TITLES = {
    f"rnn-{SHORT}": "plain RNN",
    f"gru-{SHORT}": "GRU",
    f"lstm-{SHORT}": "LSTM",
    f"lstm-{ANY}": "LSTM, any length",
    f"{FEEDFORWARD}-{SHORT}": "feed-forward",
}


LEARNERS = tuple(Learner(NAME, "sentences", design) for design in TITLES)


def measure(study: Study) -> Found:
    dataset, longest = study.trainer.sentences, study.settings.sentences.short
    edges = [longest * step // 2 for step in range(2, 7)]
    examples = [e for e in dataset.corpus.held_out if dataset.length(e) <= 3 * longest]
    designs, refused = {}, ""
    for learner in LEARNERS:
        models: list[Any] = [trained.build() for trained in study.trained(learner)]
        scored = examples
        if learner.design.startswith(FEEDFORWARD):
            scored = [e for e in examples if dataset.length(e) <= longest]
            refused = _refusal(models[0], dataset, examples)
        designs[learner.design] = [_count(dataset, model, scored, edges) for model in models]
    return {
        "longest": longest,
        "training": len(dataset.training_of(f"lstm-{SHORT}")),
        "designs": designs,
        "refused": refused,
        "rates": study.rates(LEARNERS),
        "seeds": study.settings.sentences.seeds,
        "command": command_of(NAME, study.settings.quick),
    }


def _count(
    dataset: SentenceDataset, model: Any, examples: list[Example], edges: list[int]
) -> list[dict[str, Any]]:
    right = is_right(model, dataset.tokenizer, examples)
    answers = [(dataset.length(e), r) for e, r in zip(examples, right, strict=True)]
    return [asdict(part) for part in count_bins(edges, answers)]


def _refusal(model: Any, dataset: Any, examples: list[Any]) -> str:
    """What the model says to the longest of ``examples``."""
    longest = max(examples, key=dataset.length)
    try:
        logits_of(model, dataset.tokenizer, [longest.text])
    except TextTooLong as error:
        return str(error)
    return ""


def _bins(found: Found, design: str) -> list[list[Bin]]:
    """Of each length those of every seed."""
    seeds = [[Bin(**part) for part in parts] for parts in found["designs"][design]]
    return [list(parts) for parts in zip(*seeds, strict=True)]


def _percents(parts: list[Bin]) -> list[float]:
    return [part.percent for part in parts if part.percent is not None]


def render(found: Found) -> str:
    bins = {design: _bins(found, design) for design in TITLES}
    rows = []
    for number, (part, *_) in enumerate(bins[f"rnn-{SHORT}"]):
        shares = [_percents(bins[design][number]) for design in TITLES]
        texts = [middle(percents) if percents else "–" for percents in shares]
        rows.append((part.name, f"{part.examples:,}", f"{part.error:.1f}", *texts))
    header = (
        "tokens", "sentences", "standard error", *(f"{title}, % right" for title in TITLES.values())
    )  # fmt: skip
    return f"""\
One function f with shared weights serves any length; with other weights at each position, the \
lecture says, a network cannot generalise to lengths it has not seen. All but one of these \
models learned from the {found["training"]:,} sentences of at most {found["longest"]} tokens and \
are judged on sentences of up to {3 * found["longest"]}. The feed-forward network has weights \
for {found["longest"]} positions, and its answer to a longer sentence is: *{found["refused"]}*.

{table(header, rows)}

Parts of the {SPLIT}, in percent, {say_seeds(found["seeds"])}; the standard error is that of \
the plain RNN's share of so many sentences. "Any length" is trained on as many sentences of all \
lengths, so that what length alone does can be kept apart from what the short training does. No \
made sentences; as many epochs for all, {say_rates(found["rates"])}. `{found["command"]}`"""


def draw(found: Found, path: Path) -> Path:
    curves: dict[str, Curve] = {}
    ticks: list[tuple[float, str]] = []
    for number, (design, title) in enumerate(TITLES.items()):
        bins = [parts for parts in _bins(found, design) if parts[0].examples]
        shift = 0.4 * (number - 2)  # so that error bars stand beside each other
        points = [(parts[0].high + shift, median(_percents(parts))) for parts in bins]
        errors = [median(part.error for part in parts) for parts in bins]
        curves[title] = Curve(points, design.endswith(ANY), spread=errors)
        ticks = max(ticks, [(part.high, part.name) for part, *_ in bins], key=len)
    return draw_curves(path, curves, "tokens of the sentence", "sentences right, %", ticks=ticks)


SECTION = Section(NAME, "Longer sequences", measure, render, LEARNERS, draw)
