"""Foreign graphs: imported with what they need, and refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bundle.manifest import Manifest
from bundle.store import read_bundle
from export.bundles import trained_from_bundle
from export.foreign import gate
from export.foreign.bundles import import_model
from export.foreign.cli import main
from export.foreign.errors import ImportRefused
from export.foreign.mapping import KEYS, GraphMapping, ModelMapping, check_mapping, read_mapping
from export.foreign.steps import import_step
from export.foreign.surgery import open_model
from export.onnx_files import ExportRefused
from service.runtime.sessions import SessionSettings, open_session
from tests.export import foreign_graphs as graphs

SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)
STATE = {"s": "s_out"}


def imported(folder: Path, *mappings: GraphMapping, **options: Any) -> Manifest:
    """In this process: what runs apart is tested by itself."""
    target = folder / "models" / "m" / "1"
    target.mkdir(parents=True)
    import_step(ModelMapping("m", "step", mappings, **options), target)
    return read_bundle(target).manifest


def stepped(folder: Path, frames: list[np.ndarray], **shared: Any) -> list[dict[str, np.ndarray]]:
    """The answers of a new stream, one row, by the session that serves it."""
    bundle = read_bundle(folder / "models" / "m" / "1")
    session = open_session(bundle, "step", SETTINGS)
    names = [port.name for port in session.get_outputs()]
    spec, found = bundle.manifest.stepping, []
    assert spec is not None
    state = {s.name: np.zeros((1, *s.shape), s.dtype) for s in bundle.manifest.state}
    for frame in frames:
        feed = {spec.frames[0]: frame[None], **state, **shared}
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        state = {name: outputs.pop(f"next_{name}") for name in state}
        found.append({name: array[0] for name, array in outputs.items()})
    return found


def test_a_fixed_batch_of_one_is_freed(tmp_path):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    manifest = imported(tmp_path, GraphMapping(file, states=STATE))
    assert manifest.stepping is not None
    assert (manifest.stepping.batching, manifest.stepping.difference) == ("exact", 0.0)
    assert manifest.graphs["step"].inputs[0].shape == ("batch", 4)
    assert [(s.name, s.shape) for s in manifest.state] == [("s", (4,))]
    answers = stepped(tmp_path, [np.ones(4, np.float32)] * 2)
    assert [answer["y"].tolist() for answer in answers] == [[1.0] * 4, [1.5] * 4]


def test_reshapes_that_hold_the_batch_are_freed(tmp_path):
    file = graphs.lstm(tmp_path / "lstm.onnx")
    manifest = imported(tmp_path, GraphMapping(file, states={"h": "hn", "c": "cn"}))
    assert manifest.stepping is not None
    assert manifest.stepping.batching in ("exact", "none"), "a kernel may round by the batch"
    if manifest.stepping.batching == "none":
        assert "--allow-inexact" in manifest.stepping.reason
    assert manifest.export.parity["y"] <= gate.TOLERANCE


def test_batch_axes_differ_from_tensor_to_tensor(tmp_path):
    file = graphs.written(tmp_path / "axes.onnx", graphs.AXES)
    manifest = imported(tmp_path, GraphMapping(file, states={**STATE, "n": "n_out"}))
    assert manifest.stepping is not None
    assert manifest.stepping.batching == "exact"
    states = [(s.name, s.dtype, s.shape) for s in manifest.state]
    assert states == [("s", "float16", (2, 4)), ("n", "int32", ())]
    axes = manifest.training["imported"][0]["outputs"]
    assert [axes[name]["batch_axis"] for name in ("y", "s_out", "n_out")] == [2, 1, 0]
    (answer,) = stepped(tmp_path, [np.arange(4, dtype=np.float32)])
    assert answer["y"].tolist() == [[0], [2], [4], [6]]


def test_rows_that_mix_run_one_after_the_other(tmp_path):
    file = graphs.written(tmp_path / "mixed.onnx", graphs.MIXED)
    manifest = imported(tmp_path, GraphMapping(file, states=STATE), allow_inexact=True)
    assert manifest.stepping is not None
    assert manifest.stepping.batching == "none"
    assert "differs by" in manifest.stepping.reason
    bundle = read_bundle(tmp_path / "models" / "m" / "1")
    session = open_session(bundle, "step", SETTINGS)
    frames = np.arange(12, dtype=np.float32).reshape(3, 4)
    answers, after = session.run(None, {"x": frames, "s": np.ones((3, 4), np.float32)})
    assert not answers.any(), "each row is its own mean"
    assert np.array_equal(after, frames + 1)


@pytest.mark.parametrize("allow_inexact", [False, True])
def test_rows_that_are_nan_in_a_batch_alone_run_one_after_the_other(tmp_path, allow_inexact):
    file = graphs.written(tmp_path / "crowded.onnx", graphs.CROWDED)
    manifest = imported(tmp_path, GraphMapping(file, states=STATE), allow_inexact=allow_inexact)
    spec = manifest.stepping
    assert spec is not None
    assert (spec.batching, spec.reason) == (
        "none",
        "'y' of a row is NaN in a batch, and is not alone",
    )
    session = open_session(read_bundle(tmp_path / "models" / "m" / "1"), "step", SETTINGS)
    frames = np.ones((12, 4), np.float32)
    answers, _ = session.run(None, {"x": frames, "s": frames})
    assert np.array_equal(answers, frames + 1)


def test_one_nan_makes_a_verdict_of_several_choices_nan():
    for first, second in ((0.0, np.nan), (np.nan, 0.0)):
        verdict = gate.Verdict()
        for value in (first, second):
            verdict.add(gate.Verdict(rows={"y": value}, relative={"y": value}))
        assert not verdict.is_exact
        assert not verdict.is_close
        assert np.isnan(verdict.difference)


def test_a_constant_takes_its_branch(tmp_path):
    file = graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    manifest = imported(tmp_path, GraphMapping(file, states=STATE, constants={"sr": (8000,)}))
    assert [port.name for port in manifest.graphs["step"].inputs] == ["x", "s"]
    kinds = {node.op_type for node in onnx.load(tmp_path / "models/m/1/step.onnx").graph.node}
    assert "If" not in kinds
    assert stepped(tmp_path, [np.ones(4, np.float32)])[0]["y"].tolist() == [1.0] * 4


def test_a_constant_to_choose_is_shared_by_rows(tmp_path):
    file = graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    constants = {"sr": (16000, 8000)}
    manifest = imported(tmp_path, GraphMapping(file, states=STATE, constants=constants))
    assert manifest.stepping is not None
    assert manifest.stepping.shared[0].choices == (16000, 8000)
    frame = -np.ones(4, np.float32)
    wide = stepped(tmp_path, [frame], sr=np.array(16000))
    narrow = stepped(tmp_path, [frame], sr=np.array(8000))
    assert (wide[0]["y"].tolist(), narrow[0]["y"].tolist()) == ([0.0] * 4, [-1.0] * 4)


def test_a_context_is_carried(tmp_path):
    file = graphs.written(tmp_path / "window.onnx", graphs.WINDOW)
    manifest = imported(tmp_path, GraphMapping(file, contexts={"x": 2}))
    assert [(s.name, s.shape) for s in manifest.state] == [("x_context", (2,))]
    frames = [np.array([1, 2, 3, 4], np.float32), np.array([5, 6, 7, 8], np.float32)]
    sums = [answer["y"].item() for answer in stepped(tmp_path, frames)]
    assert sums == [10, 3 + 4 + 26]


def test_initial_values_are_those_of_a_new_stream_alone(tmp_path):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    np.save(tmp_path / "first.npy", np.array([[2, 4, 6, 8]], np.float32))
    mapping = GraphMapping(file, states=STATE, initial={"s": "first.npy"})
    manifest = imported(tmp_path, mapping)
    assert [s.name for s in manifest.state] == ["s", "started"]
    answers = stepped(tmp_path, [np.zeros(4, np.float32)] * 2)
    assert [answer["y"].tolist() for answer in answers] == [[1, 2, 3, 4], [0.5, 1, 1.5, 2]]


def test_a_pipeline_runs_in_one_step(tmp_path):
    leaky = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    other = graphs.written(tmp_path / "other.onnx", graphs.LEAKY.replace("leaky", "other"))
    manifest = imported(
        tmp_path,
        GraphMapping(leaky, "first", states=STATE),
        GraphMapping(other, "second", states=STATE, inputs={"x": "first.y"}, outputs={"y": "z"}),
    )
    assert manifest.stepping is not None
    assert (manifest.stepping.frames, manifest.stepping.answers) == (("x",), ("y", "z"))
    assert [s.name for s in manifest.state] == ["s", "second_s"]
    answers = stepped(tmp_path, [np.ones(4, np.float32)] * 2)
    assert [answer["z"][0].item() for answer in answers] == [1.0, 2.0]


def with_external_data(folder: Path, location: str, offset: str = "0") -> Path:
    model = graphs.graph(graphs.LEAKY)
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    (folder / "leaky.onnx").write_bytes(model.SerializeToString())
    return folder / "leaky.onnx"


def test_external_data_beside_the_file_is_read(tmp_path):
    (tmp_path / "half.bin").write_bytes(np.array([9.0, 0.5], np.float32).tobytes())
    file = with_external_data(tmp_path, "half.bin", offset="4")
    imported(tmp_path, GraphMapping(file, states=STATE))
    answers = stepped(tmp_path, [np.ones(4, np.float32)] * 2)
    assert answers[1]["y"].tolist() == [1.5] * 4


@pytest.mark.parametrize("location", ["../half.bin", "/etc/hostname", "", "link.bin"])
def test_external_data_elsewhere_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "half.bin").write_bytes(np.array([0.5], np.float32).tobytes())
    os.symlink(tmp_path / "half.bin", folder / "link.bin")
    file = with_external_data(folder, location)
    with pytest.raises(ImportRefused, match="external data"):
        imported(tmp_path, GraphMapping(file, states=STATE))


def refused(folder: Path, model: onnx.ModelProto, **mapping: Any) -> str:
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ImportRefused) as error:
        imported(folder, GraphMapping(folder / "m.onnx", **{"states": STATE, **mapping}))
    return str(error.value)


def test_control_flow_over_the_batch_is_refused(tmp_path):
    assert "control flow over the batch" in refused(tmp_path, graphs.graph(graphs.CHOOSING))


def test_a_graph_that_gives_nan_is_refused(tmp_path):
    assert "NaN or infinite" in refused(tmp_path, graphs.graph(graphs.NOT_FINITE))


def edited(change: str) -> onnx.ModelProto:
    model = graphs.graph(graphs.LEAKY)
    node = model.graph.node[0]
    if change == "domain":
        node.domain = "their.own"
        model.opset_import.append(helper.make_opsetid("their.own", 1))
    elif change == "training":
        node.domain = "ai.onnx.preview.training"
    elif change == "training info":
        model.training_info.add()
    elif change == "random":
        node.op_type = "Bernoulli"
        del node.input[1:]
    elif change == "old":
        model.opset_import[0].version = 7
    elif change == "string":
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    elif change == "operator":
        node.op_type = "NoSuchThing"
    elif change == "huge":
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40
    elif change == "dropout":
        training = numpy_helper.from_array(np.array(True), "training")
        model.graph.initializer.append(training)
        model.graph.node.append(helper.make_node("Dropout", ["y", "", "training"], ["z"]))
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("domain", "of the domain 'their.own'"),
        ("training", "is a training operator"),
        ("training info", "holds a training graph"),
        ("random", "draws random numbers"),
        ("old", "9 is the least"),
        ("string", "no tensor of numbers"),
        ("huge", "64 MiB"),
        ("dropout", "training mode"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, change, message):
    assert message in refused(tmp_path, edited(change))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"states": {"nothing": "s_out"}}, "has no input 'nothing'"),
        ({"states": {"s": "nothing"}}, "has no output 'nothing'"),
        ({"inputs": {"s": "s"}, "states": {}}, "neither frame, state nor constant"),
        ({"axes": {"x": 1}}, "axis 1 is not its batch's"),
        ({"shapes": {"x": (1, 2, 3)}}, "has 2 axes"),
        ({"contexts": {"x": 4}}, "leaves no room"),
        ({"initial": {"s": "missing.npy"}}, "no array of NumPy"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path, mapping, message):
    assert message in refused(tmp_path, graphs.graph(graphs.LEAKY), **mapping)


def test_flags_and_a_mapping_file_say_the_same(tmp_path, capsys):
    graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    (tmp_path / "mapping.toml").write_text(
        'name = "two"\ntask = "step"\nframe_seconds = 0.5\n[attributes]\nthreshold = 0.5\n'
        '[[graph]]\nfile = "rates.onnx"\nstate = { s = "s_out" }\nconstant = { sr = 8000 }\n'
        'input = ["x"]\noutput = { y = "z" }\n'
    )
    models = str(tmp_path / "models")
    flags = [
        "import", str(tmp_path / "rates.onnx"), "--name", "one", "--task", "step", "--state",
        "s:s_out", "--constant", "sr=8000", "--input", "x", "--output", "y:z", "--frame-seconds",
        "0.5", "--attribute", "threshold=0.5", "--models", models,
    ]  # fmt: skip
    assert main(flags) == 0
    assert main(["import", str(tmp_path / "mapping.toml"), "--models", models]) == 0
    one, two = (read_bundle(tmp_path / "models" / name / "1").manifest for name in ("one", "two"))
    assert one.stepping == two.stepping
    assert one.graphs == two.graphs
    assert "batching: exact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = [", "is not TOML"),
        ('task = "step"', "'name' is missing"),
        ('name = "m"\ntask = "sing"\n[[graph]]\nfile = "a"', "'sing' is not one of"),
        ('name = "../m"\ntask = "step"\n[[graph]]\nfile = "a"', "cannot be that of a folder"),
        ('name = "m"\ntask = "step"\nother = 1\n[[graph]]\nfile = "a"', "'other' is not one of"),
        ('name = "m"\ntask = "step"\ngraph = [1]', "list of at most 16 tables"),
        ('name = "m"\ntask = "step"\n[[graph]]\nstate = {}', "'file' is missing"),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\nstate = {a = 1}', "'a' is 1"),
        (
            'name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\nconstant = {a = [inf]}',
            "constant 'a'",
        ),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\nshape = {a = [0]}', "shape of 'a'"),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\ncontext = {a = 0}', "context of 'a'"),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\nbatch_axis = {a = 9}', "0 to 7"),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "/etc/hostname"', "no file of its folder"),
        ('name = "m"\ntask = "step"\n[[graph]]\nfile = "sub/../../a"', "no file of its folder"),
        (
            'name = "m"\ntask = "classify"\nlabels = "../a"\n[[graph]]\nfile = "a"',
            "'labels' is '../a', which is no file",
        ),
        (
            'name = "m"\ntask = "step"\n[[graph]]\nfile = "sub/a"\nstate = {a = "b"}\n'
            'initial = {a = "../a.npy"}',
            "'initial' is '../a.npy', which is no file",
        ),
        (
            'name = "m"\ntask = "step"\n[[graph]]\nfile = "a"\nstate = {a = "b", c = "b"}',
            "given twice",
        ),
    ],
)
def test_a_mapping_file_is_refused_by_its_key(tmp_path, text, message):
    (tmp_path / "mapping.toml").write_text(text)
    with pytest.raises(ImportRefused, match=message.replace("[", r"\[")):
        read_mapping(tmp_path / "mapping.toml")


def test_a_mapping_may_not_name_files_by_links_that_lead_out(tmp_path):
    folder = tmp_path / "mapping"
    folder.mkdir()
    graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    os.symlink(tmp_path / "leaky.onnx", folder / "leaky.onnx")
    (folder / "mapping.toml").write_text(
        'name = "m"\ntask = "step"\n[[graph]]\nfile = "leaky.onnx"'
    )
    with pytest.raises(ImportRefused, match="no file of its folder"):
        read_mapping(folder / "mapping.toml")


# A value of every key of a mapping that some task does not read.
VALUES: dict[str, Any] = {
    "frame_seconds": 0.5, "attributes": {"rate": 1}, "tokens": "t", "lengths": "l", "mask": "m",
    "logits": "y", "probabilities": "p", "vocabulary": Path("v"), "special": {"pad": "_"},
    "kind": "words", "lowercase": False, "labels": Path("l"), "tokenizer": Path("t"),
    "add_bos_token": True,
}  # fmt: skip
GRAPH_VALUES: dict[str, tuple[str, Any]] = {
    "state": ("states", {"s": "s_out"}), "constant": ("constants", {"c": (1,)}),
    "input": ("inputs", {"x": "x"}), "output": ("outputs", {}), "context": ("contexts", {"x": 2}),
    "batch_axis": ("axes", {"x": 0}), "shape": ("shapes", {"x": (1,)}),
}  # fmt: skip


@pytest.mark.parametrize("key", [*VALUES, *GRAPH_VALUES])
@pytest.mark.parametrize("task", KEYS)
def test_a_key_of_another_task_is_refused(task, key):
    if key in VALUES:
        graph, options = GraphMapping(Path("a.onnx")), {key: VALUES[key]}
    else:
        name, value = GRAPH_VALUES[key]
        graph, options = GraphMapping(Path("a.onnx"), **{name: value}), {}
    if key == "add_bos_token" and key in KEYS[task]:
        options["special"] = {"bos": "_"}
    mapping = ModelMapping("m", task, (graph,), **options)
    if key in KEYS[task]:
        check_mapping(mapping)
    else:
        with pytest.raises(ImportRefused, match=f"task '{task}' does not read '{key}'"):
            check_mapping(mapping)


def test_each_key_is_read_by_some_task():
    assert {*VALUES, *GRAPH_VALUES, "initial"} == {key for keys in KEYS.values() for key in keys}


@pytest.mark.parametrize(
    "flag",
    [
        "--state a:b", "--constant a=1", "--input a", "--output a", "--context a:1", "--shape a=1",
        "--batch-axis a=0", "--initial a=1", "--frame-seconds 1", "--attribute a=1", "--tokens a",
        "--lengths a", "--mask a", "--logits a", "--probabilities a", "--special pad=a",
        "--kind words", "--lowercase", "--no-lowercase", "--vocabulary a", "--labels a",
        "--tokenizer a", "--limit a=1",
    ],
)  # fmt: skip
def test_a_flag_beside_a_mapping_is_refused(tmp_path, capsys, flag):
    file = tmp_path / "mapping.toml"
    file.write_text('name = "m"\ntask = "step"\n[[graph]]\nfile = "leaky.onnx"')
    assert main(["import", str(file), *flag.split(), "--models", str(tmp_path / "models")]) == 1
    name = flag.split()[0].replace("--no-", "--")
    assert f"{name} belongs into {file}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "generate", "logits": "y", "probabilities": "p"}, "one of them is the answer"),
        ({"task": "classify", "vocabulary": Path("v"), "tokenizer": Path("t")}, "leave the vocab"),
    ],
)
def test_two_keys_that_exclude_each_other_are_refused(options, message):
    with pytest.raises(ImportRefused, match=message):
        check_mapping(ModelMapping("m", graphs=(GraphMapping(Path("a.onnx")),), **options))


@pytest.mark.parametrize("limit", ["1.5", "inf"])
def test_a_limit_that_is_not_whole_is_refused(tmp_path, capsys, limit):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    flags = ["--name", "m", "--task", "step", "--limit", f"message_steps={limit}"]
    assert main(["import", str(file), *flags, "--models", str(tmp_path / "models")]) == 1
    assert f"--limit: '{limit}' is not a whole number" in capsys.readouterr().err


def test_inspect_guesses_aloud_and_gives_a_command_that_works(tmp_path, capsys):
    file = graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    assert main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "guess: sr is a constant" in said
    assert "guess: s is a state, and s_out is what becomes of it" in said
    assert "guess: it reads numbers a step at a time, so the task is step" in said
    assert "rows run together along these axes: x 0, s 0, y 0, s_out 0" in said
    command = said.strip().splitlines()[-1].split()[3:]
    assert main([*command, "--models", str(tmp_path / "models")]) == 0
    assert read_bundle(tmp_path / "models" / "rates" / "1").manifest.task == "step"


def test_a_graph_that_is_not_done_in_time_is_stopped(tmp_path):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    mapping = ModelMapping("m", "step", (GraphMapping(file, states=STATE),))
    with pytest.raises(ImportRefused, match="not done after"):
        import_model(mapping, tmp_path / "models", seconds=0.05)
    assert not list((tmp_path / "models").rglob("*.onnx"))


def test_a_bundle_that_the_service_would_not_read_is_announced(tmp_path, monkeypatch):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    mapping = ModelMapping("m", "step", (GraphMapping(file, states=STATE),))
    bundle, lines = import_model(mapping, tmp_path / "models")
    size = sum(spec.bytes for spec in bundle.manifest.files.values())
    assert not any("--max-bundle-bytes" in line for line in lines)
    monkeypatch.setattr("export.foreign.bundles.MOST_BUNDLE_BYTES", size - 1)
    _, lines = import_model(mapping, tmp_path / "models")
    assert lines[-1].endswith(f"serve it with --max-bundle-bytes {size}")


def test_a_refusal_leaves_what_was_served(tmp_path, capsys):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    flags = ["import", str(file), "--name", "m", "--task", "step", "--models", str(tmp_path / "b")]
    assert main([*flags, "--state", "s:s_out"]) == 0
    before = read_bundle(tmp_path / "b" / "m" / "1").digest
    assert main([*flags, "--state", "s:nothing"]) == 1
    assert "has no output 'nothing'" in capsys.readouterr().err
    assert read_bundle(tmp_path / "b" / "m" / "1").digest == before


def test_an_import_needs_no_pytorch(tmp_path, monkeypatch):
    """Loading it takes ten times as long as all else of an import."""
    for name in ("torch", "onnxscript"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('it is loaded')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    mapping = ModelMapping("m", "step", (GraphMapping(file, states=STATE),))
    bundle, _ = import_model(mapping, tmp_path / "models")
    assert bundle.manifest.task == "step"


def test_equal_imports_have_equal_bytes(tmp_path):
    file = graphs.lstm(tmp_path / "lstm.onnx")
    mapping = ModelMapping("m", "step", (GraphMapping(file, states={"h": "hn", "c": "cn"}),))
    digests = {import_model(mapping, tmp_path / folder)[0].digest for folder in ("a", "b")}
    assert len(digests) == 1


def test_the_gate_sees_a_graph_that_is_another(tmp_path):
    """A rewritten graph that computes something else does not pass for the original."""
    from export.foreign.gate import Original, check
    from export.foreign.prepare import explored
    from export.foreign.rewrite import rewrite
    from export.foreign.steps import open_parts

    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    _, stages = explored([GraphMapping(file, states=STATE)])
    rewritten = rewrite(stages, together=True)
    for node in rewritten.model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Neg"
    open_parts(rewritten, tmp_path)
    session = open_model(str(tmp_path / "step.onnx"))
    verdict = check(session, rewritten, Original(stages, [file]), {})
    assert verdict.is_exact
    assert not verdict.is_the_original


def test_an_imported_bundle_is_not_exported_anew(tmp_path):
    file = graphs.written(tmp_path / "leaky.onnx", graphs.LEAKY)
    imported(tmp_path, GraphMapping(file, states=STATE))
    with pytest.raises(ExportRefused, match="import it again"):
        trained_from_bundle(read_bundle(tmp_path / "models" / "m" / "1"))
