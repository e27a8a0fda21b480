"""Speech segments from the probabilities that a model of voice activity gives, frame by frame.

The rule is that of silero-vad's ``get_speech_timestamps`` (snakers4/silero-vad, version 6): two
thresholds, the shortest speech and silence, and padding.
"""

from __future__ import annotations

import sys
import wave
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

# Below the threshold by so much, speech is over: what lies between changes nothing.
HYSTERESIS = 0.15
_LEAST_THRESHOLD = 0.01
FULL_SCALE = 32_768.0


class AudioUnreadable(ValueError):
    """A file that is no audio of the kind that is wanted; the message says what to do."""


@dataclass(frozen=True)
class Segment:
    """In samples; end: the first one after it."""

    start: int
    end: int


@dataclass(frozen=True)
class SpeechOptions:
    """threshold: of the probability. All others in seconds: speech shorter than least_speech is
    none, silence shorter than least_silence ends none, padding is added on both sides."""

    threshold: float = 0.5
    least_speech: float = 0.25
    least_silence: float = 0.1
    padding: float = 0.03

    @property
    def end_threshold(self) -> float:
        return max(self.threshold - HYSTERESIS, _LEAST_THRESHOLD)


class Segmenter:
    """push() each frame's probability, then end().

    frame: samples of each. rate: samples a second.
    """

    def __init__(self, options: SpeechOptions, frame: int, rate: int) -> None:
        self._options = options
        self._frame = frame
        self._least_speech = rate * options.least_speech
        self._least_silence = rate * options.least_silence
        self._padding = int(rate * options.padding)
        self._at = 0  # of the next frame
        self._start: int | None = None  # of the speech under way
        self._silence: int | None = None  # since when there may be none
        self._held: Segment | None = None  # whose end the next one may move
        self._last_end = 0

    def push(self, probability: float) -> Iterator[Segment]:
        """The segments that are known since; a segment is known once there is room for its
        padding, or the next one begins."""
        at, self._at = self._at, self._at + self._frame
        options = self._options
        if probability >= options.threshold:
            self._silence = None
            if self._start is None:
                self._start = at
        elif probability < options.end_threshold and self._start is not None:
            if self._silence is None:
                self._silence = at
            if at - self._silence >= self._least_silence:
                yield from self._close(self._silence)
        held = self._held
        if held is not None and self._start is None and at - held.end >= 2 * self._padding:
            yield self._pad(held, None)

    def end(self, samples: int) -> Iterator[Segment]:
        """What is left. samples: of the whole audio."""
        if self._start is not None:
            yield from self._close(samples)
        if self._held is not None:
            padded = self._pad(self._held, None)
            yield replace(padded, end=min(padded.end, samples))

    def _close(self, end: int) -> Iterator[Segment]:
        start, self._start, self._silence = self._start, None, None
        assert start is not None, "speech is under way"
        if end - start <= self._least_speech:
            return
        segment = Segment(start, end)
        if self._held is not None:
            yield self._pad(self._held, segment)
        self._held = segment

    def _pad(self, segment: Segment, following: Segment | None) -> Segment:
        """Between two segments that are close they share what lies there."""
        start = max(segment.start - self._padding, self._last_end)
        end = segment.end + self._padding
        if following is not None and following.start - segment.end < 2 * self._padding:
            end = segment.end + (following.start - segment.end) // 2
        self._last_end = end
        self._held = None
        return Segment(start, end)


def read_frames(path: str, frame: int, rate: int, note: Callable[[int], None]) -> Iterator[bytes]:
    """Frames of ``frame`` float32 samples from -1 to 1, little-endian; the last one is filled up
    with zeros.

    path: a WAV file of 16-bit samples, whose channels are averaged; "-" for raw 16-bit samples of
    one channel from standard input, as they come. note: called with the samples read so far.

    Raises AudioUnreadable.
    """
    if path == "-":
        yield from _framed(_raw_samples(sys.stdin.buffer, frame), frame, note)
        return
    try:
        with Path(path).open("rb") as file, wave.open(file) as audio:
            _check(path, audio, rate)
            yield from _framed(_wave_samples(audio, frame), frame, note)
    except (OSError, EOFError, wave.Error) as error:
        raise AudioUnreadable(f"{path} cannot be read as a WAV file: {error}") from error


def _check(path: str, audio: wave.Wave_read, rate: int) -> None:
    if audio.getsampwidth() != 2 or audio.getframerate() != rate:
        raise AudioUnreadable(
            f"{path} has {8 * audio.getsampwidth()}-bit samples at {audio.getframerate()} Hz, the "
            f"model reads 16-bit samples at {rate} Hz; convert it: "
            f"ffmpeg -i {path} -ar {rate} -ac 1 -c:a pcm_s16le OUT.wav"
        )


def _wave_samples(audio: wave.Wave_read, count: int) -> Iterator[array[int]]:
    channels = audio.getnchannels()
    while data := audio.readframes(count):
        samples = _samples(data)
        if channels > 1:
            rows = zip(*(samples[n::channels] for n in range(channels)), strict=True)
            samples = array("h", (sum(row) // channels for row in rows))
        yield samples


def _raw_samples(file: BinaryIO, count: int) -> Iterator[array[int]]:
    while data := file.read(2 * count):
        yield _samples(data[: len(data) // 2 * 2])


def _samples(data: bytes) -> array[int]:
    samples = array("h", data)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _framed(
    parts: Iterator[array[int]], frame: int, note: Callable[[int], None]
) -> Iterator[bytes]:
    read = 0
    for samples in parts:
        read += len(samples)
        note(read)
        values = array("f", (sample / FULL_SCALE for sample in samples))
        values.extend([0.0] * (frame - len(values)))
        if sys.byteorder == "big":
            values.byteswap()
        yield values.tobytes()
