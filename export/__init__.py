"""From PyTorch, and from models of elsewhere, to bundles. ``from_torch`` is of export.foreign."""

import os
from typing import Any

# Its wheels report their use to their maker unless a variable forbids it, before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """``export.from_torch``, for which PyTorch is imported first."""
    if name == "from_torch":
        from export.foreign.torch_models import from_torch

        return from_torch
    raise AttributeError(f"module 'export' has no attribute {name!r}")
