"""A model from elsewhere, served: silero-vad from PyPI, imported, called, compared with itself.

python -m examples.voice_activity [--audio WAV] [--folder .data/voice-activity]

Fetches silero-vad's wheel (MIT) at a pinned hash, imports its graph by the command that anybody
would use, serves it, and finds the speech of a WAV file (16 kHz, 16 bits) by ``unroll vad``, or
of sentences that espeak-ng speaks (Debian: apt-get install espeak-ng). The segments must be
those of the package's own loop over onnxruntime, to a frame. Needs PyTorch, which the package reads
audio with. Exits non-zero where anything differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import wave
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from training.data.packages import DataPackage, DataUnavailable
from unroll.speech import FULL_SCALE

PACKAGE = DataPackage(
    "silero-vad",
    "6.2.3",
    "silero_vad-6.2.3-py3-none-any.whl",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    "MIT",
)
FOLDER = Path(".data/voice-activity")
RATE, FRAME = 16_000, 512
_GRAPH = "silero_vad/data/silero_vad.onnx"
_IMPORT = (
    "--name", "vad", "--task", "step", "--input", "input", "--output", "output",
    "--state", "state:stateN", "--constant", f"sr={RATE}", "--context", "input:64",
    "--shape", "input=1,576", "--shape", "state=2,1,128", "--frame-seconds", "0.032",
    "--attribute", f"sample_rate={RATE}", "--attribute", "threshold=0.5",
)  # fmt: skip
_SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Numbers arrive a frame at a time.",
    "Silence is not speech.",
)
_PAUSES = (0.7, 1.5, 0.25, 1.0)  # seconds before each sentence, and at the end
_START_SECONDS = 60
_PORT_LINE = "gRPC on port "


class ExampleFailed(Exception):
    """The message says why."""


def import_model(wheel: Path, folder: Path) -> Path:
    """The folder of models, with the imported one in it."""
    models = folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    with zipfile.ZipFile(wheel) as package:
        graph = Path(package.extract(_GRAPH, folder))
    command = ["-m", "export", "import", str(graph), *_IMPORT, "--models", str(models)]
    print(f"$ python {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)
    return models


def speak(folder: Path) -> Path:
    """A WAV file of sentences with pauses between them, at 16 kHz.

    Raises ExampleFailed without espeak-ng.
    """
    if shutil.which("espeak-ng") is None:
        raise ExampleFailed("espeak-ng is not installed (Debian: apt-get install espeak-ng)")
    rng = np.random.default_rng(5)
    parts = []
    for pause, sentence in zip(_PAUSES, (*_SENTENCES, None), strict=True):
        parts.append(rng.normal(0, 1e-3, int(pause * RATE)))
        if sentence:
            spoken = folder / "sentence.wav"
            subprocess.run(["espeak-ng", "-w", str(spoken), sentence], check=True)
            parts.append(_resampled(spoken))
    samples = np.concatenate(parts).clip(-1, 1) * (FULL_SCALE - 1)
    path = folder / "speech.wav"
    with wave.open(str(path), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(RATE)
        audio.writeframes(samples.astype("<i2").tobytes())
    return path


def _resampled(path: Path) -> Any:
    """Its samples at 16 kHz, from -1 to 1: between two samples lies a straight line."""
    with wave.open(str(path)) as audio:
        rate = audio.getframerate()
        samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2") / FULL_SCALE
    at = np.arange(int(len(samples) * RATE / rate)) * rate / RATE
    return np.interp(at, np.arange(len(samples)), samples)


@contextmanager
def served(models: Path) -> Iterator[str]:
    """The target of a server of these models."""
    command = ["-m", "service", "serve", "--models", str(models), "--propagation-seconds", "0"]
    addresses = ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    server = subprocess.Popen(
        [sys.executable, *command, *addresses],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None, "it is a pipe"
        line = next((line for line in server.stdout if _PORT_LINE in line), None)
        if line is None:
            raise ExampleFailed("the server ended before it was ready")
        yield f"127.0.0.1:{line.split(_PORT_LINE)[1].split(',')[0]}"
    finally:
        server.terminate()
        server.communicate(timeout=_START_SECONDS)


def segments_served(target: str, audio: Path) -> list[tuple[float, float]]:
    """In seconds, as ``unroll vad`` prints them."""
    command = ["-m", "unroll", "--target", target, "vad", str(audio), "--json"]
    print(f"$ python {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(segment["start"], segment["end"]) for segment in found]


def segments_of_package(wheel: Path, graph: Path, audio: Path) -> list[tuple[float, float]]:
    """In seconds, by the package's own code and onnxruntime."""
    sys.path.insert(0, str(wheel))
    try:
        package = importlib.import_module("silero_vad.utils_vad")
        torch = importlib.import_module("torch")
    finally:
        sys.path.remove(str(wheel))
    with wave.open(str(audio)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    values = torch.from_numpy((samples / FULL_SCALE).astype(np.float32))
    model = package.OnnxWrapper(str(graph), force_onnx_cpu=True)
    found = package.get_speech_timestamps(values, model, sampling_rate=RATE)
    return [(segment["start"] / RATE, segment["end"] / RATE) for segment in found]


def compare(ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> None:
    """Raises ExampleFailed where they differ by more than a frame."""
    for one, other in zip(ours, theirs, strict=False):
        print(f"served {one[0]:7.3f} {one[1]:7.3f}   package {other[0]:7.3f} {other[1]:7.3f}")
    if len(ours) != len(theirs):
        raise ExampleFailed(f"{len(ours)} segments were served, the package finds {len(theirs)}")
    worst = max(
        (abs(a - b) for one, other in zip(ours, theirs, strict=True)
         for a, b in zip(one, other, strict=True)),
        default=0.0,
    )  # fmt: skip
    if worst > FRAME / RATE:
        raise ExampleFailed(f"segments differ by {worst:.3f} s, more than a frame")
    print(f"{len(ours)} segments, at most {worst * 1e3:.1f} ms apart.", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.voice_activity")
    parser.add_argument("--audio", type=Path, help="WAV file, 16 kHz, 16 bits, one channel")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where files go (default %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    try:
        wheel = PACKAGE.fetch()
        models = import_model(wheel, chosen.folder)
        audio = chosen.audio or speak(chosen.folder)
        with served(models) as target:
            ours = segments_served(target, audio)
        compare(ours, segments_of_package(wheel, chosen.folder / _GRAPH, audio))
    except (ExampleFailed, DataUnavailable, subprocess.CalledProcessError) as error:
        print(f"the example failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
