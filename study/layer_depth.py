"""Depth at equal parameters: stacked, MLPs, and MLPs with shortcuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from evaluation.curves import Curve, draw_curves
from evaluation.text import middle, table
from study.artifact_cache import Found
from study.characters import facts_of, learner_of
from study.recipes import command_of
from study.sections import Section, Study, say_rates, say_seeds
from study.teacher_forcing import batch_seconds
from training.checkpoint import TrainedModel

NAME = "depth"

DESIGNS = {
    "rnn": "shallow",
    "stacked": "(a) stacked layers",
    "mlps": "(b) MLPs",
    "mlps-skip": "(c) MLPs with shortcuts",
}


LEARNERS = {design: learner_of(design) for design in DESIGNS}


def measure(study: Study) -> Found:
    settings = study.settings.characters
    models = {design: study.trained(learner) for design, learner in LEARNERS.items()}
    return {
        "designs": [_measure_design(study, design, rows) for design, rows in models.items()],
        "batches": settings.batches,
        "parts": settings.parts,
        "seeds": settings.seeds,
        "rates": study.rates(LEARNERS.values()),
        "batch_seconds": batch_seconds(study, models),
        "command": command_of(NAME, study.settings.quick),
    }


def _measure_design(study: Study, design: str, models: Sequence[TrainedModel]) -> dict[str, Any]:
    """validation, training: the losses of each part of training, a list a seed."""
    histories = study.histories(LEARNERS[design])
    recurrent = models[0].config["recurrent"]
    return {
        "design": design,
        **facts_of(models),
        "layers": recurrent["layers"],
        "nonlinearities": 1 + recurrent["transition_mlp"],
        "validation": [history.validation_loss for history in histories],
        "training": [history.train_loss for history in histories],
    }


def render(found: Found) -> str:
    rows = (
        (
            DESIGNS[row["design"]], str(row["hidden"]), f"{row['parameters']:,}",
            str(row["nonlinearities"]), _last(row["training"]), _last(row["validation"]),
            middle(row["losses"], 3), f"{1000 * found['batch_seconds'][row['design']]:.0f}",
        )
        for row in found["designs"]
    )  # fmt: skip
    header = (
        "design", "hidden units", "parameters", "tanh between two steps", "last training loss",
        "last validation loss", "held-out loss", "CPU, ms a batch",
    )  # fmt: skip
    ranked = sorted(found["designs"], key=lambda row: median(row["losses"]))
    order = ", ".join(f"{DESIGNS[row['design']]} {median(row['losses']):.3f}" for row in ranked)
    sizes = [row["parameters"] for row in found["designs"]]
    stacked = next(row for row in found["designs"] if row["design"] == "stacked")
    first = found["designs"][0]
    return f"""\
The lecture deepens a recurrent network by (a) stacking its hidden state in layers, here \
{stacked["layers"]}, or (b) putting MLPs between input and state, state and next state, state \
and output, here one tanh layer each; the second makes the path from one time step to the next \
longer, which (c) shortcuts around the MLPs undo. All are plain tanh networks of {min(sizes):,} \
to {max(sizes):,} parameters with the same number of steps on the same text. From the lowest \
held-out loss to the highest, in nats a character: {order}.

{table(header, rows)}

Nine plays of Shakespeare by character, judged on {first["examples"]:,} of {first["split"]}; \
{found["parts"] * found["batches"]:,} batches, {say_rates(found["rates"])}; \
{say_seeds(found["seeds"])}. Curves are means of the seeds. `{found["command"]}`"""


def _last(losses: Sequence[Sequence[float]]) -> str:
    return middle([row[-1] for row in losses], 3)


def draw(found: Found, path: Path) -> Path:
    batches = found["batches"]
    curves = {
        DESIGNS[row["design"]]: Curve(
            [
                ((part + 1) * batches, mean(losses))
                for part, losses in enumerate(zip(*row["validation"], strict=True))
            ],
            marker="o",
        )
        for row in found["designs"]
    }
    return draw_curves(path, curves, "batches", "validation loss, nats a character")


SECTION = Section(
    NAME, "Depth at equal parameters", measure, render, tuple(LEARNERS.values()), draw
)
