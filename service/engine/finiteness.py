"""Detection of rows with NaN, which broken weights or states give."""

from __future__ import annotations

import math
from collections.abc import Sequence

from service.engine.errors import NotFinite


def broken_rows(log_probabilities: Sequence[float]) -> Sequence[int]:
    """The rows of a step whose token has no log-probability; -inf is that of none.

    A logit that is NaN or infinite makes every log-probability of its row NaN, so the one of
    the token stands for all. Their sum is NaN if one of them is: mostly nothing else is looked at.
    """
    if sum(log_probabilities) < math.inf:
        return ()
    return [row for row, value in enumerate(log_probabilities) if not value < math.inf]


def not_finite() -> NotFinite:
    return NotFinite(
        "the model computed NaN or infinity for this request, which is no answer; load another "
        "version of it, or report it to whoever runs this server"
    )
