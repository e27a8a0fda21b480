"""Every command of docs/bring-your-model.md, on small models of the same names and forms."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from bundle.store import read_bundle
from examples.foreign import FOREIGN, MAPPINGS
from export.foreign import cli, torch_cli
from export.foreign.mapping import read_mapping
from export.foreign.surgery import renamed
from tests.export import foreign_graphs as graphs

PAGE = Path(__file__).parents[1] / "docs" / "bring-your-model.md"
SYMBOLS = ["<pad>", "<unk>", "<s>", "</s>", *"abcdef "]

# As silero's: a sample rate, 64 samples of context, a state whose batch is its second axis.
SPEECH = """speech (float[batch,samples] input, float[2,batch,4] state, int64 sr)
  => (float[batch,1] output, float[2,batch,4] stateN)
<float half = {0.5}, int64 wide = {16000}> {
  rate = Equal(sr, wide)
  kept = Cast<to = 1>(rate)
  mean = ReduceMean<axes = [1], keepdims = 1>(input)
  left = Mul(state, half)
  stateN = Add(left, mean)
  summed = ReduceSum<keepdims = 0>(stateN, zero)
  level = ReduceMean<axes = [1], keepdims = 1>(summed)
  loud = Mul(level, kept)
  output = Sigmoid(loud)
}"""

KERAS = """keras (float[1,4] frame, float[1,4] h, float[1,4] c)
  => (float[1,4] score, float[1,4] h_out, float[1,4] c_out)
<float half = {0.5}> {
  left = Mul(h, half)
  h_out = Add(left, frame)
  c_out = Add(c, h_out)
  score = Sigmoid(c_out)
}"""


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.emb = nn.Embedding(len(SYMBOLS), 6)
        self.rnn = nn.LSTM(6, 8, 2)
        self.head = nn.Linear(8, len(SYMBOLS))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def models(folder: Path) -> None:
    """Under the names that the page has."""
    graphs.written(folder / "silero_vad.onnx", SPEECH)
    (folder / "mapping.toml").write_text(blocks("toml")[0])
    graphs.language_model(folder / "lm_step.onnx", len(SYMBOLS))
    model = onnx.load_model(str(folder / "lm_step.onnx"))
    renamed(model.graph, lambda name: "tokens" if name == "input_ids" else name)
    (folder / "lm_step.onnx").write_bytes(model.SerializeToString())
    (folder / "vocab.txt").write_text("\n".join(SYMBOLS))
    torch.save(Theirs().state_dict(), folder / "mylm.pt")
    graphs.classifier(folder / "classifier.onnx", 5, 3)
    (folder / "labels.txt").write_text("sport\nnews\nweather\n")
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "rain": 2, "goal": 3, "vote": 4}
    (folder / "tokenizer.json").write_text(
        json.dumps(
            {
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
                "pre_tokenizer": {"type": "WhitespaceSplit"},
            }
        )
    )
    graphs.written(folder / "keras_step.onnx", KERAS)


@pytest.mark.timeout(900)
def test_every_command_of_the_page_runs(tmp_path, monkeypatch, capsys):
    models(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("bash") for line in block.strip().splitlines()]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "export"], line
        run = torch_cli.main if words[3] == "torch" else cli.main
        given = words[4:] if words[3] == "torch" else words[3:]
        assert run(given) == 0, (line, capsys.readouterr().err)
    written = {f"{p.parent.parent.name}/{p.parent.name}" for p in Path("models").glob("*/*/*.json")}
    assert written == {"vad/1", "vad/2", "mylm/1", "mylm/2", "topics/1", "keras/1"}
    by_flags, by_file = (read_bundle(Path("models/vad") / v).manifest for v in ("1", "2"))
    assert by_flags.stepping == by_file.stepping


def test_the_module_of_the_page_is_traced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = next(block for block in blocks("python") if "from_torch" in block)
    exec(compile(code, "bring-your-model.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.strip() in ("exact", "none")


@pytest.mark.parametrize("name", ["silero-vad", "dtln", "gtcrn"])
def test_the_mappings_that_the_page_names_can_be_read(name):
    mapping = read_mapping(MAPPINGS / f"{name}.toml")
    assert mapping.name == name
    assert len(FOREIGN) == 13
