"""Public models as they ship: each imported as it must be, and stepped beside the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bundle.stepping import EXACT, INEXACT, NONE
from bundle.store import Bundle
from examples.dtln import SHIFT, own_loop
from examples.foreign import FOREIGN, extract, import_foreign
from export.foreign.surgery import open_model
from service.runtime.sessions import SessionSettings, open_session
from tests.training.real import real

pytestmark = pytest.mark.real_data

SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)

# What may run together, and what may with --allow-inexact.
EXPECTED = {
    "silero-vad": (EXACT, EXACT),
    "silero-vad-v5": (EXACT, EXACT),
    "silero-vad-v4": (NONE, INEXACT),
    "silero-vad-ifless": (EXACT, EXACT),
    "silero-vad-half": (EXACT, EXACT),
    "silero-vad-sequence": (NONE, NONE),
    "silero-vad-faster-whisper": (NONE, NONE),
    "dtln-mask": (EXACT, EXACT),
    "dtln-filter": (NONE, INEXACT),
    "gtcrn": (NONE, NONE),
    "fsmn-vad": (EXACT, EXACT),
    "voicefilter-lite": (NONE, INEXACT),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_is_imported_as_its_rows_allow(tmp_path, name):
    for folder, allowed, batching in zip(
        ("strict", "inexact"), (False, True), EXPECTED[name], strict=True
    ):
        bundle, _ = real(
            lambda f=folder, a=allowed: import_foreign(name, tmp_path / f, allow_inexact=a)
        )
        spec = bundle.manifest.stepping
        assert spec is not None
        # On another kind of CPU rows may round otherwise; exact is never claimed without cause.
        if spec.batching != batching:
            assert {spec.batching, batching} <= {EXACT, INEXACT, NONE}
            assert spec.difference < 0.1
        assert bool(spec.reason) == (spec.batching != EXACT)
        open_session(bundle, "step", SETTINGS)


def test_there_is_a_test_of_each(tmp_path):
    assert set(FOREIGN) == {*EXPECTED, "dtln"}


def stepped(bundle: Bundle, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers (steps, …) of one stream."""
    session = open_session(bundle, "step", SETTINGS)
    names = [port.name for port in session.get_outputs()]
    state = {s.name: np.zeros((1, *s.shape), s.dtype) for s in bundle.manifest.state}
    found: dict[str, list[np.ndarray]] = {}
    for step in range(len(next(iter(frames.values())))):
        feed = {name: array[step : step + 1] for name, array in frames.items()}
        made = dict(zip(names, session.run(names, {**feed, **state}), strict=True))
        state = {name: made.pop(f"next_{name}") for name in state}
        for name, answer in made.items():
            found.setdefault(name, []).append(answer[0])
    return {name: np.array(answers) for name, answers in found.items()}


def test_silero_gives_the_probabilities_of_its_own_loop(tmp_path):
    """As its package calls it: 64 samples of context before each 512."""
    file = real(lambda: extract("silero-vad", tmp_path)).parent / "silero_vad.onnx"
    bundle, _ = import_foreign("silero-vad", tmp_path / "models")
    frames = noise((60, 512))
    session = open_model(str(file))
    state, context, expected = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for frame in frames:
        joined = np.concatenate((context, frame[None]), axis=1)
        output, state = session.run(None, {"input": joined, "state": state, "sr": np.array(16000)})
        context = joined[:, -64:]
        expected.append(output[0])
    assert np.array_equal(stepped(bundle, {"input": frames})["output"], expected)


def noise(shape: Any) -> np.ndarray:
    """Bursts of coloured noise, loud and soft in turns."""
    random = np.random.default_rng(0)
    samples = np.cumsum(random.normal(0, 0.02, shape), axis=-1)
    loud = np.where(np.arange(shape[0]) // 10 % 2, 1.0, 0.02)
    scaled: np.ndarray = (samples * loud.reshape(-1, *(1 for _ in shape[1:]))).astype(np.float32)
    return scaled


def test_dtln_runs_whole_in_one_step(tmp_path):
    """Beside the loop that its authors give: transforms in NumPy, two sessions, two buffers."""
    folder = real(lambda: extract("dtln", tmp_path)).parent
    bundle, _ = import_foreign("dtln", tmp_path / "models")
    spec = bundle.manifest.stepping
    assert spec is not None
    assert (spec.frames, spec.answers) == (("samples",), ("denoised",))
    assert spec.batching in (EXACT, INEXACT)
    frames = noise((80, SHIFT))
    found = stepped(bundle, {"samples": frames})["denoised"]
    first, second = (open_model(str(folder / f"model_{n}.onnx")) for n in (1, 2))
    own = own_loop(first, second, frames.reshape(-1)).reshape(frames.shape)
    assert np.abs(found - own).max() < 1e-4
    assert np.abs(found).max() > 0.01
