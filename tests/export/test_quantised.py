"""int8 steps: the same bits in any batch, the same whole numbers as their PyTorch twin."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bundle.manifest import ADJUSTED
from bundle.sampling import GRAPH_PARAMETERS
from bundle.store import read_bundle, read_weights
from export import parity, quantised
from export.bundles import export_bundle
from export.onnx_files import ExportRefused
from export.parity import ParityMissed, check_parity
from export.quantised import WEIGHT_LIMIT, QuantisedLinear
from export.tasks import step_of
from export.weights import for_export
from service.runtime.repository import newest_versions
from service.runtime.sessions import SessionSettings, open_session
from tests import tiny

ROWS = 33
BUNDLED = {
    folder.parent.name: folder for folder in newest_versions(Path(__file__).parents[2] / "models")
}
MODELS = {
    "letters of gru": tiny.generator("gru", "gru", 11),
    "letters of rnn": tiny.generator("rnn", "rnn", 13),
    "speller of lstm": replace(tiny.seq2seq(), precisions=tiny.INT8),
    "scaled speller": replace(tiny.seq2seq(scaled=True), precisions=tiny.INT8),
    "speller without attention": replace(tiny.seq2seq(attention=False), precisions=tiny.INT8),
}


@pytest.fixture(scope="module")
def bundles(tiny_models, tmp_path_factory):
    """Tiny bundles with an int8 step by what they are; hidden sizes are 13 and 11."""
    root = tmp_path_factory.mktemp("int8")
    made = {
        kind: tiny.export(model, root / str(number) / "1")
        for number, (kind, model) in enumerate(MODELS.items())
    }
    return {**made, "letters of lstm": read_bundle(tiny_models / "letters" / "1")}


KINDS = [*MODELS, "letters of lstm"]


def feed_of(bundle, rows, seed=0):
    """Inputs of a step: any token, any state, drawn from the whole vocabulary."""
    random = np.random.default_rng(seed)
    feed = {}
    for port in bundle.manifest.graphs["step"].inputs:
        # No row has penalties or a bias: tests of the draw have some.
        shape = (0 if port.shape[0] == ADJUSTED else rows, *port.shape[1:])
        feed[port.name] = random.uniform(-1, 1, shape).astype(port.dtype)
    feed["token"] = random.integers(1, 5, rows)
    feed["uniform"] = random.random(rows, dtype=np.float32)
    if "retries" in feed:
        feed["retries"] = random.random(feed["retries"].shape, dtype=np.float32)
    if "memory_mask" in feed:
        feed["memory_mask"] = np.ones_like(feed["memory_mask"])
    for name in feed.keys() & GRAPH_PARAMETERS.keys():
        feed[name][:] = GRAPH_PARAMETERS[name].neutral
    return feed


def rows_of(feed, start, end):
    return {name: np.ascontiguousarray(rows[start:end]) for name, rows in feed.items()}


@pytest.mark.parametrize("kind", [*KINDS, "prose", "g2p"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_in_any_batch(bundles, kind, threads):
    """1 to 33 rows, at sizes that fill no vector register and at 2 x 512."""
    bundle = bundles.get(kind) or read_bundle(BUNDLED[kind])
    settings = SessionSettings("cpu", "CPUExecutionProvider", threads)
    session = open_session(bundle, "step_int8", settings)
    feed = feed_of(bundle, ROWS)
    together = session.run(None, feed)
    for rows in range(1, ROWS):
        for start in {0, ROWS - rows}:
            alone = session.run(None, rows_of(feed, start, start + rows))
            for part, whole in zip(alone, together, strict=True):
                assert part.tobytes() == whole[start : start + rows].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_passes_the_gate_in_int8(bundles, kind):
    """With the same ports as fp32, and as close to its twin as fp32 is to PyTorch."""
    manifest = bundles[kind].manifest
    assert manifest.export.parity["step_int8"] < parity.TOLERANCE
    assert manifest.graphs["step_int8"].inputs == manifest.graphs["step"].inputs
    assert manifest.graphs["step_int8"].outputs == manifest.graphs["step"].outputs


@pytest.mark.parametrize("kind", KINDS)
def test_int8_follows_fp32(bundles, kind):
    """From the same state, logits of ±3 move by some hundredths: rounding, not another model."""
    bundle = bundles[kind]
    logits = []
    for graph in ("step", "step_int8"):
        session = onnxruntime.InferenceSession(
            bundle.path_of(graph), providers=["CPUExecutionProvider"]
        )
        logits.append(session.run(["logits"], feed_of(bundle, ROWS))[0])
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1
    assert np.abs(logits[0]).max() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_of_seven_bit_weights_in_the_weights_file(bundles, kind):
    """uint8 times int8 within ±63: other pairs are slow or saturate on CPUs without VNNI."""
    bundle = bundles[kind]
    graph = onnx.load(bundle.path_of("step_int8"), load_external_data=False).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"LSTM", "GRU", "RNN", "Gemm", "DynamicQuantizeLSTM"}
    used = {node.input[1] for node in graph.node if node.op_type == "MatMulIntegerToFloat"}
    tensors = read_weights(bundle)
    for tensor in graph.initializer:
        if tensor.name in used:
            assert tensor.data_location == onnx.TensorProto.EXTERNAL
            weight = tensors["int8." + tensor.name.removeprefix("model.")]
            assert weight.dtype == np.int8
            assert np.abs(weight.astype(int)).max() == WEIGHT_LIMIT
            used.remove(tensor.name)
    assert not used


def test_a_weight_is_cut_or_rounded_by_half_a_step_at_most():
    """Each column has its own scale; a column of zeros keeps a usable one."""
    torch.manual_seed(1)
    weight = torch.randn(40, 7) * torch.logspace(-3, 3, 7)
    weight[:, 3] = 0
    product = QuantisedLinear(weight, None)
    error = (product.weight * product.scale - weight).abs()
    cut = product.weight.abs() == WEIGHT_LIMIT
    assert (error[~cut] <= (product.scale * 0.5001).expand(40, 7)[~cut]).all()
    assert (weight.abs()[cut] >= (product.scale * (WEIGHT_LIMIT - 0.5)).expand(40, 7)[cut]).all()
    assert product.weight[:, 3].abs().max() == 0
    assert product.scale[3] > 0


def test_a_column_with_one_large_weight_keeps_the_others_apart():
    """By the largest weight alone a step would be 0.016, and the squares that are lost more."""
    torch.manual_seed(1)
    weight = torch.randn(2_000, 1) * 0.1
    weight[0] = 1.0
    product = QuantisedLinear(weight, None)
    lost = (product.weight * product.scale - weight).square().sum()
    step = 1.0 / WEIGHT_LIMIT
    by_the_largest = (torch.round(weight / step) * step - weight).square().sum()
    assert lost < by_the_largest
    assert product.scale[0] < step


@pytest.mark.parametrize("kind", ["letters of lstm", "letters of gru"])
def test_a_state_halfway_between_two_steps_rounds_alike(bundles, kind):
    """onnxruntime and the twin round a half to the even number, and hold what is out of range."""
    bundle = bundles[kind]
    feed = feed_of(bundle, ROWS)
    halves = (np.arange(feed["hidden_0"].size) % 260 - 129.5) / 127
    feed["hidden_0"][:] = halves.reshape(ROWS, -1)
    session = onnxruntime.InferenceSession(
        bundle.path_of("step_int8"), providers=["CPUExecutionProvider"]
    )
    got = session.run(["next_hidden_0"], feed)[0]
    model = MODELS.get(kind, tiny.generator()).build()
    state = tuple(torch.from_numpy(feed[t.name]) for t in bundle.manifest.state)
    _, after = quantised.quantised(for_export(model)).step(torch.from_numpy(feed["token"]), state)
    np.testing.assert_allclose(got, after[0].numpy(), atol=1e-6)


def twin_of(model):
    return quantised.quantised(for_export(model))


def check(twin, bundle, config):
    suppressed = bundle.tokenizers["output"].vocabulary.never_sampled_ids
    step = step_of(twin, config, suppressed, "step_int8")
    check_parity([step], bundle.folder, {"token": 5})


def test_the_gate_catches_weights_of_another_model(bundles):
    config = tiny.generator().build().config
    other = tiny.trained("letters", config, {}, seed=1).build()
    with pytest.raises(ParityMissed, match=r"step_int8: .* deviates by .* is allowed \(2e-02 \+"):
        check(twin_of(other), bundles["letters of lstm"], config)


def test_the_gate_catches_a_weight_that_is_one_off(bundles):
    """Every row moves by less than a state on an edge might move it, but not every row can be."""
    model = tiny.generator().build()
    twin = twin_of(model)
    check(twin, bundles["letters of lstm"], model.config)
    twin.output.weight[0, 7] += 1
    with pytest.raises(ParityMissed, match="rows deviate as if on a quantisation edge"):
        check(twin, bundles["letters of lstm"], model.config)


def test_the_gate_catches_what_is_no_number(bundles, monkeypatch):
    def with_nan(*arguments):
        return {**real(*arguments), "next_hidden_1": np.full((1, 13), np.nan, np.float32)}

    real = parity._GraphCheck._onnx
    monkeypatch.setattr(parity._GraphCheck, "_onnx", with_nan)
    model = tiny.generator().build()
    with pytest.raises(ParityMissed, match="next_hidden_1 deviates by nan"):
        check(twin_of(model), bundles["letters of lstm"], model.config)


def test_what_int8_does_not_cover_is_refused(tmp_path, monkeypatch):
    """A classifier has no step; a table of a large vocabulary would outweigh what it saves."""
    mood = replace(tiny.classifier(), precisions=tiny.INT8)
    with pytest.raises(ExportRefused, match="a classifier has no step"):
        export_bundle(mood, tmp_path / "mood" / "1")
    monkeypatch.setattr(quantised, "_TABLE_LIMIT_BYTES", 1000)
    with pytest.raises(ExportRefused, match="17 symbols make a table of 3,536 bytes"):
        export_bundle(tiny.generator(), tmp_path / "letters" / "1")
    unknown = replace(tiny.generator(), precisions={"int4": ()})
    with pytest.raises(ExportRefused, match="precision 'int4' is not one of fp32, int8"):
        export_bundle(unknown, tmp_path / "letters" / "1")
    assert list(tmp_path.iterdir()) == []
