"""The module that trains a model, found by the model's name, and what it declares.

Beside ``train``, which runs it, a script may declare

- ``held_out(context) -> HeldOut``: its held-out split, as questions to a served model
  (training/held_out.py); the evaluation asks them.
- ``held_out_figures(model, tokenizers, data, quick, command) -> tuple[Figure, ...]``: its figures
  of whatever is called as its model is; export measures an int8 step with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from training.config import models


def module_of(model: str) -> str:
    """The training script of a model; a module's name cannot hold a hyphen."""
    return f"training.{model.replace('-', '_')}"


def declared(model: str, name: str) -> Callable[..., Any] | None:
    """What the script of ``model`` declares by that name; None without such, or without a script.

    A model that has no recipe has no script either.
    """
    if model not in models() or find_spec(module_of(model)) is None:
        return None
    found: Callable[..., Any] | None = getattr(
        importlib.import_module(module_of(model)), name, None
    )
    return found
