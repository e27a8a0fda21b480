"""Figures of an earlier revision, which the page shows beside those of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parents[1] / "docs" / "bench" / "before.json"


@dataclass(frozen=True)
class Before:
    """revision, date: of the commit that was measured. machines: what each is, by a short name.
    note: how to read the figures. figures: by the name of a bar, as text, one a machine in their
    order; None where a machine has none.
    """

    revision: str
    date: str
    machines: Mapping[str, str]
    note: str
    figures: Mapping[str, Sequence[str | None]]


def read_before(path: Path = PATH) -> Before:
    """Raises FileNotFoundError, and TypeError for a file of other fields."""
    return Before(**json.loads(path.read_text(encoding="utf8")))
