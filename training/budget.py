"""How many epochs fit a number of minutes on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.loop import FitSettings, TrainingTask
from training.models.layers import run_in_bfloat16

_TRIED = 6  # steps that are timed, after one that is not
_SHARE = 0.8  # of the minutes; reading, validating and measuring take the rest
_PARTS = 4  # epochs at least, for a choice among them
_MOST_EPOCHS = 200


def within_minutes(
    settings: FitSettings, model: nn.Module, task: TrainingTask[Any], minutes: float
) -> FitSettings:
    """``settings`` with as many epochs as fit; where less than a few readings do, with shorter
    epochs. The schedule of the learning rate spans them, whatever their number.

    Times a few steps of a copy of ``model``; whoever trains again with the settings that come out
    trains the same.
    """
    batches = task.batches(0)
    seconds = _seconds_of_step(model, task, batches, settings.bfloat16)
    readings = minutes * 60 * _SHARE / (seconds * len(batches))
    if readings >= _PARTS:
        return replace(settings, epochs=min(_MOST_EPOCHS, int(readings)))
    parts = min(len(batches), math.ceil(_PARTS / readings))
    # What stalls is judged by readings, not by their parts.
    patience = settings.patience * parts
    return replace(settings, epochs=max(1, int(readings * parts)), parts=parts, patience=patience)


def _seconds_of_step(
    model: nn.Module, task: TrainingTask[Any], batches: Sequence[Any], bfloat16: bool
) -> float:
    """The mean over steps of batches that lie apart; validation is a small part of them."""
    random = torch.get_rng_state()
    tried = deepcopy(model).train()
    run_in_bfloat16(tried, bfloat16)
    chosen = batches[:: max(1, len(batches) // _TRIED)][: _TRIED + 1]
    _step(tried, task, chosen[0])
    began = time.monotonic()
    for batch in chosen:
        _step(tried, task, batch)
    seconds = (time.monotonic() - began) / len(chosen)
    torch.set_rng_state(random)
    return max(seconds, 1e-6)


def _step(model: nn.Module, task: TrainingTask[Any], batch: Any) -> None:
    loss, _ = task.loss(model, batch, None)
    model.zero_grad(set_to_none=True)
    loss.backward()
