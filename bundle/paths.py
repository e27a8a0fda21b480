"""Where the files lie that a bundle, or another file from elsewhere, names."""

from __future__ import annotations

import os
from pathlib import Path


def within(folder: Path, name: str) -> Path | None:
    """``name`` in ``folder`` or below it, links followed; None for one that is empty, absolute, or
    leads out. Raises ValueError for one that no file can have."""
    if not name or os.path.isabs(name):
        return None
    inside = os.path.realpath(folder)
    found = os.path.realpath(os.path.join(inside, name))
    return Path(found) if os.path.commonpath((inside, found)) == inside else None
