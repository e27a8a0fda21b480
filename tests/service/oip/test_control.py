"""Loading and unloading by the protocol's calls: what they read, what they refuse, what they do."""

import json
import shutil
import threading

import grpc
import pytest

from service.engine.errors import WrongInput
from service.oip.version_policy import read_policy
from service.serving.control_types import VersionPolicy
from tests.service.oip.calls import Inference, ask, read
from tests.service.oip.test_adapters import padded
from tests.service.oip.test_sequences import IDS, step
from tests.tiny import edit_manifest
from unroll.inference import grpc_service_pb2 as pb


def load(inference, name, **parameters):
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        if isinstance(value, bytes):
            request.parameters[key].bytes_param = value
        else:
            request.parameters[key].string_param = value
    return inference.stub.RepositoryModelLoad(request, timeout=60)


def unload(inference, name):
    request = pb.RepositoryModelUnloadRequest(model_name=name)
    request.parameters["unload_dependents"].bool_param = False
    return inference.stub.RepositoryModelUnload(request, timeout=60)


def add_version(models, name, version):
    """A copy of version 1 with another number, and so another digest."""
    folder = shutil.copytree(models / name / "1", models / name / str(version))
    edit_manifest(folder, lambda content: content.update(version=version))
    return folder


def specific(*versions):
    return json.dumps({"version_policy": {"specific": {"versions": versions}}})


@pytest.fixture
def models_service(start_service, models_copy):
    return start_service(models=models_copy)


@pytest.fixture
def changing(models_service):
    with Inference(models_service.target) as inference:
        yield inference


def test_versions_are_loaded_side_by_side_and_called_by_number(changing, models_copy):
    add_version(models_copy, "mood", 2)
    load(changing, "mood", config=specific(1, 2))
    assert list(changing.metadata("mood").versions) == ["1", "2"]
    for version, answers in (("", "2"), ("1", "1"), ("2", "2")):
        request = ask("mood", {"text": [["bad"]]}, model_version=version)
        assert changing.stub.ModelInfer(request, timeout=20).model_version == answers
    assert [
        (s.name, s.version)
        for s in changing.stub.ModelStatistics(pb.ModelStatisticsRequest(name="mood")).model_stats
    ] == [("mood", "1"), ("mood", "2")]


def test_a_new_version_takes_over_without_a_lost_request(changing, models_copy):
    """Requests that run meanwhile are all answered, streams by the version they began on."""
    add_version(models_copy, "letters", 2)
    versions, stop = [], threading.Event()

    def keep_asking():
        while not stop.is_set():
            request = ask("letters", {"prompt": ["abc"]}, parameters={"max_tokens": 20})
            found = {
                response.infer_response.model_version or response.error_message
                for response in changing.stub.ModelStreamInfer(iter([request]), timeout=60)
            }
            versions.append(found)

    askers = [threading.Thread(target=keep_asking) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        load(changing, "letters")
        count = len(versions)
        while len(versions) < count + 6 and any(asker.is_alive() for asker in askers):
            stop.wait(0.01)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert all(found in ({"1"}, {"2"}) for found in versions), versions
    assert versions[-1] == {"2"}


def test_a_sequence_goes_on_with_the_version_it_began_on(changing, models_copy):
    add_version(models_copy, "letters", 2)
    whole = changing.infer("letters.tensors", padded([IDS]), True)
    begin = step(IDS[:3], {"sequence_id": 1, "sequence_start": True})
    changing.stub.ModelInfer(begin, timeout=20)
    load(changing, "letters")
    answer = changing.stub.ModelInfer(step(IDS[3:], {"sequence_id": 1}), timeout=20)
    assert answer.model_version == "1"
    assert (read(answer)["logits"] == whole["logits"]).all()
    wrong = step(IDS, {"sequence_id": 1})
    wrong.model_version = "2"
    with pytest.raises(grpc.RpcError) as caught:
        changing.stub.ModelInfer(wrong, timeout=20)
    assert "began on version '1'" in caught.value.details()


def test_an_unload_ends_sequences_of_versions_that_were_replaced_too(
    models_service, changing, models_copy
):
    add_version(models_copy, "letters", 2)
    changing.stub.ModelInfer(step(IDS[:3], {"sequence_id": 1, "sequence_start": True}), timeout=20)
    load(changing, "letters")
    assert len(models_service.app.sequences) == 1
    unload(changing, "letters")
    assert len(models_service.app.sequences) == 0
    states = changing.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=20).models
    assert {m.state for m in states if m.name == "letters"} == {"UNAVAILABLE"}


def test_a_load_that_fails_keeps_what_is_served(changing, models_copy):
    folder = add_version(models_copy, "mood", 2)
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(grpc.RpcError) as caught:
        load(changing, "mood")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "weights.bin" in caught.value.details()
    request = ask("mood", {"text": [["bad"]]})
    assert changing.stub.ModelInfer(request, timeout=20).model_version == "1"
    index = changing.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=20).models
    assert {(m.name, m.version): m.state for m in index if m.name == "mood"} == {
        ("mood", "1"): "READY",
        ("mood", "2"): "UNAVAILABLE",
    }


def test_a_version_that_was_refused_is_forgotten_with_its_folder(
    models_service, changing, models_copy
):
    """Else its alert would fire until the next start."""
    folder = add_version(models_copy, "mood", 2)
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(grpc.RpcError, match="FAILED_PRECONDITION"):
        load(changing, "mood")
    state = {"model": "mood", "version": "2", "state": "refused"}
    assert models_service.metric("unroll_model_state", **state) == 1
    shutil.rmtree(folder)
    load(changing, "mood")
    assert models_service.metric("unroll_model_state", **state) == 0


def test_what_is_unloaded_is_gone_by_both_names_until_it_is_loaded(changing):
    unload(changing, "mood.tensors")
    for name in ("mood", "mood.tensors"):
        assert not changing.stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=20).ready
        with pytest.raises(grpc.RpcError) as caught:
            changing.metadata(name)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        unload(changing, "mood")
    load(changing, "mood")
    assert changing.infer("mood", {"text": [["bad"]]})["label"].size == 1


NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


def test_a_load_that_makes_no_sense_is_refused(changing):
    for name, parameters, code in (
        ("nothing", {}, NOT_FOUND),
        ("../models/mood", {}, NOT_FOUND),
        ("", {}, NOT_FOUND),
        ("mood", {"config": specific(7)}, NOT_FOUND),
        ("mood", {"config": "{"}, INVALID),
        ("mood", {"config": "[" * 100_000}, INVALID),
        ("mood", {"file:1/model.onnx": b"x"}, INVALID),
        ("mood", {"priority": "1"}, INVALID),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            load(changing, name, **parameters)
        assert caught.value.code() is code, (name, parameters, caught.value.details())
    assert changing.infer("mood", {"text": [["bad"]]})["label"].size == 1


def test_control_can_be_off(start_service):
    with Inference(start_service(model_control="none").target) as inference:
        for change in (load, unload):
            with pytest.raises(grpc.RpcError) as caught:
                change(inference, "mood")
            assert "--model-control explicit" in caught.value.details()


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        ({}, None),
        ({"version_policy": {"latest": {}}}, VersionPolicy()),
        ({"version_policy": {"latest": {"num_versions": 2}}}, VersionPolicy(latest=2)),
        ({"versionPolicy": {"latest": {"numVersions": 2}}}, VersionPolicy(latest=2)),
        ({"version_policy": {"all": {}}}, VersionPolicy(all=True)),
        ({"version_policy": {"specific": {"versions": [3, "1"]}}}, VersionPolicy(specific=(3, 1))),
    ],
)
def test_version_policies_are_read(config, policy):
    assert read_policy(config) == policy


@pytest.mark.parametrize(
    "config",
    [
        [], {"max_batch_size": 3}, {"version_policy": 1}, {"version_policy": {}},
        {"version_policy": {"newest": {}}}, {"version_policy": {"latest": {}, "all": {}}},
        {"version_policy": {"latest": {"num_versions": 0}}}, {"version_policy": {"latest": 2}},
        {"version_policy": {"specific": {}}}, {"version_policy": {"specific": {"versions": [1.5]}}},
        {"version_policy": {"specific": {"versions": ["x"]}}},
        {"version_policy": {"all": {}}, "versionPolicy": {"latest": {}}},
    ],
)  # fmt: skip
def test_other_configurations_are_refused(config):
    with pytest.raises(WrongInput):
        read_policy(config)
