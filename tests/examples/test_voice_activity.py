"""The example of a model from elsewhere: what it compares, and with its package all of it."""

import re
import wave

import numpy as np
import pytest

from examples.voice_activity import FOLDER, PACKAGE, RATE, ExampleFailed, compare, main
from training.data.packages import DataUnavailable


def test_segments_that_are_equal_to_a_frame_pass():
    compare([(0.0, 1.0), (2.0, 3.01)], [(0.03, 1.0), (2.0, 3.0)])
    compare([], [])


@pytest.mark.parametrize(
    ("ours", "message"),
    [([(0.0, 1.0)], "1 segments were served, the package finds 2"),
     ([(0.0, 1.0), (2.0, 3.04)], "differ by 0.040 s, more than a frame")],
)  # fmt: skip
def test_segments_that_differ_fail(ours, message):
    with pytest.raises(ExampleFailed, match=message):
        compare(ours, [(0.0, 1.0), (2.0, 3.0)])


@pytest.mark.real_data
def test_silero_vad_is_served_as_its_package_runs_it(tmp_path, capfd):
    """Of vowels that are sung in two phrases, which need no espeak-ng."""
    try:
        PACKAGE.fetch()
    except DataUnavailable as error:
        pytest.skip(str(error))
    path = tmp_path / "vowels.wav"
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(RATE)
        audio.writeframes((16_000 * vowels(4.0)).astype("<i2").tobytes())
    assert FOLDER.parts[0] == ".data"
    assert main(["--audio", str(path), "--folder", str(tmp_path / "example")]) == 0
    found = re.search(r"(\d+) segments, at most 0\.0 ms apart", capfd.readouterr().out)
    assert found is not None
    assert int(found[1]) > 0, "nothing is compared where neither side finds speech"


# The first three formants of five vowels, in Hz.
FORMANTS = (
    (730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410),
)  # fmt: skip


def vowels(seconds: float) -> np.ndarray:
    """(samples,) from -1 to 1: harmonics of a pitch that moves, under formants that change four
    times a second; silent from 1.2 s of every 2 s on."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 25 * np.sin(1.4 * np.pi * time) + 4 * np.sin(10 * np.pi * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = np.array(FORMANTS)[(4 * time).astype(int) % len(FORMANTS)]
    glide = np.ones(800) / 800
    formants = np.stack([np.convolve(path, glide, "same") for path in formants.T])
    voice = np.zeros_like(time)
    for harmonic in range(1, 45):
        loudness = sum(
            gain / (1 + ((harmonic * pitch - path) / width) ** 2)
            for path, gain, width in zip(formants, (1, 0.5, 0.25), (60, 90, 120), strict=True)
        )
        voice += loudness / harmonic**0.5 * np.sin(harmonic * phase)
    syllables = np.clip(1.5 * np.sin(8 * np.pi * time) + 0.7, 0, 1) * (time % 2 < 1.2)
    found: np.ndarray = voice * syllables
    return found / np.abs(found).max()
