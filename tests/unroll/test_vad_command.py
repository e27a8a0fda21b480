"""`unroll vad` against a served model of voice activity: what it prints, and what it refuses."""

import json
import wave

import numpy as np
import pytest

from bench.frame_model import NAME, write_frame_model
from tests.step_models import write_step_bundle
from unroll import Client
from unroll.cli import main


@pytest.fixture
def target(start_service, tmp_path):
    write_frame_model(tmp_path / "models")
    write_step_bundle(tmp_path / "models")
    return start_service(models=tmp_path / "models").target


@pytest.fixture
def speech(tmp_path):
    path = tmp_path / "speech.wav"
    samples = np.random.default_rng(2).integers(-3000, 3000, 16_000).astype("<i2")
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(samples.tobytes())
    return path


def test_a_model_that_is_always_sure_finds_the_whole_file(target, speech, capsys):
    asked = ["vad", str(speech), "--target", target, "--model", NAME, "--threshold", "0.01"]
    assert main(asked) == 0
    assert capsys.readouterr().out.split() == ["0.000", "1.000"]
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"start": 0.0, "end": 1.0}


def test_a_model_that_is_never_sure_finds_nothing(target, speech, capsys):
    asked = ["vad", str(speech), "--target", target, "--model", NAME, "--threshold", "0.99"]
    assert main(asked) == 0
    assert capsys.readouterr().out == ""


def test_probabilities_are_those_of_the_model_frame_by_frame(target, speech):
    with Client(target, timeout=20) as client, wave.open(str(speech)) as audio:
        samples = np.frombuffer(audio.readframes(16_000), "<i2").astype(np.float32) / 32768
        frames = samples[: 31 * 512].reshape(31, 512)
        chunks = list(client.stream_step(NAME, frames))
        whole = list(client.stream_step(NAME, [frames]))
    one = np.concatenate([r.outputs["speech"] for chunk in chunks for r in chunk.results])
    (all_,) = [r.outputs["speech"] for chunk in whole for r in chunk.results]
    assert one.tobytes() == all_.tobytes()


def test_speech_is_looked_for_from_a_state_made_of_a_streams_end(target, speech, tmp_path, capsys):
    asked, token = ["--target", target, "--model", NAME], str(tmp_path / "token")
    assert main(["vad", str(speech), *asked, "--resume-out", token]) == 0
    assert main(["create-state", "after", *asked, "--resume-token", token]) == 0
    assert f"after  {NAME}  StreamStep" in capsys.readouterr().out
    assert main(["vad", str(speech), *asked, "--threshold", "0.01", "--state", "after"]) == 0
    assert capsys.readouterr().out.split() == ["0.000", "1.000"]
    assert main(["vad", str(speech), *asked, "--state", "nobody"]) == 1
    assert "no state 'nobody' of yours" in capsys.readouterr().err


def test_what_cannot_be_used_is_said(target, speech, tmp_path, capsys):
    asked = ["vad", str(tmp_path / "none.wav"), "--target", target, "--model", NAME]
    assert main(asked) == 2
    assert "cannot be read as a WAV file" in capsys.readouterr().err
    assert main(["vad", str(speech), "--target", target, "--model", "nobody"]) == 1
    assert "no model 'nobody'" in capsys.readouterr().err
