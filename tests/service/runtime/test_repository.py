import shutil

import pytest

from bundle.errors import ManifestInvalid
from bundle.store import read_bundle
from service.runtime import devices
from service.runtime.devices import DeviceUnavailable, choose_provider
from service.runtime.repository import NoModels, load_models, newest_versions
from service.runtime.sessions import SessionSettings, open_session
from tests.tiny import edit_manifest

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)


def test_the_highest_version_is_served_by_number(tmp_path):
    for version in ("2", "10", "9", "draft", ".10-tmp"):
        (tmp_path / "m" / version).mkdir(parents=True)
    assert newest_versions(tmp_path) == [tmp_path / "m" / "10"]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(NoModels, match="holds no bundle"):
        newest_versions(tmp_path)


def test_a_spoiled_bundle_is_refused_and_the_others_load(models_copy):
    (models_copy / "mood" / "1" / "predict.onnx").unlink()
    loaded, refused = load_models(models_copy, CPU)
    assert sorted(model.bundle.manifest.name for model in loaded) == ["letters", "speller"]
    (bundle,) = refused
    assert (bundle.name, bundle.version) == ("mood", "1")
    assert "predict.onnx cannot be read" in bundle.reason


def test_a_bundle_in_the_wrong_place_is_refused(models_copy):
    shutil.move(models_copy / "mood" / "1", models_copy / "mood" / "2")
    _, refused = load_models(models_copy, CPU)
    assert "move it to mood/1" in refused[0].reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda port: port.update(name="other"), "input 'other' is None in the graph"),
        (lambda port: port.update(dtype="float32"), "input 'tokens' is"),
        (lambda port: port.update(shape=["batch", 7]), "input 'tokens' is"),
    ],
)
def test_a_graph_that_disagrees_with_its_manifest_is_refused(models_copy, change, message):
    folder = models_copy / "mood" / "1"
    edit_manifest(folder, lambda c: change(c["graphs"]["predict"]["inputs"][0]))
    with pytest.raises(ManifestInvalid, match=f"(?s){message}.*export the bundle again"):
        open_session(read_bundle(folder), "predict", CPU)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    """onnxruntime would fall back to the CPU without a word."""
    monkeypatch.setattr(
        devices.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(DeviceUnavailable, match="--device cuda"):
        choose_provider("cuda")
    assert choose_provider("auto") == "CPUExecutionProvider"


def test_a_silent_fall_back_is_refused(models_copy, monkeypatch):
    """A runtime that offers CUDA but gives the CPU stops a start with --device cuda."""
    bundle = read_bundle(models_copy / "mood" / "1")
    asked = SessionSettings("cuda", "CPUExecutionProvider", 1)
    with pytest.raises(DeviceUnavailable, match="fell back to CPUExecutionProvider"):
        open_session(bundle, "predict", asked)


def test_both_runtimes_at_once_are_refused(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda name: True)
    with pytest.raises(DeviceUnavailable, match="both installed"):
        choose_provider("cpu")
