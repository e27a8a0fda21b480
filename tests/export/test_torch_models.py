"""PyTorch models of another code base: their layout, their order of symbols, their loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import export
from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from export.foreign.errors import ImportRefused
from export.foreign.torch_cli import main
from export.foreign.torch_models import from_torch, read_state_dict
from export.sampler import draw_numpy
from service.runtime.sessions import SessionSettings, open_session
from tests.export.own_loop import controls, ours, prompt_of
from training.checkpoint import TrainedModel

SYMBOLS = ["<s>", *"hello, wrd", "<unk>", "</s>", "<pad>"]
SYMBOLS = list(dict.fromkeys(SYMBOLS))
SPECIAL = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
PARTS = {"embedding": "emb", "rnn": "rnn", "output": "head"}
NETWORKS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)


class Theirs(nn.Module):
    """A language model as a tutorial has it: time first, other names, dropout between."""

    def __init__(self, kind: str = "lstm", hidden: int = 12, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.emb = nn.Embedding(len(SYMBOLS), 7)
        self.rnn = NETWORKS[kind](7, hidden, layers, dropout=0.2)
        self.head = nn.Linear(hidden, len(SYMBOLS))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.8, 0.8)
        self.eval()

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """tokens (time, batch)"""
        y, state = self.rnn(self.emb(tokens), state)
        return self.head(y), state


def reference(model: Theirs) -> Any:
    return lambda tokens: model(tokens.T)[0].transpose(0, 1)


def saved(folder: Path, model: nn.Module) -> list[str]:
    """The command's flags for the weights of ``model``."""
    torch.save(model.state_dict(), folder / "mylm.pt")
    (folder / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n")
    return [
        "--name", "mylm", "--weights", str(folder / "mylm.pt"), "--vocabulary",
        str(folder / "vocab.txt"), "--special", "pad=<pad>,unk=<unk>,bos=<s>,eos=</s>", "--map",
        "embedding=emb,rnn=rnn,output=head", "--models", str(folder / "models"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_a_state_dict_becomes_a_native_bundle(tmp_path, kind, capsys):
    model = Theirs(kind)
    int8 = ["--int8"] if kind != "rnn" else []
    assert main([*saved(tmp_path, model), *int8]) == 0
    bundle = read_bundle(tmp_path / "models" / "mylm" / "1")
    assert {"prime", "step", "score", "rows"} <= bundle.manifest.graphs.keys()
    assert ("int8" in bundle.manifest.precisions) == bool(int8)
    assert max(bundle.manifest.export.parity.values()) < 1e-4
    assert bundle.tokenizers["input"].vocabulary.symbols == tuple(SYMBOLS)
    assert "deviates from PyTorch" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_it_streams_the_tokens_of_its_own_loop(tmp_path, kind):
    """The same uniforms, drawn by the reference draw over the module's own logits."""
    model = Theirs(kind)
    bundle = from_torch(
        model, name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS, special=SPECIAL,
        reference=reference(model),
    )  # fmt: skip
    reader = bundle.tokenizers["input"]
    prompt = reader.encode("hello").ids
    assert [SYMBOLS[token] for token in prompt] == list("hello")
    suppressed = np.zeros(len(SYMBOLS))
    suppressed[list(reader.vocabulary.never_sampled_ids)] = -np.inf
    uniforms = np.random.default_rng(1).random(40, np.float32)
    assert ours(bundle, prompt, uniforms) == theirs(model, prompt, uniforms, suppressed)


def test_texts_that_begin_with_bos_do_so_after_another_export(tmp_path):
    """A native bundle is exported anew from itself, and reads its texts as before."""
    from_torch(
        Theirs(), name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS, special=SPECIAL,
        add_bos_token=True,
    )  # fmt: skip
    trained_from_bundle(read_bundle(tmp_path / "m" / "1")).save(tmp_path)
    bundle = export_bundle(TrainedModel.load(tmp_path), tmp_path / "m" / "2")
    assert [SYMBOLS[token] for token in prompt_of(bundle, "hello")] == ["<s>", *"hello"]


def theirs(model: Theirs, prompt: list[int], uniforms: Any, suppressed: Any) -> list[int]:
    made: list[int] = []
    with torch.no_grad():
        logits, state = model(torch.tensor(prompt).unsqueeze(1))
        for uniform in uniforms:
            drawn = draw_numpy(logits[-1].numpy(), suppressed, controls(uniform, len(SYMBOLS)))
            made.append(int(drawn.token[0]))
            logits, state = model(torch.tensor([[made[-1]]]), state)
    return made


def test_cells_and_modules_in_a_row_are_layers(tmp_path):
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {
        "wte.weight": torch.randn(len(SYMBOLS), 5), "lm.weight": torch.randn(len(SYMBOLS), 8),
    }  # fmt: skip
    for name, cell in (("first", nn.LSTMCell(5, 8)), ("second", nn.LSTMCell(8, 8, bias=False))):
        weights |= {f"{name}.{key}": value for key, value in cell.state_dict().items()}
    parts = {"embedding": "wte", "rnn": "first+second", "output": "lm"}
    bundle = from_torch(weights, name="m", models=tmp_path, parts=parts, vocabulary=SYMBOLS)
    assert bundle.manifest.model["recurrent"]["layers"] == 2
    assert not bundle.tokenizers["output"].vocabulary.never_sampled_ids
    assert not bundle.tokenizers["input"].lowercase


def test_tied_weights_lie_there_once(tmp_path):
    model = Theirs(hidden=7)
    model.head.weight = model.emb.weight
    bundle = from_torch(
        model, name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS, lowercase=True
    )
    assert bundle.manifest.model["tied"]
    assert bundle.tokenizers["input"].lowercase


class Normed(Theirs):
    """More between the parts than weights tell."""

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.rnn(self.emb(tokens).tanh(), state)
        return self.head(y), state


def test_a_reference_finds_what_weights_do_not_tell(tmp_path):
    model = Normed()
    with pytest.raises(ImportRefused, match="the parts alone are not the module"):
        from_torch(
            model, name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS,
            reference=reference(model),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.LSTM(7, 12, bidirectional=True), "reads from the right"),
        (nn.LSTM(7, 12, proj_size=4), "projects its state"),
        (nn.Linear(7, 12), "hold no 'rnn.weight_ih_l0'"),
        (nn.LSTM(6, 12), "first layer's columns are 6"),
        (nn.LSTM(7, 11), "output's columns are 12"),
    ],
)
def test_other_networks_are_refused(tmp_path, network, message):
    model = Theirs()
    model.rnn = network
    with pytest.raises(ImportRefused, match=message):
        from_torch(model, name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {"embedding": "emb", "rnn": "rnn"}}, "the parts of a model are"),
        ({"parts": {**PARTS, "output": "lm_head"}}, "hold no 'lm_head.weight'"),
        ({"vocabulary": SYMBOLS[1:]}, "embedding's rows are"),
        ({"vocabulary": [*SYMBOLS[1:], "h"]}, "occur twice"),
        ({"special": {"eos": "<eos>"}}, "'<eos>' for 'eos' is not in the vocabulary"),
        ({"special": {"sep": "h"}}, "'sep' is not one of"),
        ({"kind": "bytes"}, "kind 'bytes'"),
        ({"name": "../m"}, "cannot be that of a folder"),
        ({"task": "step"}, "make a model of the task 'generate'"),
        ({"frame_seconds": 0.5}, "does not read 'frame_seconds'"),
        ({"inputs": {"token": torch.zeros(1)}}, "does not read 'inputs' with parts"),
        ({"allow_inexact": True}, "does not read 'allow_inexact' with parts"),
        ({"parts": None, "int8": True}, "does not read 'int8' without parts"),
        ({"parts": None, "reference": print}, "does not read 'reference' without parts"),
        ({"parts": None, "task": "step"}, "does not read 'vocabulary' for the task 'step'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    options = {"name": "m", "parts": PARTS, "vocabulary": SYMBOLS, "models": tmp_path}
    with pytest.raises(ImportRefused, match=message):
        from_torch(Theirs(), **{**options, **change})


def test_weights_beside_the_parts_are_refused(tmp_path):
    model = Theirs()
    model.norm = nn.LayerNorm(12)
    with pytest.raises(ImportRefused, match=r"hold 'norm\.bias' beside"):
        from_torch(model, name="m", models=tmp_path, parts=PARTS, vocabulary=SYMBOLS)


class Hostile:
    def __reduce__(self) -> Any:
        return (print, ("code of a checkpoint ran",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"emb.weight": Hostile()}, tmp_path / "mylm.pt")
    with pytest.raises(ImportRefused, match="weights alone"):
        read_state_dict(tmp_path / "mylm.pt")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"nothing of torch", None])
def test_a_file_that_is_none_is_refused(tmp_path, content, capsys):
    flags = saved(tmp_path, Theirs())
    (tmp_path / "mylm.pt").unlink()
    if content is not None:
        (tmp_path / "mylm.pt").write_bytes(content)
    assert main(flags) == 1
    assert "refused:" in capsys.readouterr().err


def test_a_checkpoint_under_a_key_is_found(tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in Theirs().state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "c.pt")
    assert set(read_state_dict(tmp_path / "c.pt")) == set(Theirs().state_dict())


class Filter(nn.Module):
    """A module with a step of its own: two states, one of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(4, 6)
        self.head = nn.Linear(6, 2)

    def step(self, inputs: dict[str, Tensor], state: dict[str, Tensor]) -> Any:
        h = self.cell(inputs["frame"], state["h"])
        return {"gain": torch.sigmoid(self.head(h))}, {"h": h, "steps": state["steps"] + 1}


def test_a_module_with_a_step_is_traced(tmp_path):
    assert export.from_torch is from_torch
    module = Filter().eval()
    bundle = export.from_torch(
        module, name="gain", task="step", models=tmp_path,
        inputs={"frame": torch.zeros(1, 4)}, outputs=["gain"],
        state={"h": torch.zeros(1, 6), "steps": torch.zeros(1, dtype=torch.int64)},
        frame_seconds=0.01, attributes={"sample_rate": 8000},
    )  # fmt: skip
    spec = bundle.manifest.stepping
    assert spec is not None
    assert (spec.frames, spec.answers) == (("frame",), ("gain",))
    session = open_session(bundle, "step", SETTINGS)
    frames = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    state = {"h": np.zeros((3, 6), np.float32), "steps": np.zeros(3, np.int64)}
    carried = {name: torch.from_numpy(array) for name, array in state.items()}
    for frame in frames:
        gain, h, steps = session.run(None, {"frame": frame, **state})
        with torch.no_grad():
            made, carried = module.step({"frame": torch.from_numpy(frame)}, carried)
        assert np.allclose(gain, made["gain"].numpy(), atol=1e-5)
        state = {"h": h, "steps": steps}
    assert state["steps"].tolist() == [5, 5, 5]


def test_a_stream_begins_with_the_state_that_is_given(tmp_path):
    """Of floats and whole numbers, in a bundle whose new streams are zeros."""
    module = Filter().eval()
    first = {"h": torch.linspace(-1, 1, 6)[None], "steps": torch.tensor([7])}
    bundle = export.from_torch(
        module, name="gain", task="step", models=tmp_path, outputs=["gain"],
        inputs={"frame": torch.zeros(1, 4)}, state=first,
    )  # fmt: skip
    session = open_session(bundle, "step", SETTINGS)
    names = [port.name for port in session.get_outputs()]
    state = {s.name: np.zeros((2, *s.shape), s.dtype) for s in bundle.manifest.state}
    carried = {name: tensor.expand(2, *tensor.shape[1:]) for name, tensor in first.items()}
    for frame in np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32):
        found = dict(zip(names, session.run(names, {"frame": frame, **state}), strict=True))
        with torch.no_grad():
            made, carried = module.step({"frame": torch.from_numpy(frame)}, carried)
        assert np.allclose(found["gain"], made["gain"].numpy(), atol=1e-5)
        state = {name: found[f"next_{name}"] for name in state}
    assert state["steps"].tolist() == [10, 10]


def test_a_module_without_step_is_refused(tmp_path):
    with pytest.raises(ImportRefused, match="has no step"):
        export.from_torch(nn.Linear(2, 2), name="m", task="step", models=tmp_path)


def test_symbols_come_as_lines_or_json(tmp_path):
    from export.foreign.vocabularies import read_symbols

    (tmp_path / "v.txt").write_text("a\n\\n\n \n\\s\n\\\\\nb\r\n")
    assert read_symbols(tmp_path / "v.txt") == ["a", "\n", " ", " ", "\\", "b"]
    (tmp_path / "v.json").write_text(json.dumps({"b": 1, "a": 0}))
    assert read_symbols(tmp_path / "v.json") == ["a", "b"]
    for text in ('{"a": 1}', "[1]", "{", "[]"):
        (tmp_path / "v.json").write_text(text)
        with pytest.raises(ImportRefused):
            read_symbols(tmp_path / "v.json")
