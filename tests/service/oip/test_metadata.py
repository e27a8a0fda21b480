"""What the service says of itself, and what it says of what it does not offer."""

import json
import logging

import grpc
import pytest

import service
from tests.service.oip.calls import Inference, ask
from tests.tiny import NAMES, TAGS
from unroll.inference import grpc_service_pb2 as pb


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20)
    return caught.value.code(), caught.value.details()


def test_the_server_is_live_ready_and_says_what_it_is(inference):
    stub = inference.stub
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=20).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=20).ready
    reported = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=20)
    assert (reported.name, reported.version) == ("unroll", service.__version__)
    assert {"sequence", "statistics", "model_repository"} <= set(reported.extensions)
    assert not any("shared_memory" in name or name == "trace" for name in reported.extensions)


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("mood", "", True), ("mood", "1", True), ("mood.tensors", "1", True), ("mood", "2", False),
        ("moods", "", False), ("", "", False), ("mood.tensors.tensors", "", False),
    ],
)  # fmt: skip
def test_a_model_is_ready_by_both_of_its_names(inference, name, version, ready):
    request = pb.ModelReadyRequest(name=name, version=version)
    assert inference.stub.ModelReady(request, timeout=20).ready is ready


def test_a_configuration_reports_labels_limits_and_settings(inference):
    facts = {k: v.string_value for k, v in inference.config("tags").parameters.items()}
    assert json.loads(facts["labels"]) == list(TAGS)
    assert json.loads(facts["limits"])["input_tokens"] == 64
    facts = inference.config("letters").parameters
    assert "temperature" in facts["parameters"].string_value
    assert json.loads(facts["vocabulary"].string_value)[1] == "a"


def test_a_sequence_batching_model_reports_its_state(inference):
    batching = inference.config("letters.tensors").sequence_batching
    assert batching.oldest.max_candidate_sequences == 1024
    assert batching.max_sequence_idle_microseconds == 60_000_000
    names = [(state.input_name, state.output_name) for state in batching.state]
    assert ("hidden_1", "next_hidden_1") in names
    assert all(state.initial_state[0].zero_data for state in batching.state)


def test_the_index_lists_both_names_of_what_is_ready(inference):
    reported = inference.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=20)
    assert {(m.name, m.version, m.state) for m in reported.models} == {
        (name + form, "1", "READY") for name in NAMES for form in ("", ".tensors")
    }


def test_there_is_one_repository(inference):
    code, reported = refusal(
        inference.stub.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="other")
    )
    assert (code, "'other'" in reported) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize(
    ("method", "request_of", "instead"),
    [
        ("TraceSetting", pb.TraceSettingRequest(), "ModelStatistics"),
        *(
            (f"{kind}SharedMemory{verb}", getattr(pb, f"{kind}SharedMemory{verb}Request")(), "raw_")
            for kind in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        ),
    ],
)
def test_what_is_not_offered_says_what_to_use_instead(inference, method, request_of, instead):
    code, reported = refusal(getattr(inference.stub, method), request_of)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert instead in reported


# -- statistics ---------------------------------------------------------------------------------


def test_statistics_are_what_was_done(start_service):
    """Counts by outcome, inputs, and the rows of the batches that ran add up."""
    with Inference(start_service().target) as inference:
        texts = {"text": [["bad"], ["the food"], ["not good"]]}
        for _ in range(4):
            inference.infer("mood", texts)
        inference.infer("mood.tensors", {"tokens": [[1, 2]], "lengths": [[2]]})
        for request in (ask("mood", {"txet": [["bad"]]}), ask("mood", {"text": [[""]]})):
            assert refusal(inference.stub.ModelInfer, request)[0]
        inference.stream(ask("mood", texts), ask("mood", {"txet": [["bad"]]}))
        stats = inference.statistics("mood")
        assert inference.statistics("mood.tensors").inference_stats == stats.inference_stats
    times = stats.inference_stats
    assert (times.success.count, times.fail.count) == (6, 3)
    assert times.queue.count == times.compute_infer.count == 6
    assert times.compute_input.count == times.compute_output.count == 6
    assert stats.inference_count == 4 * 3 + 1 + 3
    ran = {batch.batch_size: batch.compute_infer.count for batch in stats.batch_stats}
    assert sum(rows * count for rows, count in ran.items()) == 16
    assert sum(ran.values()) == stats.execution_count
    assert sum(batch.compute_infer.ns for batch in stats.batch_stats) > 0
    assert times.success.ns > times.compute_infer.ns > 0


def test_statistics_of_a_stream_count_its_steps(start_service):
    with Inference(start_service().target) as inference:
        inference.stream(ask("letters", {"prompt": ["abc"]}, parameters={"max_tokens": 30}))
        stats = inference.statistics("letters")
    assert (stats.inference_count, stats.inference_stats.success.count) == (1, 1)
    assert stats.execution_count == 30
    assert [(b.batch_size, b.compute_infer.count) for b in stats.batch_stats] == [(1, 30)]
    assert stats.last_inference > 1_600_000_000_000


def test_statistics_without_a_name_are_of_every_model(inference):
    reported = inference.stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=20)
    assert {stats.name for stats in reported.model_stats} == {
        name + form for name in NAMES for form in ("", ".tensors")
    }
    code, _ = refusal(inference.stub.ModelStatistics, pb.ModelStatisticsRequest(name="moods"))
    assert code is grpc.StatusCode.NOT_FOUND


# -- log settings -------------------------------------------------------------------------------


@pytest.fixture
def root_level():
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    yield root
    root.setLevel(before)


def settings(inference, **wanted):
    request = pb.LogSettingsRequest()
    for name, value in wanted.items():
        field = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[name], field, value)
    reported = inference.stub.LogSettings(request, timeout=20).settings
    return {name: getattr(v, v.WhichOneof("parameter_choice")) for name, v in reported.items()}


def test_log_settings_are_reported_and_changed(inference, root_level):
    usual = {"log_error": True, "log_warning": True, "log_info": True, "log_verbose_level": 0}
    assert settings(inference) == usual
    assert settings(inference, log_info=False) == usual | {"log_info": False}
    assert root_level.level == logging.WARNING
    assert settings(inference, log_info=True, log_verbose_level=1)["log_verbose_level"] == 1
    assert root_level.level == logging.DEBUG


@pytest.mark.parametrize(
    ("wanted", "reported"),
    [
        ({"log_file": "/tmp/log"}, "'log_file' does not exist"),
        ({"log_error": False}, "'log_error'"),
        ({"log_warning": False}, "'log_warning' is off"),
        ({"log_info": "yes"}, "'log_info' comes as bool_param"),
    ],
)
def test_log_settings_that_do_not_exist_are_refused(inference, root_level, wanted, reported):
    with pytest.raises(grpc.RpcError) as caught:
        settings(inference, **wanted)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reported in caught.value.details()
    assert root_level.level == logging.INFO
