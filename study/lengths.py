"""Longer sequences than any that were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.curves import Curve, draw_curves
from evaluation.text import plural, table
from study.artifact_cache import Found
from study.bins import Bin, count_bins
from study.recipes import Recipe, command_of
from study.sections import Section, Study
from study.sentences import ANY, SHORT, SPLIT, is_right, logits_of
from study.settings import Settings
from training.models.baselines import FEEDFORWARD, TextTooLong

NAME = "lengths"

TITLES = {
    f"rnn-{SHORT}": "plain RNN",
    f"gru-{SHORT}": "GRU",
    f"lstm-{SHORT}": "LSTM",
    f"lstm-{ANY}": "LSTM, any length",
    f"{FEEDFORWARD}-{SHORT}": "feed-forward",
}


def name_of(design: str) -> str:
    return f"{NAME}-{design}"


def recipes(settings: Settings) -> list[Recipe]:
    seed = settings.sentences.seeds[0]
    return [Recipe(name_of(design), NAME, "sentences", design, seed) for design in TITLES]


def measure(study: Study) -> Found:
    dataset, longest = study.trainer.sentences, study.settings.sentences.short
    edges = [longest * step // 2 for step in range(2, 7)]
    examples = [e for e in dataset.corpus.held_out if dataset.length(e) <= 3 * longest]
    designs, refused = {}, ""
    for design in TITLES:
        trained = study.cache.trained(name_of(design))
        model: Any = trained.build()
        scored = examples
        if design.startswith(FEEDFORWARD):
            scored = [e for e in examples if dataset.length(e) <= longest]
            refused = _refusal(model, dataset, examples)
        right = is_right(model, dataset.tokenizer, scored)
        answers = [(dataset.length(e), r) for e, r in zip(scored, right, strict=True)]
        designs[design] = {
            "parameters": trained.training["parameters"],
            "bins": [asdict(part) for part in count_bins(edges, answers)],
        }
    return {
        "longest": longest,
        "training": len(dataset.training_of(f"lstm-{SHORT}")),
        "designs": designs,
        "refused": refused,
        "seed": study.settings.sentences.seeds[0],
        "epochs": study.settings.sentences.epochs,
        "command": command_of(NAME, study.settings.quick),
    }


def _refusal(model: Any, dataset: Any, examples: list[Any]) -> str:
    """What the model says to the longest of ``examples``."""
    longest = max(examples, key=dataset.length)
    try:
        logits_of(model, dataset.tokenizer, [longest.text])
    except TextTooLong as error:
        return str(error)
    return ""


def _bins(found: Found, design: str) -> list[Bin]:
    return [Bin(**part) for part in found["designs"][design]["bins"]]


def render(found: Found) -> str:
    bins = {design: _bins(found, design) for design in TITLES}
    counts = bins[f"lstm-{SHORT}"]
    rows = [
        (
            part.name,
            f"{part.examples:,}",
            *(bins[design][number].text for design in TITLES),
        )
        for number, part in enumerate(counts)
    ]
    return f"""\
One function f with shared weights serves any length; with other weights at each position, the \
lecture says, a network cannot generalise to lengths it has not seen. All but one of these \
models learned from the {found["training"]:,} sentences of at most {found["longest"]} tokens and \
are judged on sentences of up to {3 * found["longest"]}. The feed-forward network has weights \
for {found["longest"]} positions, and its answer to a longer sentence is: *{found["refused"]}*.

{table(("tokens", "sentences", *(f"{title}, % right" for title in TITLES.values())), rows)}

Parts of the {SPLIT}; ± is the standard error of the share. "Any length" is trained on as many \
sentences of all lengths, so that what length alone does can be kept apart from what the short \
training does. No made sentences; {plural(found["epochs"], "epoch")}, seed {found["seed"]}. \
`{found["command"]}`"""


def draw(found: Found, path: Path) -> Path:
    curves: dict[str, Curve] = {}
    ticks: list[tuple[float, str]] = []
    for number, (design, title) in enumerate(TITLES.items()):
        parts = [part for part in _bins(found, design) if part.examples]
        shift = 0.4 * (number - 2)  # so that error bars stand beside each other
        points = [(part.high + shift, part.percent or 0.0) for part in parts]
        curves[title] = Curve(points, design.endswith(ANY), spread=[part.error for part in parts])
        ticks = max(ticks, [(part.high, part.name) for part in parts], key=len)
    return draw_curves(path, curves, "tokens of the sentence", "sentences right, %", ticks=ticks)


SECTION = Section(NAME, "Longer sequences", measure, render, recipes, draw)
