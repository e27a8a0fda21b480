"""The manifest of a classifier of frames: what it says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import ManifestInvalid
from bundle.manifest import Manifest
from bundle.store import read_bundle
from tests import tiny
from tests.bundle.test_stepping import edited


def content_of(models: Path, name: str = "strokes") -> dict[str, Any]:
    return dict(json.loads((models / name / "1" / "manifest.json").read_text()))


def test_its_frames_are_read_back_as_written(tiny_models):
    manifest = read_bundle(tiny_models / "strokes" / "1").manifest
    assert manifest.frames is not None
    assert (manifest.frames.channels, manifest.frames.frame_seconds) == (tiny.CHANNELS, 0.01)
    assert manifest.tokenizers == {}
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_it_needs_no_step(tiny_models):
    content = content_of(tiny_models)
    for name in ("step", "rows"):
        del content["graphs"][name]
    del content["stepping"]
    content["state"] = []
    assert Manifest.from_json(content).stepping is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("frames/channels", [], "it needs a channel at least"),
        ("frames/channels", ["x", "x", "y"], "a channel comes twice"),
        ("frames/channels", ["x", "y"], "does not match the graph's"),
        ("frames/frame_seconds", -1.0, "frame_seconds is -1.0"),
        ("frames", None, "the tokenizer 'input' and the limit 'input_tokens', or the field 'fr"),
        ("labels", ["line"], "labels"),
        ("limits", {"message_steps": 4}, "needs the limit 'input_frames'"),
        ("limits", {"input_frames": 4}, "task 'classify' needs the limit 'message_steps'"),
        ("stepping/answers", ["logits"], "answers"),
        ("graphs/predict/inputs/0/shape", ["batch", 7, 3], "does not match the graph's"),
    ],
)
def test_what_contradicts_itself_is_refused(tiny_models, path, value, message):
    content = edited(content_of(tiny_models), path, value)
    with pytest.raises(ManifestInvalid, match=message):
        Manifest.from_json(content)


def test_a_classifier_of_texts_has_neither_frames_nor_a_step(tiny_models):
    content = content_of(tiny_models, "mood")
    assert "frames" not in content
    content["graphs"]["step"] = content["graphs"]["predict"]
    with pytest.raises(ManifestInvalid, match="a classifier of texts is not stepped"):
        Manifest.from_json(content)
