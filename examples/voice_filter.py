"""What VoiceFilter-Lite leaves to whoever calls it: features of sound, and sound of a mask.

Wang et al. 2020, arXiv:2009.04323, section 3; sizes and numbers are those of open-voicefilter-lite
0.2.0. Samples are float32 at 16 kHz, from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RATE = 16_000
HOP = 160  # samples a step
_SIZE, _WINDOW, _MELS, _STACKED = 1200, 640, 128, 4
_LEAST_POWER = 1e-6
# Section 3.4: how strongly is suppressed, by what the network says of overlapping speech.
_SMOOTHING, _SLOPE, _OFFSET = 0.8, 0.8, 0.1
# Of a speaker's vector.
_VOICE_SIZE, _VOICE_WINDOW, _VOICE_MELS = 512, 400, 40
_VOICE_FRAMES, _VOICE_STRIDE, _LEAST_VOICE_POWER = 80, 40, 1e-10


def mel_filters(size: int, count: int) -> Array:
    """(bins, count) float32: triangles of one area on the scale of Slaney's Auditory Toolbox.

    size: of the transform.
    """
    edges = _hertz(np.linspace(0.0, _mel(RATE / 2), count + 2))
    widths = np.diff(edges)
    away = edges[:, None] - np.linspace(0.0, RATE / 2, size // 2 + 1)
    rising, falling = -away[:-2] / widths[:-1, None], away[2:] / widths[1:, None]
    filters = (
        np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    )
    return filters.T.astype(np.float32)


# Slaney's mels: 15 up to 1 kHz, from there 27 to each factor of 6.4.
_LINEAR, _BREAK, _STEP = 200.0 / 3.0, 15.0, np.log(6.4) / 27.0


def _hertz(mels: Array) -> Array:
    above = 1000.0 * np.exp(_STEP * (mels - _BREAK))
    return np.where(mels < _BREAK, _LINEAR * mels, above)


def _mel(hertz: float) -> float:
    """Above 1 kHz."""
    return float(_BREAK + np.log(hertz / 1000.0) / _STEP)


def speaker_windows(samples: Array) -> Array:
    """(windows, 80, 40) float32, as the network reads them that makes a speaker's vector."""
    window = np.pad(np.hamming(_VOICE_WINDOW + 1)[:-1], (_VOICE_SIZE - _VOICE_WINDOW) // 2)
    least = _VOICE_SIZE + HOP * (_VOICE_FRAMES - 1)
    samples = np.pad(samples, (0, max(0, least - len(samples))))
    parts = np.lib.stride_tricks.sliding_window_view(samples, _VOICE_SIZE)[::HOP]
    power = np.abs(np.fft.rfft(parts * window)) ** 2
    mels = np.log10(power @ mel_filters(_VOICE_SIZE, _VOICE_MELS) + _LEAST_VOICE_POWER)
    windows = np.lib.stride_tricks.sliding_window_view(mels, _VOICE_FRAMES, axis=0)
    return windows[::_VOICE_STRIDE].transpose(0, 2, 1).astype(np.float32)


def speaker_of(embeddings: Array) -> Array:
    """(256,) float32 of length 1: the mean direction of what that network gives, a row a window."""
    mean = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).mean(axis=0)
    found: Array = (mean / np.linalg.norm(mean)).astype(np.float32)
    return found


class Filter:
    """Sound of one speaker out of sound: features() are what the network reads, a step each, and
    sound() is what its answers make, in the same order."""

    def __init__(self) -> None:
        self._filters = mel_filters(_SIZE, _MELS)
        self._inverse = np.linalg.pinv(self._filters.T, rcond=0.1)
        self._window = np.hanning(_WINDOW).astype(np.float32)
        self._weight = (self._window.reshape(-1, HOP) ** 2).sum(axis=0)
        self._spectra: list[tuple[Array, Array]] = []  # with their mels, that have no answer yet
        self._strength = 0.0
        self._sound = np.zeros(_WINDOW, np.float32)

    def features(self, samples: Array) -> Iterator[Array]:
        """(512,) float32 of each hop: its mels and those of the three before it."""
        heard = np.zeros(_SIZE, np.float32)
        stacked = np.zeros((_STACKED, _MELS), np.float32)
        window = np.pad(self._window, (0, _SIZE - _WINDOW))
        for hop in samples.reshape(-1, HOP):
            heard = np.concatenate((heard[HOP:], hop))
            spectrum = np.fft.rfft(heard * window)
            power = (np.abs(spectrum) ** 2).astype(np.float32)
            mels = power @ self._filters
            self._spectra.append((spectrum, mels))
            stacked = np.concatenate((stacked[1:], np.log(mels + _LEAST_POWER)[None]))
            yield stacked.reshape(-1)

    def sound(self, answers: Iterable[tuple[Array, float]]) -> Array:
        """Of (mask, overlap) of each hop, as the network answers."""
        return np.concatenate([self._hop(mask.reshape(-1), overlap) for mask, overlap in answers])

    def _hop(self, mask: Array, overlap: float) -> Array:
        spectrum, mels = self._spectra.pop(0)
        wanted = _SLOPE * overlap + _OFFSET
        kept = _SMOOTHING * self._strength + (1.0 - _SMOOTHING) * wanted
        self._strength = min(1.0, max(0.0, kept))
        filtered = self._strength * mask * mels + (1.0 - self._strength) * mels
        power = np.maximum(self._inverse @ filtered, 0.0)
        part = np.fft.irfft(np.sqrt(power) * np.exp(1j * np.angle(spectrum)), _SIZE)[:_WINDOW]
        moved = np.concatenate((self._sound[HOP:], np.zeros(HOP, np.float32)))
        self._sound = moved + (part * self._window).astype(np.float32)
        newest: Array = self._sound[:HOP] / self._weight
        return newest
