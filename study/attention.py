"""Sequence to sequence without and with attention: how long a word one vector can hold."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.curves import Curve, draw_curves
from evaluation.text import plural, table
from study.artifact_cache import Found
from study.bins import Bin, count_bins
from study.recipes import Learner, command_of
from study.sections import Section, Study, say_rates
from study.spelling import SPLIT, WITH, WITHOUT, right_by_length

NAME = "attention"

TITLES = {WITHOUT: "without attention", WITH: "with attention"}

_EDGES = (4, 6, 8, 10, 12, 20)


LEARNERS = {design: Learner(NAME, "spelling", design) for design in TITLES}


def measure(study: Study) -> Found:
    dataset = study.trainer.spelling
    designs = {}
    for design, learner in LEARNERS.items():
        (trained,) = study.trained(learner)
        model: Any = trained.build()
        right = right_by_length(model, dataset.source, dataset.target, dataset.splits["held-out"])
        answers = [(length, is_right) for length, row in right.items() for is_right in row]
        designs[design] = {
            "parameters": trained.training["parameters"],
            "hidden": trained.config["recurrent"]["hidden_size"],
            "accuracy": trained.figures[0].value,
            "bins": [asdict(part) for part in count_bins(_EDGES, answers)],
        }
    return {
        "designs": designs,
        "words": len(dataset.splits["train"]),
        "held_out": len(dataset.splits["held-out"]),
        "epochs": study.settings.spelling.epochs,
        "seed": study.settings.spelling.seeds[0],
        "rates": study.rates(LEARNERS.values()),
        "command": command_of(NAME, study.settings.quick),
    }


def _bins(found: Found, design: str) -> list[Bin]:
    return [Bin(**part) for part in found["designs"][design]["bins"]]


def render(found: Found) -> str:
    designs = found["designs"]
    bins = {design: _bins(found, design) for design in TITLES}
    rows: list[tuple[str, ...]] = [
        (left.name, f"{left.examples:,}", left.text, right.text)
        for left, right in zip(bins[WITHOUT], bins[WITH], strict=True)
    ]
    whole = [f"{designs[design]['accuracy']:.1f}" for design in (WITHOUT, WITH)]
    rows.append(("all", f"{found['held_out']:,}", *whole))
    header = ("letters", "words", *(f"{TITLES[d]}, % right" for d in (WITHOUT, WITH)))
    sizes = ", ".join(
        f"{TITLES[design]} {row['parameters']:,} ({row['hidden']} hidden units)"
        for design, row in designs.items()
    )
    return f"""\
Without attention the encoder hands the decoder one state of fixed size, whatever the length of \
the source: the lecture's lossy summary. With attention the decoder looks back at every letter. \
A word is right when its phones are one of its listed pronunciations; {whole[0]} % of all \
held-out words were without attention, {whole[1]} % with it.

{table(header, rows)}

Letters to phones on CMUdict: {found["words"]:,} headwords train for \
{plural(found["epochs"], "epoch")}; {found["held_out"]:,} of {SPLIT} are held out; ± is the \
standard error of the share. Parameters: {sizes}. Two LSTMs, {say_rates(found["rates"])}; \
one run each, seed {found["seed"]}: what is between them is far more than a seed changes. \
`{found["command"]}`"""


def draw(found: Found, path: Path) -> Path:
    curves = {}
    for design, title in TITLES.items():
        parts = [part for part in _bins(found, design) if part.examples]
        points = [(part.high, part.percent or 0.0) for part in parts]
        curves[title] = Curve(points, spread=[part.error for part in parts])
    ticks = [(part.high, part.name) for part in parts]
    return draw_curves(path, curves, "letters of the word", "words right, %", ticks=ticks)


SECTION = Section(
    NAME, "Sequence to sequence, and attention", measure, render, tuple(LEARNERS.values()), draw
)
