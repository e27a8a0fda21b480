import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import (
    BundleCorrupt,
    BundleMissing,
    BundleTooLarge,
    ManifestInvalid,
    SchemaUnknown,
    WeightsNotFinite,
)
from bundle.manifest import Manifest
from bundle.store import (
    MANIFEST_FILE,
    MOST_JSON_BYTES,
    digest_of,
    read_bundle,
    read_weights,
    staged,
    write_weights,
)
from tests.reweighing import reweigh
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
        (lambda c: c.update(length_penalty=10.5), "length_penalty is 10.5; choose -10 to 10"),
        (lambda c: c.update(add_bos_token=1), "add_bos_token is 1, not of type"),
        (lambda c: c.update(add_bos_token=True), "the vocabulary has no symbol for 'bos'"),
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
    edit_manifest(models_copy / "mood" / "1", lambda c: c.update(add_bos_token=True))
    with pytest.raises(ManifestInvalid, match="add_bos_token is for the task 'generate' alone"):
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


# -- what was verified is what is used ------------------------------------------------------


def test_what_is_verified_is_what_the_bundle_holds(folder):
    """Files that change after the read change nothing of the bundle that was read."""
    bundle = read_bundle(folder)
    before = {name: array.copy() for name, array in read_weights(bundle).items()}
    for name in FILES:
        with (folder / name).open("r+b") as file:
            file.truncate(0)
    assert bundle.contents.keys() == bundle.manifest.files.keys()
    for name, spec in bundle.manifest.files.items():
        assert hashlib.sha256(bundle.contents[name]).hexdigest() == spec.sha256
    for name, array in read_weights(bundle).items():
        assert array.tobytes() == before[name].tobytes()


def test_each_file_is_opened_once(folder, monkeypatch):
    """Between two reads of a file anybody could write another one."""
    opened, real = [], os.open

    def noting(path, *arguments):
        opened.append(Path(path).name)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", noting)
    bundle = read_bundle(folder)
    assert sorted(opened) == sorted([MANIFEST_FILE, *bundle.manifest.files])


def test_a_vocabulary_that_vanishes_after_its_hash_changes_nothing(folder, monkeypatch):
    """The parsed vocabulary comes of the bytes that were verified."""
    real = hashlib.sha256

    def vanishing(content):
        for path in folder.glob("vocabulary.json"):
            if content == path.read_bytes():
                path.unlink()
        return real(content)

    monkeypatch.setattr("bundle.store.hashlib.sha256", vanishing)
    assert len(read_bundle(folder).tokenizers["input"].vocabulary)
    assert not (folder / "vocabulary.json").exists()


def test_the_digest_is_known_without_reading_the_files(folder):
    expected = read_bundle(folder).digest
    (folder / "weights.bin").unlink()
    assert digest_of(folder) == expected


# -- bounds ---------------------------------------------------------------------------------


def test_a_manifest_of_gigabytes_is_refused_unread(folder):
    with (folder / MANIFEST_FILE).open("r+b") as file:
        file.truncate(8 * 1024**3)  # a hole: it takes no room
    with pytest.raises(BundleTooLarge, match=f"at most {MOST_JSON_BYTES} are read"):
        read_bundle(folder)


def test_a_file_is_refused_by_its_size_before_it_is_read(folder):
    """By another size than listed, or by a list that is too long for this machine's memory."""
    with (folder / "weights.bin").open("r+b") as file:
        file.truncate(64 * 1024**3)
    with pytest.raises(BundleCorrupt, match=f"has {64 * 1024**3} bytes"):
        read_bundle(folder)
    spec = {"sha256": "0", "bytes": 64 * 1024**3}
    edit_manifest(folder, lambda c: c["files"].update({"weights.bin": spec}))
    with pytest.raises(BundleTooLarge, match="--max-bundle-bytes"):
        read_bundle(folder)
    (folder / "weights.bin").unlink()  # not even looked at
    with pytest.raises(BundleTooLarge):
        read_bundle(folder)


def test_the_limit_is_of_all_files_together(models_copy):
    folder = models_copy / "letters" / "1"
    total = sum(spec.bytes for spec in read_bundle(folder).manifest.files.values())
    assert read_bundle(folder, total).digest
    with pytest.raises(BundleTooLarge):
        read_bundle(folder, total - 1)


def test_a_vocabulary_too_large_to_parse_is_refused(folder):
    spec = {"sha256": "0", "bytes": MOST_JSON_BYTES + 1}
    edit_manifest(folder, lambda c: c["files"].update({"vocabulary.json": spec}))
    with pytest.raises(BundleTooLarge, match="lists a vocabulary"):
        read_bundle(folder)


def test_json_that_is_nested_without_end_is_refused(folder):
    (folder / MANIFEST_FILE).write_text("[" * 1_000_000)
    with pytest.raises(BundleCorrupt, match="not JSON"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["weights.bin", MANIFEST_FILE])
def test_a_pipe_instead_of_a_file_is_refused_and_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleCorrupt, match=f"{name} is not a regular file"):
        read_bundle(folder)


def test_a_folder_instead_of_a_file_is_refused(folder):
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()
    with pytest.raises(BundleMissing, match="Is a directory"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["weights\0.bin", "weights\ud800.bin", "w" * 10_000])
def test_a_name_that_no_file_can_have_is_refused(folder, name):
    edit_manifest(folder, lambda c: c["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleMissing, match="cannot be read"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["weights.bin", MANIFEST_FILE])
def test_a_link_out_of_the_bundle_is_refused(folder, tmp_path, name):
    """Even to the right content: what comes with a bundle is no way to other files."""
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleCorrupt, match=rf"{name} is a link that leads out of the bundle"):
        read_bundle(folder)


def test_links_of_the_folder_and_within_it_are_followed(folder, tmp_path):
    """As Kubernetes mounts volumes: files are links into a folder beside them, which is one too."""
    (folder / "..2031").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "..2031" / path.name)
        path.symlink_to(Path("..data") / path.name)
    (folder / "..data").symlink_to("..2031")
    (tmp_path / "elsewhere").symlink_to(folder)
    assert read_bundle(tmp_path / "elsewhere").digest == read_bundle(folder).digest


# -- weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(folder, value):
    """The hash is right, the model is broken; the last number of the last tensor counts, too."""
    reweigh(folder, folder, value)
    with pytest.raises(WeightsNotFinite, match=r"weights.bin: weight '.*' holds NaN or infinity"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(offset=-8), "lies outside"),
        (lambda w: w.update(offset=10**9), "lies outside"),
        (lambda w: w.update(shape=[2**40, 2**40]), "lies outside"),
        (lambda w: w.update(shape=[-1, -4]), "lies outside"),
        (lambda w: w.update(shape=[1] * 100), "lies outside"),
        (lambda w: w.update(dtype="object"), "of type 'object', not one of float16"),
    ],
)
def test_weights_that_lie_nowhere_are_refused(folder, change, message):
    edit_manifest(folder, lambda c: change(c["weights"]["tensors"]["embedding.weight"]))
    with pytest.raises(ManifestInvalid, match=message):
        read_bundle(folder)
