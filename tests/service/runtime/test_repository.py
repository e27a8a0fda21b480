import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bundle.errors import BundleCorrupt, BundleMissing, ManifestInvalid
from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from service.runtime import devices, repository
from service.runtime.devices import DeviceUnavailable, choose_provider
from service.runtime.repository import (
    NoModels,
    Precisions,
    Repository,
    all_versions,
    load_models,
    newest_versions,
)
from service.runtime.sessions import SessionSettings, open_session
from tests.tiny import NAMES, edit_manifest, names_without

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)


def test_the_highest_version_is_served_by_number(tmp_path):
    for version in ("2", "10", "9", "draft", ".10-tmp"):
        (tmp_path / "m" / version).mkdir(parents=True)
    assert newest_versions(tmp_path) == [tmp_path / "m" / "10"]


def test_every_version_is_found_by_name_and_number(tmp_path):
    """Of a number that is written in two ways, the plain one; it is what manifests hold."""
    for place in ("b/2", "b/10", "b/010", "b/new", "a/1", "a/1/deeper", ".hidden/1"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "a" / "3").write_text("no folder")
    assert all_versions(tmp_path) == {
        "a": {1: tmp_path / "a" / "1"},
        "b": {2: tmp_path / "b" / "2", 10: tmp_path / "b" / "10"},
    }
    assert all_versions(tmp_path / "nothing") == {}


def test_a_bundle_that_is_known_is_verified_and_not_opened_again(models_copy):
    models, folder = Repository(models_copy, CPU), models_copy / "mood" / "1"
    loaded = models.load(folder)
    assert models.load(folder, known=loaded.bundle.digest) is None
    assert models.load(folder, known="another").bundle.digest == loaded.bundle.digest
    (folder / "predict.onnx").write_bytes(b"spoiled")
    with pytest.raises(BundleCorrupt):
        models.load(folder, known=loaded.bundle.digest)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(NoModels, match="holds no bundle"):
        newest_versions(tmp_path)


def test_a_spoiled_bundle_is_refused_and_the_others_load(models_copy):
    (models_copy / "mood" / "1" / "predict.onnx").unlink()
    loaded, refused = load_models(models_copy, CPU)
    assert sorted(m.bundle.manifest.name for m in loaded) == names_without("mood")
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


def test_a_session_on_several_threads_is_of_the_bundle_that_was_loaded(models_copy):
    """Its files are verified again, whatever has become of them."""
    folder = models_copy / "letters" / "1"
    loaded = Repository(models_copy, replace(CPU, threads=2)).load(folder)
    assert sorted(loaded.open_wide) == ["prime", "step"]
    assert loaded.open_wide["step"]().get_session_options().intra_op_num_threads == 2
    assert loaded.sessions["step"].get_session_options().intra_op_num_threads == 1
    (folder / "step.onnx").write_bytes(b"spoiled")
    with pytest.raises(BundleCorrupt, match=r"step\.onnx"):
        loaded.open_wide["step"]()
    shutil.rmtree(folder)
    with pytest.raises(BundleMissing):
        loaded.open_wide["prime"]()


def test_another_bundle_in_its_place_is_not_run_on_several_threads(models_copy):
    folder = models_copy / "letters" / "1"
    loaded = Repository(models_copy, replace(CPU, threads=2)).load(folder)
    edit_manifest(folder, lambda content: content.update(description="Another one."))
    with pytest.raises(BundleCorrupt, match="no longer the bundle that was loaded"):
        loaded.open_wide["step"]()


def test_one_thread_has_no_other_session(models_copy):
    assert not Repository(models_copy, CPU).load(models_copy / "letters" / "1").open_wide


def load(models, precisions, settings=CPU):
    """What each model runs in, and why others are refused."""
    loaded, refused = load_models(models, settings, precisions)
    return (
        {model.bundle.manifest.name: model.precision for model in loaded},
        {bundle.name: bundle.reason for bundle in refused},
    )


def test_int8_is_for_the_models_that_have_it(tiny_models):
    """By default none; asked for as the default, those whose bundle holds it, the rest fp32."""
    all_fp32 = dict.fromkeys(NAMES, "fp32")
    assert load(tiny_models, Precisions()) == (all_fp32, {})
    assert load(tiny_models, Precisions("int8")) == (all_fp32 | {"letters": "int8"}, {})
    assert load(tiny_models, Precisions("int8", {"letters": "fp32"})) == (all_fp32, {})
    assert load(tiny_models, Precisions("fp32", {"letters": "int8"}))[0]["letters"] == "int8"


def test_a_named_precision_that_a_bundle_lacks_refuses_it(tiny_models):
    loaded, refused = load(tiny_models, Precisions("fp32", {"speller": "int8"}))
    assert sorted(loaded) == names_without("speller")
    assert "speller is to run in int8, and its bundle has fp32; export it" in refused["speller"]


def test_a_precision_for_a_model_that_is_not_there_stops_the_start(tiny_models):
    """A name with a slip in it would else be a setting without effect."""
    with pytest.raises(NoModels, match=r"'leters'; .* holds bigrams, .*, tags-online"):
        load_models(tiny_models, CPU, Precisions("fp32", {"leters": "int8"}))


def test_int8_is_refused_on_another_device_than_the_cpu(tiny_models, monkeypatch):
    session = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(repository, "open_session", lambda *arguments: session)
    cuda = SessionSettings("auto", "CUDAExecutionProvider", 1)
    loaded, refused = load(tiny_models, Precisions("int8"), cuda)
    assert loaded == dict.fromkeys(names_without("letters"), "fp32")
    assert "int8 runs on the CPU alone; use --device cpu or --precision" in refused["letters"]


@pytest.mark.parametrize(("precision", "file"), [("fp32", "step.onnx"), ("int8", "step_int8.onnx")])
def test_only_the_graphs_of_the_chosen_precision_are_opened(
    tiny_models, precision, file, monkeypatch
):
    opened = []

    def open_and_note(bundle, graph, settings):
        opened.append(bundle.path_of(graph).name)
        return open_session(bundle, graph, settings)

    monkeypatch.setattr(repository, "open_session", open_and_note)
    loaded, _ = load_models(tiny_models, CPU, Precisions(precision))
    assert set(opened) == {"predict.onnx", "prime.onnx", "score.onnx", "step.onnx", file}
    # A generator's prompts go through its int8 step; a source still needs the encoder, a generator
    # without a state has nothing to prefill, and a forecaster scores nothing.
    assert opened.count("prime.onnx") == opened.count("score.onnx") - (precision == "int8")
    assert opened.count("step.onnx") == (7 if precision == "fp32" else 6)
    (letters,) = (model for model in loaded if model.bundle.manifest.name == "letters")
    assert sorted(letters.sessions) == [
        *(["prime"] if precision == "fp32" else []),
        "score",
        "step",
    ]


def as_of_an_earlier_release(content):
    """Steps that read a row of bias and of seen for each row of the batch."""
    for name in ("step", "step_int8"):
        inputs = [p for p in content["graphs"][name]["inputs"] if p["name"] not in ADDED]
        for port in inputs:
            port["shape"] = ["batch" if axis == "adjusted" else axis for axis in port["shape"]]
        content["graphs"][name]["inputs"] = inputs


ADDED = ("retries", "adjusted")


def test_a_step_graph_of_an_earlier_release_is_refused_and_exported_anew(models_copy, tmp_path):
    """The message has the command; the others are served meanwhile."""
    folder = models_copy / "letters" / "1"
    edit_manifest(folder, as_of_an_earlier_release)
    loaded, (refused,) = load_models(models_copy, CPU)
    assert sorted(m.bundle.manifest.name for m in loaded) == names_without("letters")
    assert f"python -m export letters --bundle {folder} --models FOLDER" in refused.reason
    assert "adjusted, retries" in refused.reason
    export_bundle(trained_from_bundle(read_bundle(folder)), tmp_path / "letters" / "1")
    loaded, refused = load_models(tmp_path, CPU)
    assert [m.bundle.manifest.name for m in loaded] == ["letters"]
    assert refused == []
