"""Sequences of frames, each a row of numbers, and their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """frames: (time, channels). channels: their names."""

    frames: Frames
    label: str
    channels: tuple[str, ...]
