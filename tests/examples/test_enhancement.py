"""The examples of enhancement: what they compare, and with their packages all of them."""

import wave

import numpy as np
import pytest

from examples import enhancement, voice_filter
from examples.enhancement import (
    ExampleFailed,
    compare,
    main,
    read_audio,
    vowels_in_noise,
    write_audio,
)
from examples.foreign import FOREIGN
from tests.training.real import real


def test_samples_that_are_near_enough_pass():
    one = np.linspace(-1, 1, 100, dtype=np.float32)
    compare(one, one, 0.0)
    compare(one, one + np.float32(1e-5), 1e-4)


@pytest.mark.parametrize(
    ("ours", "message"),
    [(np.zeros(9), "9 samples were served, its own loop gives 8"),
     (np.full(8, 0.01), r"samples differ by 0\.01, more than 0\.0001"),
     (np.full(8, np.nan), "samples differ by nan")],
)  # fmt: skip
def test_samples_that_differ_fail(ours, message):
    with pytest.raises(ExampleFailed, match=message):
        compare(ours, np.zeros(8), 1e-4)


def test_audio_is_written_and_read(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, vowels_in_noise())
    assert np.abs(read_audio(path) - vowels_in_noise()).max() < 1e-4
    with wave.open(str(path), "wb") as audio:
        audio.setparams((2, 2, 16_000, 0, "NONE", ""))
        audio.writeframes(bytes(8))
    with pytest.raises(ExampleFailed, match="not 16 kHz, 16 bits, one channel"):
        read_audio(path)


def test_a_filter_that_passes_everything_gives_the_sound_it_got():
    """Delayed by nothing; the mels' filters alone are not undone exactly."""
    samples = vowels_in_noise()[: 100 * voice_filter.HOP]
    kept = voice_filter.Filter()
    features = list(kept.features(samples))
    assert {f.shape for f in features} == {(512,)}
    found = kept.sound([(np.ones(128, np.float32), 0.0)] * len(features))
    # The window begins where the transform does: so many samples before the newest.
    delay = 1200 - voice_filter.HOP
    ours, theirs = found[delay:], samples[: len(samples) - delay]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["dtln", "voicefilter-lite"])
def test_what_is_served_is_what_its_own_loop_gives(tmp_path, capfd, name, monkeypatch):
    real(FOREIGN[name].package.fetch)
    monkeypatch.setattr(enhancement, "_SECONDS", 2)
    assert main([name, "--folder", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert "$ python -m export import" in out
    assert "apart." in out
    assert np.abs(read_audio(tmp_path / f"{name}.wav")).max() > 0.01
