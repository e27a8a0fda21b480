"""Export as a whole: parity, its refusals, and bundles rebuilt from themselves."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bundle.sampling import GRAPH_PARAMETERS
from bundle.store import read_bundle
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from export import onnx_files, parity
from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.parity import ParityMissed, check_parity
from export.tasks import graphs_of
from service.runtime.repository import newest_versions
from tests import tiny
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions

BUNDLED = newest_versions(Path(__file__).parents[2] / "models")


def test_a_bundle_samples_as_its_training_said_or_else_as_its_task_does(tmp_path):
    """A generator draws from the model as it is, all others take the likeliest token."""
    for trained, expected in (
        (tiny.memoryless(), {"temperature": 1.0, "top_k": 0, "top_p": 1.0}),
        (tiny.seq2seq(), {"temperature": 0.0, "top_k": 0, "top_p": 1.0}),
        (replace(tiny.memoryless(), sampling={"temperature": 0.7, "typical_p": 0.9}),
         {"temperature": 0.7, "typical_p": 0.9}),
    ):  # fmt: skip
        bundle = tiny.export(trained, tmp_path / trained.name / "1")
        assert bundle.manifest.sampling == expected
        assert trained_from_bundle(bundle).sampling == expected


def bytes_of(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_a_plain_cell_is_a_scan_over_its_step(tmp_path):
    """A sequence runs the very body of the step: one product, one sum, one tanh."""
    bundle = tiny.export(tiny.classifier(cell="rnn"), tmp_path / "m" / "1")
    scans = [n for n in onnx.load(bundle.path_of("predict")).graph.node if n.op_type == "Scan"]
    assert len(scans) == 2  # one a direction
    model = onnx.load(bundle.path_of("predict"))
    inside = {node.op_type for function in model.functions for node in function.node}
    body = {node.op_type for scan in scans for a in scan.attribute for node in a.g.node}
    assert {"MatMul", "Tanh"} <= inside | body
    assert not {"LSTM", "GRU", "RNN", "Loop"} & (inside | body)


def test_a_layer_is_one_operator_and_weights_lie_in_one_file(tiny_models):
    """No unrolling, no copy of a weight inside a graph."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    for graph in ("prime", "step", "score"):
        model = onnx.load(bundle.path_of(graph), load_external_data=False)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("LSTM") == 2
        assert "Loop" not in kinds
        assert "Scan" not in kinds
        for tensor in model.graph.initializer:
            is_weight = tensor.name.removeprefix("model.") in bundle.manifest.weights.tensors
            assert (tensor.data_location == onnx.TensorProto.EXTERNAL) is is_weight


@pytest.mark.parametrize("name", ["letters", "speller", "mood"])
def test_a_bundle_is_rebuilt_from_itself_alone(tiny_models, tmp_path, name):
    """The PyTorch model comes back from a bundle, and exports to the same bytes."""
    bundle = read_bundle(tiny_models / name / "1")
    again = export_bundle(trained_from_bundle(bundle), tmp_path / name / "1")
    assert bytes_of(again.folder) == bytes_of(bundle.folder)


@pytest.mark.slow
@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.parent.name)
def test_every_bundled_model_can_be_exported_again(folder, tmp_path):
    """A change of graphs needs no retraining: the shipped bundles hold all that export takes."""
    bundle = read_bundle(folder)
    again = export_bundle(trained_from_bundle(bundle), tmp_path / folder.parent.name / folder.name)
    weights = bundle.manifest.weights.file
    assert bytes_of(again.folder)[weights] == bytes_of(folder)[weights]
    assert again.manifest.figures == bundle.manifest.figures
    assert again.manifest.precisions == bundle.manifest.precisions


def test_wrong_weights_are_caught_by_the_gate(tmp_path, tiny_models):
    """The gate compares with PyTorch, so a bundle of other weights does not pass it."""
    folder = tiny_models / "letters" / "1"
    other = tiny.trained("letters", tiny.generator().build().config, {}, seed=1).build()
    graphs = graphs_of(other, other.config, (0,))
    sizes = {"tokens": 5, "targets": 5, "token": 5}
    with pytest.raises(ParityMissed, match="prime: next_hidden_0 deviates"):
        check_parity(graphs, folder, sizes)


def test_a_wrong_draw_is_caught_by_the_gate(tmp_path, tiny_models, monkeypatch):
    """A sampler that draws another token than its NumPy twin does not pass."""

    def off_by_one(*arguments):
        twin = real(*arguments)
        return replace(twin, token=twin.token + 1)

    real = parity.draw_numpy
    monkeypatch.setattr(parity, "draw_numpy", off_by_one)
    with pytest.raises(ParityMissed, match="NumPy draws"):
        export_bundle(tiny.generator(), tmp_path / "letters" / "1")
    assert list((tmp_path / "letters").iterdir()) == []


def test_an_unexplained_exporter_warning_refuses_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "_EXPLAINED", ())
    with pytest.raises(ExportRefused, match="the exporter warned"):
        export_bundle(tiny.classifier(), tmp_path / "mood" / "1")


def test_graphs_say_nothing_of_the_machine_they_were_made_on(tiny_models):
    for path in tiny_models.rglob("*.onnx"):
        content = path.read_bytes()
        assert b".py" not in content, path
        assert b"site-packages" not in content, path


def test_onnx_equals_pytorch_over_carried_ragged_prompts(tiny_models):
    """prime in ragged chunks, then step by step, follows PyTorch from the first token on."""
    bundle = read_bundle(tiny_models / "letters" / "1")
    model = tiny.generator().build()
    vocabulary = len(bundle.tokenizers["output"].vocabulary)
    session = {
        graph: onnxruntime.InferenceSession(
            bundle.path_of(graph), providers=["CPUExecutionProvider"]
        )
        for graph in ("prime", "step")
    }
    names = [tensor.name for tensor in bundle.manifest.state]
    tokens = torch.randint(1, 15, (3, 20))
    lengths = torch.tensor([[5, 2, 7], [4, 7, 1]])
    state = {n: torch.zeros(3, 13).numpy() for n in names}
    start = torch.zeros(3, dtype=torch.int64)
    for chunk in lengths:
        rows = [tokens[r, start[r] : start[r] + chunk[r]] for r in range(3)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        feed = {"tokens": padded.numpy(), "lengths": chunk.numpy(), **state}
        state = dict(zip(names, session["prime"].run(None, feed), strict=True))
        start += chunk
    for row in range(3):
        _, expected = model(tokens[row : row + 1, : start[row]])
        for name, part in zip(names, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(state[name][row]), part[0].detach())
    read = [tokens[r, : start[r]].tolist() for r in range(3)]
    for _ in range(5):
        token = torch.randint(1, 15, (3,))
        feed = {
            "token": token.numpy(),
            **{n: np.full(3, p.neutral, p.dtype) for n, p in GRAPH_PARAMETERS.items()},
            "uniform": torch.full((3,), 0.5).numpy(),
            "retries": np.full((3, 2), 0.5, np.float32),
            "adjusted": np.zeros(0, np.int64),
            "seen": np.zeros((0, vocabulary), bool),
            "bias": np.zeros((0, vocabulary), np.float32),
            **state,
        }
        outputs = session["step"].run(None, feed)
        logits, state = outputs[3], dict(zip(names, outputs[4:], strict=True))
        for row in range(3):
            read[row].append(token[row].item())
            expected, _ = model(torch.tensor([read[row]]))
            torch.testing.assert_close(
                torch.from_numpy(logits[row]), expected[0, -1].detach(), atol=1e-5, rtol=1e-5
            )


def test_a_manifest_describes_its_graphs(tiny_models):
    content = json.loads((tiny_models / "speller" / "1" / "manifest.json").read_text())
    assert content["graphs"]["prime"]["inputs"] == [
        {"name": "tokens", "dtype": "int64", "shape": ["batch", "time"]},
        {"name": "lengths", "dtype": "int64", "shape": ["batch"]},
    ]
    assert [tensor["name"] for tensor in content["state"]] == [
        "memory", "memory_mask", "hidden_0", "cell_0",
    ]  # fmt: skip
    assert [tensor["carried"] for tensor in content["state"]] == [False, False, True, True]


def test_a_vocabulary_of_ten_thousand_words_is_exported(tmp_path, monkeypatch):
    """Its suppressed ids are a row of the vocabulary, not weights."""
    monkeypatch.setattr(parity, "SIZES", ((2, 2),))
    vocabulary = Vocabulary(tuple(f"w{number}" for number in range(9_996)), has_markers=True)
    words = Tokenizer("subwords", vocabulary)
    config = GeneratorConfig(len(vocabulary), 4, RecurrentOptions("lstm", 4), tied=True)
    made = tiny.trained("words", config, {"input": words, "output": words})
    bundle = export_bundle(made, tmp_path / "words" / "1")
    assert len(vocabulary) == 10_000
    assert bundle.manifest.graphs["step"].outputs[3].shape == ("batch", 10_000)
    assert bundle.path_of("step").stat().st_size < 80_000
