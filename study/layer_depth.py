"""Depth at equal parameters: stacked, MLPs, and MLPs with shortcuts."""

from __future__ import annotations

from pathlib import Path

from evaluation.curves import Curve, draw_curves
from evaluation.text import table
from study.artifact_cache import Found
from study.characters import name_of, recipes_of
from study.recipes import Recipe, command_of
from study.sections import Section, Study
from study.settings import Settings

NAME = "depth"

DESIGNS = {
    "rnn": "shallow",
    "stacked": "(a) stacked layers",
    "mlps": "(b) MLPs",
    "mlps-skip": "(c) MLPs with shortcuts",
}


def recipes(settings: Settings) -> list[Recipe]:
    return recipes_of(DESIGNS, settings)


def measure(study: Study) -> Found:
    settings = study.settings.characters
    designs = []
    for design in DESIGNS:
        trained, history = (
            study.cache.trained(name_of(design)),
            study.cache.history(name_of(design)),
        )
        (figure,) = trained.figures
        recurrent = trained.config["recurrent"]
        designs.append(
            {
                "design": design,
                "parameters": trained.training["parameters"],
                "hidden": recurrent["hidden_size"],
                "layers": recurrent["layers"],
                "nonlinearities": 1 + recurrent["transition_mlp"],
                "loss": figure.value,
                "examples": figure.examples,
                "split": figure.split,
                "validation": history.validation_loss,
                "training": history.train_loss,
                "seconds": history.seconds,
            }
        )
    return {
        "designs": designs,
        "batches": settings.batches,
        "parts": settings.parts,
        "seed": settings.seed,
        "command": command_of(NAME, study.settings.quick),
    }


def render(found: Found) -> str:
    rows = (
        (
            DESIGNS[row["design"]], str(row["hidden"]), f"{row['parameters']:,}",
            str(row["nonlinearities"]), f"{row['training'][-1]:.3f}",
            f"{row['validation'][-1]:.3f}", f"{row['loss']:.3f}",
            f"{row['seconds']:.0f}",
        )
        for row in found["designs"]
    )  # fmt: skip
    header = (
        "design", "hidden units", "parameters", "tanh between two steps", "last training loss",
        "last validation loss", "held-out loss", "training, s",
    )  # fmt: skip
    ranked = sorted(found["designs"], key=lambda row: row["loss"])
    order = ", ".join(f"{DESIGNS[row['design']]} {row['loss']:.3f}" for row in ranked)
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
{found["parts"] * found["batches"]:,} batches, one setting for all, seed {found["seed"]}: one \
run each, so differences of a few hundredths mean little. Weights of the lowest validation loss \
are kept. `{found["command"]}`"""


def draw(found: Found, path: Path) -> Path:
    batches = found["batches"]
    curves = {
        DESIGNS[row["design"]]: Curve(
            [((part + 1) * batches, loss) for part, loss in enumerate(row["validation"])],
            marker="o",
        )
        for row in found["designs"]
    }
    return draw_curves(path, curves, "batches", "validation loss, nats a character")


SECTION = Section(NAME, "Depth at equal parameters", measure, render, recipes, draw)
