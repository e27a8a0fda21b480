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

# Their rows are independent: equal bits in a batch, or on some CPUs others by rounding.
INDEPENDENT = (
    "silero-vad", "silero-vad-v5", "silero-vad-v4", "silero-vad-ifless", "silero-vad-half",
    "dtln-mask", "dtln-filter", "fsmn-vad", "voicefilter-lite",
)  # fmt: skip

# They run with several rows and are wrong, or hold a batch of one: what looks like it is time.
APART = ("silero-vad-sequence", "silero-vad-faster-whisper", "gtcrn")

# What the gate of the import may differ by, of the largest number.
CLOSE = 0.05


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("allow_inexact", [False, True])
def test_rows_that_are_wrong_together_run_one_by_one(tmp_path, name, allow_inexact):
    bundle, _ = real(lambda: import_foreign(name, tmp_path, allow_inexact=allow_inexact))
    spec = bundle.manifest.stepping
    assert spec is not None
    assert spec.batching == NONE
    assert spec.reason
    assert "--allow-inexact" not in spec.reason
    assert differences(bundle) == (0, 0)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_rows_run_together_where_they_may(tmp_path, name):
    """On each kind of CPU what it claims: equal bits, or as close as it says."""
    strict, allowed = (
        real(lambda a=a: import_foreign(name, tmp_path / str(a), allow_inexact=a))[0]
        for a in (False, True)
    )
    one, other = strict.manifest.stepping, allowed.manifest.stepping
    assert one is not None
    assert other is not None
    assert (one.batching, other.batching) in ((EXACT, EXACT), (NONE, INEXACT))
    assert bool(one.reason) == bool(other.reason) == (one.batching != EXACT)
    assert ("--allow-inexact" in one.reason) == (one.batching == NONE)
    assert differences(strict) == (0, 0)
    found, relative = differences(allowed)
    assert relative <= CLOSE
    if other.batching == EXACT:
        assert found == 0
    else:
        assert other.difference > 0


def differences(bundle: Bundle) -> tuple[float, float]:
    """The largest |a row among nine others - the row alone| over some steps, and of the largest
    number of its output."""
    spec = bundle.manifest.stepping
    assert spec is not None
    session = open_session(bundle, "step", SETTINGS)
    names = [port.name for port in session.get_outputs()]
    ports = {port.name: port for port in bundle.manifest.graphs["step"].inputs}
    random = np.random.default_rng(0)
    state = {s.name: np.zeros((10, *s.shape), s.dtype) for s in bundle.manifest.state}
    worst = relative = 0.0
    for _ in range(4):
        feed = dict(state)
        for name in spec.frames:
            shape = (10, *map(int, ports[name].shape[1:]))
            feed[name] = random.normal(0, 0.3, shape).astype(ports[name].dtype)
        together = dict(zip(names, session.run(names, feed), strict=True))
        for row in range(10):
            alone = session.run(names, {name: part[row : row + 1] for name, part in feed.items()})
            for name, found in zip(names, alone, strict=True):
                delta = np.abs(found.astype(float) - together[name][row : row + 1]).max(initial=0)
                assert np.isfinite(delta)
                worst = max(worst, float(delta))
                relative = max(relative, float(delta / max(np.abs(together[name]).max(), 1e-9)))
        state = {name: together[f"next_{name}"] for name in state}
    return worst, relative


def test_there_is_a_test_of_each():
    assert set(FOREIGN) == {*INDEPENDENT, *APART, "dtln"}


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
