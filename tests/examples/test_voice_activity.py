"""The example of a model from elsewhere: what it compares, and with its package all of it."""

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
    """Of bursts of vowels, which need no espeak-ng."""
    try:
        PACKAGE.fetch()
    except DataUnavailable as error:
        pytest.skip(str(error))
    path = tmp_path / "vowels.wav"
    time = np.arange(4 * RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 30))
    loud = (time % 2 < 1) * (1 + np.sin(2 * np.pi * 4 * time)) * voice
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(RATE)
        audio.writeframes((3000 * loud).astype("<i2").tobytes())
    assert FOLDER.parts[0] == ".data"
    assert main(["--audio", str(path), "--folder", str(tmp_path / "example")]) == 0
    assert "at most 0.0 ms apart" in capfd.readouterr().out
