"""The manifest of a model that is stepped: what it says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bundle.errors import ManifestInvalid
from bundle.manifest import Manifest
from bundle.stepping import problem_of_choice
from service.runtime.sessions import SessionSettings, open_session
from tests.step_models import FRAME, expected_levels, write_step_bundle

SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)


def content_of(tmp_path: Path, **options: Any) -> dict[str, Any]:
    bundle = write_step_bundle(tmp_path, **options)
    return dict(json.loads((bundle.folder / "manifest.json").read_text()))


def test_a_stepped_model_is_read_back_as_written(tmp_path):
    bundle = write_step_bundle(tmp_path, gains=(1.0, 2.0), attributes={"sample_rate": 16000})
    spec = bundle.manifest.stepping
    assert spec is not None
    assert (spec.frames, spec.answers) == (("frame",), ("mean", "level"))
    assert spec.shared[0].choices == (1.0, 2.0)
    assert spec.attributes == {"sample_rate": 16000}
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_its_graph_opens_and_steps(tmp_path):
    bundle = write_step_bundle(tmp_path)
    session = open_session(bundle, "step", SETTINGS)
    assert isinstance(session, onnxruntime.InferenceSession)
    frames = np.arange(3 * FRAME, dtype=np.float32).reshape(3, FRAME)
    feed = {"total": np.zeros((1, FRAME), np.float32), "count": np.zeros(1, np.int64)}
    levels = []
    for frame in frames:
        _, level, total, count = session.run(None, {"frame": frame[None], **feed})
        feed = {"total": total, "count": count}
        levels.append(level[0])
    assert np.array_equal(levels, expected_levels(frames))
    assert feed["count"].tolist() == [3]


def test_other_models_have_no_such_field(tmp_path):
    content = content_of(tmp_path)
    assert "series" not in content
    del content["stepping"]
    with pytest.raises(ManifestInvalid, match="needs the field 'stepping'"):
        Manifest.from_json(content)


def edited(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split("/")
    place: Any = content
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stepping/frames", [], "a frame and an answer"),
        ("stepping/frames", ["total"], "frames and shared inputs"),
        ("stepping/answers", ["mean"], "carried state"),
        ("stepping/batching", "maybe", "not one of exact, inexact, none"),
        ("stepping/batching", "none", "needs a reason"),
        ("stepping/reason", "why", "needs a reason"),
        ("stepping/difference", -1.0, "difference is -1.0"),
        ("stepping/frame_seconds", float("nan"), "frame_seconds is nan"),
        ("stepping/attributes", {"rate": float("inf")}, "attribute 'rate'"),
        ("stepping/shared/0/choices", [], "choices of 'gain'"),
        ("stepping/shared/0/choices", [1.0, 1.0], "choices of 'gain'"),
        ("stepping/shared/0/choices", [1e300], "no float32"),
        ("limits", {}, "message_steps"),
        ("graphs/step/inputs/0/shape", ["batch", "time"], "has the shape"),
        ("graphs/step/inputs/0/shape", [4, "batch"], "has the shape"),
        ("graphs/step/inputs/0/dtype", "complex64", "not a number"),
        ("graphs/step/inputs/1/shape", ["batch"], "has the shape"),
        ("state/0/carried", "yes", "not of type"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, path, value, message):
    content = edited(content_of(tmp_path, gains=(1.0, 2.0)), path, value)
    with pytest.raises(ManifestInvalid, match=message):
        Manifest.from_json(content)


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("int8", 127, True), ("int8", 128, False), ("int64", 1.5, False), ("uint8", -1, False),
        ("bool", 1, True), ("bool", 2, False), ("float16", 1e5, False), ("float32", 0.1, True),
        ("int64", float("inf"), False), ("float32", float("nan"), False),
    ],
)  # fmt: skip
def test_a_choice_fits_its_type(dtype, value, fits):
    assert (problem_of_choice(dtype, value) is None) == fits
