"""The gradient of one step's loss with respect to the hidden state before it, by distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evaluation.curves import Curve, draw_curves
from evaluation.text import power, table
from study.artifact_cache import Found
from study.characters import learner_of
from study.recipes import command_of
from study.sections import Section, Study
from training.models import build, config_from_json
from training.models.generator import Generator

NAME = "gradient"

CELLS = {"rnn": "tanh", "gru": "GRU", "lstm": "LSTM"}
_CONTEXT = 50  # characters read before the first state that is looked at


def gradient_norms(model: Generator, text: Tensor, distance: int) -> list[Tensor]:
    """‖∂L_t/∂s_{t-k}‖ of k = 0 … distance: (distance + 1, rows) for each tensor s of the state.

    text: (rows, time) tokens, time above distance + 1. L_t is the loss of the last token, t the
    step before it. The state is h, and c of an LSTM; of a model with one layer, whose output
    is h itself.
    """
    inputs, target = text[:, :-1], text[:, -1]
    embedded = model.embedding(inputs)
    state = model.stack.zero_state(len(text), embedded)
    states = []
    for x in embedded.unbind(1):
        _, state = model.stack.step(x, state)
        states.append(state)
    # A sum over the rows: no row's loss depends on another row's state.
    loss = cross_entropy(model.output(states[-1][0]), target, reduction="sum")
    looked_at = states[: -distance - 2 : -1]
    flat = [part for state in looked_at for part in state]
    # The last c is followed by nothing.
    gradients = torch.autograd.grad(loss, flat, allow_unused=True)
    norms = [
        torch.zeros(len(text)) if gradient is None else gradient.norm(dim=1)
        for gradient in gradients
    ]
    parts = len(state)
    return [torch.stack(norms[part::parts]) for part in range(parts)]


def measure(study: Study) -> Found:
    settings = study.settings.gradient
    *_, held_out = study.trainer.characters.splits
    places = _places(held_out, settings.places, settings.distance + _CONTEXT + 2)
    found: dict[str, Any] = {}
    for cell in CELLS:
        trained, *_ = study.trained(learner_of(cell))
        torch.manual_seed(settings.seed)
        untrained = build(config_from_json(trained.config)).eval()
        for state, model in (("trained", trained.build()), ("untrained", untrained)):
            assert isinstance(model, Generator), "the study's character models are generators"
            norms = gradient_norms(model, places, settings.distance)
            for part, rows in zip(("h", "c"), norms, strict=False):
                found[f"{cell} {part} {state}"] = rows.mean(dim=1).tolist()
    return {
        "norms": found,
        "places": settings.places,
        "distance": settings.distance,
        "seed": settings.seed,
        "command": command_of(NAME, study.settings.quick),
    }


def _places(text: Tensor, rows: int, time: int) -> Tensor:
    """(rows, time): pieces of ``text`` that begin at equal distances."""
    starts = torch.linspace(0, len(text) - time, rows).long().tolist()
    return torch.stack([text[start : start + time] for start in starts])


def steps_to(norms: list[float], share: float) -> int | None:
    """The first distance from which on every norm is below ``share`` of the first one."""
    below = [norm < share * norms[0] for norm in norms]
    if not below[-1]:
        return None
    return max((k + 1 for k, is_below in enumerate(below) if not is_below), default=0)


def render(found: Found) -> str:
    distance = found["distance"]
    near, half = distance // 10, distance // 2
    rows = []
    for cell, title in CELLS.items():
        for state in ("untrained", "trained"):
            norms = found["norms"][f"{cell} h {state}"]
            reached = steps_to(norms, 0.01)
            rows.append(
                (
                    title,
                    state,
                    *(power(norms[k]) for k in (0, near, half, distance)),
                    f"{(norms[half] / norms[near]) ** (1 / (half - near)):.3f}",
                    f"more than {distance}" if reached is None else str(reached),
                )
            )
    header = (
        "cell", "", "k = 0", f"k = {near}", f"k = {half}", f"k = {distance}",
        f"factor a step, k = {near} … {half}", "below 1 % of k = 0 from k =",
    )  # fmt: skip
    return f"""\
By the lecture's recursion each step back multiplies the gradient by Wᵀ diag(1 − h²), so through \
k steps it shrinks or grows like a k-th power; gates open a path that need not. The norm of \
∂L_t/∂h_(t−k), L_t the loss of one character, averaged over {found["places"]} places in the \
held-out text:

{table(header, rows)}

In the picture the dashed curves are untrained; an LSTM has a second path through its cell c, \
whose gradient is drawn in a colour of its own.

Models of the section on teacher forcing, the first seed's; the untrained ones have seed \
{found["seed"]}. \
`{found["command"]}`"""


def draw(found: Found, path: Path) -> Path:
    curves = {}
    keys = [("rnn h", "tanh, h"), ("gru h", "GRU, h"), ("lstm h", "LSTM, h"), ("lstm c", "LSTM, c")]
    for colour, (key, title) in enumerate(keys):
        for state in ("trained", "untrained"):
            norms = found["norms"][f"{key} {state}"]
            points = [(k, norm) for k, norm in enumerate(norms) if norm > 0]
            curves[f"{title}, {state}"] = Curve(points, state == "untrained", colour)
    return draw_curves(
        path, curves, "distance k, steps", "mean norm of the gradient at t − k", log=True
    )


SECTION = Section(
    NAME, "Gradient against distance", measure, render, tuple(map(learner_of, CELLS)), draw
)
