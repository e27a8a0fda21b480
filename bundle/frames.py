"""What a classifier of sequences of numbers reads: frames, one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FrameSpec:
    """channels: names, with units, of the values of a frame, in their order. frame_seconds: of real
    time that a frame stands for; 0 where it is not said.
    """

    channels: tuple[str, ...]
    frame_seconds: float = 0.0

    @property
    def problem(self) -> str | None:
        """What is wrong with it; None where nothing is."""
        if not self.channels:
            return "it needs a channel at least"
        if len(set(self.channels)) < len(self.channels):
            return "a channel comes twice"
        if not (math.isfinite(self.frame_seconds) and self.frame_seconds >= 0):
            return f"frame_seconds is {self.frame_seconds}, not a number from 0 on"
        return None
