"""Teacher forcing: recurrence through the output alone needs no steps to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evaluation.text import middle, power, table
from study.artifact_cache import Found
from study.characters import facts_of, learner_of
from study.recipes import command_of
from study.sections import Section, Study, say_rates, say_seeds
from study.timing import alternate
from training.checkpoint import TrainedModel
from training.models.generator import Generator

NAME = "forcing"

DESIGNS = {
    "output": "output recurrence",
    "rnn": "hidden recurrence, tanh",
    "gru": "hidden recurrence, GRU",
    "lstm": "hidden recurrence, LSTM",
}


LEARNERS = {design: learner_of(design) for design in DESIGNS}


def loss_at_once(model: Generator, inputs: Tensor, targets: Tensor) -> Tensor:
    """inputs, targets (rows, time) → the mean loss, all steps in one call"""
    logits, _ = model(inputs)
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def loss_by_steps(model: Generator, inputs: Tensor, targets: Tensor) -> Tensor:
    """The same, each step after the one before."""
    state = model.stack.zero_state(len(inputs), model.output.bias)
    logits = []
    for token in inputs.unbind(1):
        features, state = model.stack.step(model.embedding(token), state)
        logits.append(model.output(features))
    return cross_entropy(torch.stack(logits, dim=1).flatten(0, 1), targets.flatten())


Loss = Callable[[Generator, Tensor, Tensor], Tensor]


def gradients(model: Generator, loss: Loss, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """The loss, then its gradient with respect to each parameter."""
    value = loss(model, inputs, targets)
    return [value.detach(), *torch.autograd.grad(value, list(model.parameters()))]


def measure(study: Study) -> Found:
    settings = study.settings.forcing
    training, *_ = study.trainer.characters.splits
    models = {design: study.trained(learner) for design, learner in LEARNERS.items()}
    output, hidden = _generator(models["output"]), _generator(models["rnn"])
    return {
        "rows": settings.rows,
        "rounds": settings.rounds,
        "seeds": study.settings.characters.seeds,
        "rates": study.rates(LEARNERS.values()),
        "timed": [
            _compare(output, hidden, _batch(training, settings.rows, time), settings.rounds)
            for time in settings.times
        ],
        "quality": [{"design": design, **facts_of(rows)} for design, rows in models.items()],
        "batch_seconds": batch_seconds(study, models),
        "batches": study.settings.characters.parts * study.settings.characters.batches,
        "command": command_of(NAME, study.settings.quick),
    }


def batch_seconds(study: Study, models: Mapping[str, Sequence[TrainedModel]]) -> dict[str, float]:
    """CPU time of one batch of training, forward and backward, of each design."""
    settings = study.settings.forcing
    training, *_ = study.trainer.characters.splits
    batch = _batch(training, settings.rows, settings.times[0])
    works = {
        design: partial(gradients, _generator(rows), loss_at_once, *batch)
        for design, rows in models.items()
    }
    return alternate(works, settings.rounds)


def _generator(models: Sequence[TrainedModel]) -> Generator:
    model = models[0].build()
    assert isinstance(model, Generator), "the study's character models are generators"
    return model


def _batch(text: Tensor, rows: int, time: int) -> tuple[Tensor, Tensor]:
    part = text[: rows * (time + 1)].view(rows, time + 1)
    return part[:, :-1], part[:, 1:]


def _compare(
    output: Generator, hidden: Generator, batch: tuple[Tensor, Tensor], rounds: int
) -> dict[str, Any]:
    """Seconds a batch, loss and gradients, and by how much the two ways to the same differ."""
    at_once = gradients(output, loss_at_once, *batch)
    by_steps = gradients(output, loss_by_steps, *batch)
    works = {
        "output, one pass": lambda: gradients(output, loss_at_once, *batch),
        "output, step by step": lambda: gradients(output, loss_by_steps, *batch),
        "hidden (tanh), step by step": lambda: gradients(hidden, loss_at_once, *batch),
    }
    return {
        "time": batch[0].shape[1],
        "loss_difference": float((at_once[0] - by_steps[0]).abs()),
        "gradient_difference": _largest_difference(at_once[1:], by_steps[1:]),
        "largest_gradient": max(float(part.abs().max()) for part in at_once[1:]),
        "seconds": alternate(works, rounds),
    }


def _largest_difference(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def render(found: Found) -> str:
    timed = [
        (
            str(row["time"]),
            name,
            f"{1000 * seconds:.1f}",
            f"{seconds / row['seconds']['output, one pass']:.1f}",
        )
        for row in found["timed"]
        for name, seconds in row["seconds"].items()
    ]
    quality = (
        (
            DESIGNS[row["design"]], str(row["hidden"]), f"{row['parameters']:,}",
            middle(row["losses"], 3), f"{1000 * found['batch_seconds'][row['design']]:.0f}",
        )
        for row in found["quality"]
    )  # fmt: skip
    losses = {row["design"]: middle(row["losses"], 3) for row in found["quality"]}
    ranked = sorted(found["quality"], key=lambda row: median(row["losses"]))
    order = "; ".join(DESIGNS[row["design"]] for row in ranked)
    worst = max(found["timed"], key=lambda row: row["gradient_difference"])
    held_out = found["quality"][0]
    return f"""\
Where only the output is fed back, h = tanh(b + U x) has no weights from hidden to hidden. Under \
teacher forcing every output is known before training begins, so no step waits for another and \
all steps of a batch are one product. One pass and a walk through time with the same weights \
gave losses that differ by at most \
{power(max(row["loss_difference"] for row in found["timed"]))} and gradients by at most \
{power(worst["gradient_difference"])} (the largest gradient there is \
{power(worst["largest_gradient"])}).

{table(("steps", "recurrence, trained", "CPU, ms a batch", "of one pass"), timed)}

The price is the lecture's as well: the state holds nothing but what the output says. A \
generator's input is its own last output, so there this recurrence knows one character and no \
more: {losses["output"]} nats a held-out character, plain hidden recurrence of the same size \
{losses["rnn"]}. From the lowest loss to the highest: {order}.

{
        table(
            (
                "recurrence",
                "hidden units",
                "parameters",
                "held-out loss, nats a character",
                "CPU, ms a batch",
            ),
            quality,
        )
    }

Loss, backward and all, {found["rows"]} rows side by side on one thread; medians of \
{found["rounds"]} rounds in alternating order. Quality: nine plays of Shakespeare by character, \
judged on {held_out["examples"]:,} of {held_out["split"]}; {found["batches"]:,} batches, \
{say_rates(found["rates"])}; {say_seeds(found["seeds"])}. `{found["command"]}`"""


SECTION = Section(
    NAME,
    "Teacher forcing and recurrence through the output",
    measure,
    render,
    tuple(LEARNERS.values()),
)
