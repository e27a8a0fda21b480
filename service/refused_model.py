"""A bundle that was found and is not served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RefusedModel:
    """version: as its folder is named. reason: for whoever runs the server."""

    name: str
    version: str
    reason: str
