"""Where a forecast is: all it takes to draw it again elsewhere, and the steps that its caller has.

A generator's token holds the state of its stream. A forecast is a hundred streams, whose states
would take more than a kilobyte each; what they are drawn from takes a few numbers a value, and
drawing is the same bits again. So a token holds that, and the steps are drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.series import EncodedSeries


@dataclass(frozen=True)
class ForecastSnapshot:
    """series: as the model reads them. times: of the steps of each, none of one without a start.
    delivered: of each, how many steps its caller has got.
    """

    series: tuple[EncodedSeries, ...]
    times: tuple[tuple[str, ...], ...]
    horizon: int
    samples: int
    seed: int
    delivered: tuple[int, ...]


def describe(snapshot: ForecastSnapshot) -> tuple[dict[str, Any], bytes]:
    """Everything but the arrays as JSON has it, and the arrays' bytes one after the other."""
    facts = {
        name: getattr(snapshot, name)
        for name in ("times", "horizon", "samples", "seed", "delivered")
    }
    facts["series"] = [
        [float(one.scale), float(one.last), bool(one.observed), one.context.shape, one.future.shape]
        for one in snapshot.series
    ]
    arrays = (part for one in snapshot.series for part in (one.context, one.future))
    return facts, b"".join(np.ascontiguousarray(part, np.float32).tobytes() for part in arrays)


def restore(facts: Mapping[str, Any], arrays: bytes) -> ForecastSnapshot:
    series, offset = [], 0
    for scale, last, observed, *shapes in facts["series"]:
        parts = []
        for shape in shapes:
            count = shape[0] * shape[1]
            parts.append(np.frombuffer(arrays, np.float32, count, offset).reshape(shape))
            offset += parts[-1].nbytes
        series.append(EncodedSeries(scale, parts[0], last, observed, parts[1]))
    return ForecastSnapshot(
        tuple(series),
        tuple(map(tuple, facts["times"])),
        facts["horizon"],
        facts["samples"],
        facts["seed"],
        tuple(facts["delivered"]),
    )
