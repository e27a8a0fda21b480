"""Speech segments of probabilities, and audio as frames."""

import io
import sys
import wave

import numpy as np
import pytest

from unroll.speech import AudioUnreadable, Segmenter, SpeechOptions, read_frames

RATE, FRAME = 1000, 10  # a frame is 10 ms


def segments(probabilities, options=None, samples=None):
    segmenter = Segmenter(options or SpeechOptions(padding=0.0), FRAME, RATE)
    found = [s for p in probabilities for s in segmenter.push(p)]
    found += segmenter.end(FRAME * len(probabilities) if samples is None else samples)
    return [(segment.start, segment.end) for segment in found]


def test_speech_is_where_the_probability_is_high():
    assert segments([0.1] * 5 + [0.9] * 30 + [0.1] * 20) == [(50, 350)]


def test_between_the_thresholds_nothing_changes():
    assert segments([0.4] * 10 + [0.9] * 30 + [0.4] * 30 + [0.1] * 20) == [(100, 700)]


def test_short_speech_is_none_and_short_silence_ends_none():
    assert segments([0.1] * 5 + [0.9] * 25 + [0.1] * 20) == []
    assert segments([0.9] * 20 + [0.1] * 9 + [0.9] * 20 + [0.1] * 20) == [(0, 490)]


def test_speech_at_the_end_ends_with_the_audio():
    assert segments([0.1] * 5 + [0.9] * 30, samples=345) == [(50, 345)]


def test_padding_is_shared_where_segments_are_close():
    options = SpeechOptions(padding=0.1, least_silence=0.05)
    close = [0.1] * 20 + [0.9] * 30 + [0.1] * 10 + [0.9] * 30 + [0.1] * 40
    assert segments(close, options) == [(100, 550), (550, 1000)]
    far = [0.1] * 20 + [0.9] * 30 + [0.1] * 40 + [0.9] * 30 + [0.1] * 5
    assert segments(far, options) == [(100, 600), (800, 1250)]


def test_a_segment_is_known_before_the_audio_ends():
    segmenter = Segmenter(SpeechOptions(), FRAME, RATE)
    early = [s for p in [0.9] * 40 + [0.1] * 12 for s in segmenter.push(p)]
    assert [(s.start, s.end) for s in early] == [(0, 430)]
    assert list(segmenter.end(600)) == []


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 1.0])
def test_the_end_threshold_stays_above_zero(threshold):
    assert SpeechOptions(threshold).end_threshold == pytest.approx(max(threshold - 0.15, 0.01))


def write(path, samples, rate=RATE, channels=1, width=2):
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(channels)
        audio.setsampwidth(width)
        audio.setframerate(rate)
        audio.writeframes(samples)


def read(path, count=FRAME):
    noted = []
    frames = list(read_frames(str(path), count, RATE, noted.append))
    return [np.frombuffer(frame, "<f4").tolist() for frame in frames], noted


def test_a_file_is_cut_into_frames_and_filled_up(tmp_path):
    path = tmp_path / "a.wav"
    write(path, np.arange(12, dtype="<i2").tobytes())
    frames, noted = read(path)
    assert frames[0] == [n / 32768 for n in range(10)]
    assert frames[1] == [10 / 32768, 11 / 32768, *[0.0] * 8]
    assert noted == [10, 12]


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    write(path, np.array([[100, 300], [-50, 50]], "<i2").tobytes(), channels=2)
    assert read(path)[0][0][:2] == [200 / 32768, 0.0]


@pytest.mark.parametrize("wrong", [{"rate": 8000}, {"width": 1}])
def test_audio_of_another_kind_is_refused_with_how_to_convert_it(tmp_path, wrong):
    path = tmp_path / "a.wav"
    write(path, b"\0" * 40, **wrong)
    with pytest.raises(AudioUnreadable, match="convert it: ffmpeg"):
        read(path)


def test_a_file_that_is_no_audio_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"not audio at all")
    with pytest.raises(AudioUnreadable, match="cannot be read as a WAV file"):
        read(path)


def test_standard_input_is_raw_samples_as_they_come(monkeypatch):
    raw = np.array([16384, -16384, 1], "<i2").tobytes() + b"x"
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(raw)}))
    frames, noted = read("-", 2)
    assert frames[0] == [0.5, -0.5]
    assert noted[:2] == [2, 3]
