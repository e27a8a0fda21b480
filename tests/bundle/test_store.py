import hashlib
import json
import shutil

import numpy as np
import pytest

from bundle.errors import (
    BundleCorrupt,
    BundleMissing,
    ManifestInvalid,
    SchemaUnknown,
)
from bundle.manifest import Manifest
from bundle.store import MANIFEST_FILE, read_bundle, read_weights, staged, write_weights
from tests.tiny import edit_manifest

FILES = ("step.onnx", "prime.onnx", "score.onnx", "weights.bin", "vocabulary.json")


@pytest.fixture
def folder(models_copy):
    return models_copy / "letters" / "1"


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused(folder, name):
    """One changed bit anywhere in any file stops the load and names that file."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleCorrupt, match=rf"{name}.*export the bundle again"):
        read_bundle(folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleMissing, match=name):
        read_bundle(folder)


def test_a_truncated_file_is_refused(folder):
    content = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(content[:-1])
    with pytest.raises(BundleCorrupt, match=f"has {len(content) - 1} bytes"):
        read_bundle(folder)


def test_another_schema_version_is_refused(folder):
    edit_manifest(folder, lambda content: content.update(schema_version=99))
    with pytest.raises(SchemaUnknown, match=r"manifest.json: it has schema version 99"):
        read_bundle(folder)


def test_a_manifest_that_is_no_json_is_refused(folder):
    (folder / MANIFEST_FILE).write_text("{")
    with pytest.raises(BundleCorrupt, match="not JSON"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("limits"), r"missing fields \['limits'\]"),
        (lambda c: c.update(extra=1), r"unknown fields \['extra'\]"),
        (lambda c: c.update(task="paint"), "task 'paint' is not one of"),
        (lambda c: c.update(version="1"), "manifest.version is '1'"),
        (lambda c: c.update(version=True), "manifest.version is True"),
        (lambda c: c["graphs"].pop("score"), "needs the graph 'score'"),
        (lambda c: c["limits"].pop("output_tokens"), "needs the limit 'output_tokens'"),
        (lambda c: c["state"].pop(), "state: .* does not match"),
        (lambda c: c["state"][0].update(shape=[7]), "state: .* does not match"),
        (lambda c: c["state"][0].update(carried=False), "carried state: .* does not match"),
        (lambda c: c["files"].pop("step.onnx"), "'step.onnx' is used but has no hash"),
        (lambda c: c["weights"].update(file="../w"), "'../w' is not a plain name"),
        (lambda c: c["tokenizers"]["input"].update(vocabulary="none"), "no vocabulary 'none'"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder, change, message):
    edit_manifest(folder, change)
    with pytest.raises(ManifestInvalid, match=message):
        read_bundle(folder)


def test_limits_and_labels_must_fit_the_graphs(models_copy):
    """A source longer than the memory, or a label without a probability, is refused."""
    edit_manifest(models_copy / "speller" / "1", lambda c: c["limits"].update(input_tokens=64))
    with pytest.raises(ManifestInvalid, match="input_tokens is 64, and 'memory' holds 10"):
        read_bundle(models_copy / "speller" / "1")
    edit_manifest(models_copy / "mood" / "1", lambda c: c["labels"].append("calm"))
    with pytest.raises(ManifestInvalid, match=r"labels: .* does not match"):
        read_bundle(models_copy / "mood" / "1")


def test_a_vocabulary_of_another_shape_is_refused(folder):
    """The right hash over the wrong content: still an error that names the file."""
    path = folder / "vocabulary.json"
    path.write_text('{"input": ["a"]}')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = {"sha256": digest, "bytes": path.stat().st_size}
    edit_manifest(folder, lambda c: c["files"].update({"vocabulary.json": spec}))
    with pytest.raises(ManifestInvalid, match=r"vocabulary.json holds no vocabularies"):
        read_bundle(folder)


def test_json_keeps_a_manifest(folder):
    manifest = read_bundle(folder).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_weights_come_back_as_they_were_written(tmp_path):
    tensors = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 3), np.int64)}
    places = write_weights(tmp_path, tensors)
    assert [place.offset for place in places.tensors.values()] == [0, 4096]
    raw = (tmp_path / places.file).read_bytes()
    place = places.tensors["b"]
    assert np.frombuffer(raw[place.offset :], np.int64).tolist() == [1] * 6


def test_weights_are_read_by_name(folder):
    bundle = read_bundle(folder)
    weights = read_weights(bundle)
    assert weights.keys() == bundle.manifest.weights.tensors.keys()
    assert weights["embedding.weight"].shape == (len(bundle.tokenizers["input"].vocabulary), 6)


def test_a_failed_write_leaves_the_older_bundle_whole(folder):
    """Whatever interrupts a write, the reader finds the old bundle or the new one."""
    before = read_bundle(folder).digest

    def fail():
        with staged(folder) as stage:
            (stage / "step.onnx").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read_bundle(folder).digest == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_written_bundle_replaces_the_older_one(folder):
    with staged(folder) as stage:
        shutil.copytree(folder, stage, dirs_exist_ok=True)
        (stage / "note").write_text("new")
    assert (folder / "note").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
