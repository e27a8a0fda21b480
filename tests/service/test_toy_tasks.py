"""Tasks of another package: registered, written as bundles, served, called."""

import re
from collections.abc import Mapping
from pathlib import Path

import grpc
import onnx
import pytest
from onnx import TensorProto, helper

from bundle.errors import ManifestInvalid
from bundle.manifest import (
    SCHEMA_VERSION,
    ExportFacts,
    GraphSpec,
    Manifest,
    TensorSpec,
)
from bundle.store import (
    VOCABULARY_FILE,
    read_bundle,
    write_manifest,
    write_vocabularies,
    write_weights,
)
from bundle.tasks import TaskSpec
from service.config import ConfigInvalid
from service.tasks import Task, register
from service.tasks.registry import load_modules
from tests.service import toy_tasks
from tests.service.oip.calls import Inference, ask, read
from tests.service.processes import port_of, serve
from unroll import Client, RequestFailed
from unroll.inference import grpc_service_pb2 as pb

TASK_MODULE = toy_tasks.__name__


def write_bundle(folder: Path, task: str, graphs: Mapping[str, GraphSpec]) -> None:
    """What is not trained here has no configuration, weights, vocabularies or figures."""
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=folder.parent.name,
        version=int(folder.name),
        task=task,
        description=f"a toy that can {task}",
        model={},
        graphs=dict(graphs),
        weights=write_weights(folder, {}),
        state=(),
        tokenizers=write_vocabularies(folder, {}),
        vocabulary_file=VOCABULARY_FILE,
        labels=(),
        vector=(),
        sampling={},
        limits={},
        figures=(),
        precisions={},
        data=(),
        training={},
        export=ExportFacts("", onnx.__version__, "", 18, {}, 0.0),
    )
    write_manifest(folder, manifest)


def write_reversing(folder: Path) -> None:
    """ReverseSequence as a graph of its own."""
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("reversed", TensorProto.INT64, ["batch", "time"])]
    node = helper.make_node(
        "ReverseSequence", ["tokens", "lengths"], ["reversed"], batch_axis=0, time_axis=1
    )
    graph = helper.make_graph([node], "reverse", inputs, outputs)
    opset = [helper.make_opsetid("", 18)]
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "reverse.onnx")
    spec = GraphSpec(
        "reverse.onnx",
        (
            TensorSpec("tokens", "int64", ("batch", "time")),
            TensorSpec("lengths", "int64", ("batch",)),
        ),
        (TensorSpec("reversed", "int64", ("batch", "time")),),
    )
    write_bundle(folder, "reverse", {"predict": spec})


@pytest.fixture
def toys(tmp_path):
    """A folder of models with a bundle of each toy task."""
    write_reversing(tmp_path / "mirror" / "1")
    (tmp_path / "ruler" / "3").mkdir(parents=True)
    write_bundle(tmp_path / "ruler" / "3", "count", {})
    return tmp_path


def answers(target, model, tokens):
    with Inference(target) as inference:
        response = inference.stub.ModelInfer(ask(model, {"tokens": tokens}), timeout=20)
    return read(response)["answer"].tolist()


def test_a_registered_task_is_served_and_answers_over_the_inference_protocol(start_service, toys):
    service = start_service(models=toys)
    assert answers(service.target, "mirror", [1, 2, 3, 9]) == [9, 3, 2, 1]
    assert answers(service.target, "mirror.tensors", [5]) == [5]
    assert answers(service.target, "ruler", [4, 4, 4, 4, 4]) == [5]


def test_its_metadata_configuration_and_index_name_it(start_service, toys):
    with Inference(start_service(models=toys).target) as inference:
        stub = inference.stub
        reported = stub.ModelMetadata(pb.ModelMetadataRequest(name="mirror"), timeout=20)
        assert [(port.name, port.datatype, list(port.shape)) for port in reported.inputs] == [
            ("tokens", "INT64", [-1])
        ]
        assert (reported.outputs[0].name, reported.versions) == ("answer", ["1"])
        config = stub.ModelConfig(pb.ModelConfigRequest(name="ruler"), timeout=20).config
        assert config.parameters["task"].string_value == "count"
        assert list(config.version_policy.specific.versions) == [3]
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=20)
        names = {model.name: (model.version, model.state) for model in index.models}
        assert names == {
            "mirror": ("1", "READY"), "mirror.tensors": ("1", "READY"),
            "ruler": ("3", "READY"), "ruler.tensors": ("3", "READY"),
        }  # fmt: skip


def test_calls_of_other_tasks_name_what_it_answers(start_service, toys):
    with Client(start_service(models=toys).target, timeout=20) as client:
        with pytest.raises(RequestFailed, match="'mirror' does not classify; call ModelInfer"):
            client.classify("mirror", ["a"])
        assert [model.name for model in client.list_models().models] == ["mirror", "ruler"]


def test_it_is_batched_counted_and_reloaded_as_every_model(start_service, toys):
    service = start_service(models=toys)
    with Inference(service.target) as inference:
        inference.stub.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name="mirror"), timeout=20
        )
        with pytest.raises(grpc.RpcError, match="was unloaded"):
            answers(service.target, "mirror", [1])
        inference.stub.RepositoryModelLoad(
            pb.RepositoryModelLoadRequest(model_name="mirror"), timeout=20
        )
        assert answers(service.target, "mirror", [1, 2]) == [2, 1]
        request = pb.ModelStatisticsRequest(name="mirror")
        (counted,) = inference.stub.ModelStatistics(request, timeout=20).model_stats
    assert (counted.inference_count, counted.execution_count) == (1, 1)


def test_a_server_process_finds_it_by_the_setting_task_modules(run, toys):
    process = serve(run, toys, "--task-modules", TASK_MODULE)
    assert answers(f"127.0.0.1:{port_of(process)}", "mirror", [7, 8]) == [8, 7]
    checked = run("check", "--models", toys, "--task-modules", TASK_MODULE)
    assert checked.end() == 0
    assert "reverse in fp32" in checked.output


def test_a_process_that_was_not_given_it_refuses_its_bundle(run, toys):
    checked = run("check", "--models", toys)
    assert checked.end() == 1
    assert re.search(r"task 'reverse' is not one of classify, .*vec2seq", checked.output)


def test_a_module_that_cannot_be_imported_stops_the_start(run, toys):
    process = serve(run, toys, "--task-modules", "no_such_module")
    assert process.end() == 2
    assert "task_modules: module 'no_such_module' cannot be imported" in process.output
    with pytest.raises(ConfigInvalid, match="no_such_module"):
        load_modules(f"{TASK_MODULE}, no_such_module")


def test_a_task_takes_no_name_that_is_taken(toys):
    with pytest.raises(ValueError, match="there is a task 'classify' already"):
        register(Task(TaskSpec("classify", ()), toy_tasks.build_count, toy_tasks.RowAdapter))


def test_a_bundle_without_a_graph_of_its_task_is_refused(toys):
    folder = toys / "ruler" / "4"
    folder.mkdir()
    with pytest.raises(ManifestInvalid, match="task 'reverse' needs the graph 'predict'"):
        write_bundle(folder, "reverse", {})
    assert read_bundle(toys / "ruler" / "3").manifest.task == "count"
