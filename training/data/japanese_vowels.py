"""Japanese vowels: two vowels, /ae/, as nine men say them, in 12 LPC cepstrum coefficients a frame.

Kudo, Toyama and Shimbo 1999, doi:10.1016/S0167-8655(99)00077-X; in the UEA archive's format,
``.ts``. Frames of 25.6 ms, 6.4 ms apart (archive.ics.uci.edu/ml/datasets/Japanese+Vowels).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from training.data.frames import LabelledFrames
from training.data.packages import AEON, DATA_FOLDER

# Parts as the archive has them: 270 utterances, 30 of each speaker, and 370.
TRAIN, TEST = "TRAIN", "TEST"
FRAME_SECONDS = 0.0064
CHANNELS = tuple(f"LPC cepstrum {number}" for number in range(1, 13))


def load_vowels(part: str, data: Path = DATA_FOLDER) -> list[LabelledFrames]:
    """In the archive's order. Raises DataUnavailable."""
    with zipfile.ZipFile(AEON.fetch(data)) as package:
        text = package.read(f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts").decode()
    return parse_ts(text, CHANNELS)


def parse_ts(text: str, channels: tuple[str, ...]) -> list[LabelledFrames]:
    """A line a sequence: its channels, between colons, then its label."""
    lines = [line.strip() for line in text.splitlines()]
    begin = next(n for n, line in enumerate(lines) if line.lower() == "@data") + 1
    found = []
    for line in filter(None, lines[begin:]):
        *values, label = line.split(":")
        frames = np.array([[float(number) for number in one.split(",")] for one in values]).T
        found.append(LabelledFrames(frames.astype(np.float32), f"speaker {label}", channels))
    return found
