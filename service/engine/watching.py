"""What callers watch of a stream's state, as tokens and answers carry it."""

from __future__ import annotations

import numpy as np

from service.engine.requests import State, Watch


def packed(state: State, watch: Watch) -> bytes:
    """The values of one row, tensor by tensor: float16, little-endian; infinite beyond it."""
    values = np.concatenate([state[name].reshape(-1)[watch.units] for name in watch.tensors])
    with np.errstate(over="ignore"):
        data: bytes = values.astype("<f2").tobytes()
    return data
