"""Generators from elsewhere: the tokens of their own loop, whatever the graph wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundle.store import Bundle, read_bundle
from export import from_torch
from export.foreign.bundles import import_model
from export.foreign.cli import main
from export.foreign.errors import ImportRefused
from export.foreign.inspection import inspected
from export.foreign.mapping import GraphMapping, ModelMapping, read_mapping
from export.foreign.surgery import open_model
from export.foreign.worker import JOBS
from export.sampler import draw_numpy
from service.runtime.sessions import open_session
from tests.export import foreign_graphs as graphs
from tests.export.own_loop import SETTINGS, controls, ours, prompt_of

SYMBOLS = ["<s>", *"abcdefgh ", "<unk>", "</s>"]
SPECIAL = {"bos": "<s>", "unk": "<unk>", "eos": "</s>"}
STATES = {"h": "h_out", "c": "c_out"}
UNIFORMS = np.random.default_rng(5).random(30, np.float32)


def mapped(folder: Path, file: Path, **options: Any) -> ModelMapping:
    (folder / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n")
    graph = GraphMapping(file, states=STATES, initial=options.pop("initial", {}))
    given = {"tokens": "input_ids", "logits": "logits", "special": SPECIAL, **options}
    return ModelMapping("mylm", "generate", (graph,), vocabulary=folder / "vocab.txt", **given)


@pytest.fixture
def here(monkeypatch):
    """Imports run in this process, which has loaded PyTorch; apart, the command's test imports."""

    def run(job, argument, *bounds):
        return JOBS[job](argument)

    monkeypatch.setattr("export.foreign.bundles.run_apart", run)


class TheirLoop:
    """The original file, a row at a time."""

    def __init__(self, file: Path, first: float = 0.0) -> None:
        self.session = open_model(str(file))
        self.first = first

    def logits(self, tokens: list[int]) -> np.ndarray:
        """(tokens, vocabulary) after each of them."""
        state = {name: np.full((1, 1, 6), self.first, np.float32) for name in STATES}
        found = []
        for token in tokens:
            made, h, c = self.session.run(None, {"input_ids": np.array([[token]]), **state})
            state = {"h": h, "c": c}
            found.append(made.reshape(-1))
        return np.array(found)

    def drawn(self, prompt: list[int], suppressed: np.ndarray) -> list[int]:
        made: list[int] = []
        for uniform in UNIFORMS:
            last = self.logits([*prompt, *made])[-1:]
            drawn = draw_numpy(last, suppressed, controls(uniform, len(SYMBOLS)))
            made.append(int(drawn.token[0]))
        return made


def suppressed_of(bundle: Bundle) -> np.ndarray:
    suppressed = np.zeros(len(SYMBOLS))
    suppressed[list(bundle.tokenizers["output"].vocabulary.never_sampled_ids)] = -np.inf
    return suppressed


@pytest.mark.parametrize("is_free", [True, False])
def test_it_streams_the_tokens_of_its_own_loop(here, tmp_path, is_free):
    """Rows together, and one by one where the graph holds a batch of one."""
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS), is_free=is_free)
    bundle, lines = import_model(mapped(tmp_path, file), tmp_path / "models")
    assert any("batching: none" in line for line in lines) == (not is_free)
    prompt = bundle.tokenizers["input"].encode("bad cafe").ids
    expected = TheirLoop(file).drawn(prompt, suppressed_of(bundle))
    assert ours(bundle, prompt, UNIFORMS) == expected
    assert len(set(expected)) > 3


def test_a_loop_that_begins_with_bos_gives_the_tokens_of_texts(here, tmp_path):
    """As it was trained: every text after <s>, which no text spells."""
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS))
    bundle, _ = import_model(mapped(tmp_path, file, add_bos_token=True), tmp_path / "models")
    assert bundle.manifest.add_bos_token
    prompt = prompt_of(bundle, "h")
    assert [SYMBOLS[token] for token in prompt] == ["<s>", "h"]
    loop = TheirLoop(file)
    assert np.abs(loop.logits(prompt)[-1] - loop.logits(prompt[1:])[-1]).max() > 0.5
    assert ours(bundle, prompt, UNIFORMS) == loop.drawn(prompt, suppressed_of(bundle))


def test_only_an_empty_text_is_bos_unless_all_begin_with_it(here, tmp_path):
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS))
    bundle, _ = import_model(mapped(tmp_path, file), tmp_path / "models")
    assert "add_bos_token" not in bundle.manifest.to_json()
    assert [SYMBOLS[token] for token in prompt_of(bundle, "bad")] == [*"bad"]
    assert [SYMBOLS[token] for token in prompt_of(bundle, "")] == ["<s>"]


def test_a_mapping_file_says_that_texts_begin_with_bos(tmp_path):
    path = tmp_path / "mylm.toml"
    text = 'name = "m"\ntask = "TASK"\nadd_bos_token = true\nspecial = { bos = "<s>" }\n'
    graph = '[[graph]]\nfile = "lm.onnx"\n'
    path.write_text(text.replace("TASK", "generate") + graph)
    assert read_mapping(path).add_bos_token
    path.write_text(text.replace("TASK", "classify") + graph)
    with pytest.raises(ImportRefused, match="'classify' does not read 'add_bos_token'"):
        read_mapping(path)


def test_prompts_and_scores_are_those_of_steps(here, tmp_path):
    """Ragged rows in one run, in two pieces, from states that are carried."""
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS))
    bundle, _ = import_model(mapped(tmp_path, file), tmp_path / "models")
    sessions = {role: open_session(bundle, role, SETTINGS) for role in ("prime", "score", "step")}
    random = np.random.default_rng(2)
    lengths = np.array([1, 7, 4, 2])
    tokens = random.integers(0, len(SYMBOLS), (4, 7))
    zeros = {name: np.zeros((4, 1, 6), np.float32) for name in STATES}
    targets = np.roll(tokens, -1, axis=1)
    feed = {"tokens": tokens, "lengths": lengths}
    scores, *after = sessions["score"].run(None, {**feed, "targets": targets, **zeros})
    primed = sessions["prime"].run(None, {**feed, **zeros})
    assert all(np.array_equal(a, b) for a, b in zip(after, primed, strict=True))
    loop = TheirLoop(file)
    for row, length in enumerate(lengths):
        logits = loop.logits(list(tokens[row, :length])).astype(np.float64)
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        wanted = logs[np.arange(length), targets[row, :length]]
        assert np.allclose(scores[row, :length], wanted, atol=1e-5)
        state = {name: part[row : row + 1] for name, part in zip(STATES, primed, strict=True)}
        step = sessions["step"]
        names = [port.name for port in step.get_outputs()]
        read = {port.name for port in step.get_inputs()}
        given = {"token": np.array([3]), **controls(0.5, len(SYMBOLS)), **state}
        found = step.run(["logits"], {k: v for k, v in given.items() if k in read})[0]
        assert names[:4] == ["next_token", "log_probability", "log_probabilities", "logits"]
        assert np.allclose(found[0], loop.logits([*tokens[row, :length], 3])[-1], atol=1e-5)


def test_probabilities_become_logits(here, tmp_path):
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS), ends_in="probs")
    mapping = mapped(tmp_path, file, logits="", probabilities="probs")
    bundle, _ = import_model(mapping, tmp_path / "models")
    plain = graphs.language_model(tmp_path / "plain.onnx", len(SYMBOLS))
    prompt = bundle.tokenizers["input"].encode("head").ids
    expected = TheirLoop(plain).drawn(prompt, suppressed_of(bundle))
    assert ours(bundle, prompt, UNIFORMS) == expected


def test_initial_states_begin_every_stream(here, tmp_path):
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS))
    mapping = mapped(tmp_path, file, initial={"h": 2.0, "c": 2.0})
    bundle, _ = import_model(mapping, tmp_path / "models")
    prompt = bundle.tokenizers["input"].encode("a").ids
    expected = TheirLoop(file, first=2.0).drawn(prompt, suppressed_of(bundle))
    assert expected != TheirLoop(file).drawn(prompt, suppressed_of(bundle))
    assert ours(bundle, prompt, UNIFORMS) == expected


def test_the_command_of_the_docs_imports_one(tmp_path, capsys):
    file = graphs.language_model(tmp_path / "lm_step.onnx", len(SYMBOLS))
    (tmp_path / "vocab.txt").write_text("\n".join(SYMBOLS))
    flags = [
        "import", str(file), "--name", "mylm", "--task", "generate", "--vocabulary",
        str(tmp_path / "vocab.txt"), "--special", "bos=<s>,unk=<unk>,eos=</s>", "--token",
        "input_ids", "--logits", "logits", "--state", "h:h_out", "--state", "c:c_out", "--models",
        str(tmp_path / "models"), "--add-bos-token",
    ]  # fmt: skip
    assert main(flags) == 0
    assert "12 symbols, read as characters" in capsys.readouterr().out
    bundle = read_bundle(tmp_path / "models" / "mylm" / "1")
    assert bundle.tokenizers["output"].vocabulary.symbols == tuple(SYMBOLS)
    assert bundle.manifest.add_bos_token


@pytest.mark.parametrize(
    ("ends_in", "flag"), [("logits", "--logits logits"), ("odds", "--probabilities odds")]
)
def test_inspect_proposes_a_generator_for_one_token(here, tmp_path, capsys, ends_in, flag):
    """Its command runs once the vocabulary is there."""
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS), ends_in=ends_in)
    lines = inspected(file)
    assert f"guess: input_ids is a token, and {ends_in} is of the next one" in "\n".join(lines)
    assert f"--token input_ids {flag} --vocabulary vocabulary.txt" in lines[-1]
    (tmp_path / "vocabulary.txt").write_text("\n".join(SYMBOLS))
    command = lines[-1].replace("vocabulary.txt", str(tmp_path / "vocabulary.txt")).split()[3:]
    assert main([*command, "--models", str(tmp_path / "models")]) == 0, capsys.readouterr().err
    assert read_bundle(tmp_path / "models" / "lm" / "1").manifest.task == "generate"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ""}, "needs --token"),
        ({"logits": ""}, "needs --token and --logits"),
        ({"logits": "h_out"}, "given twice|is \\[1, 1, 6\\]"),
        ({"tokens": "h"}, "given twice|whole numbers"),
        ({"special": {"eos": "<end>"}}, "is not in the vocabulary"),
        ({"kind": "runes"}, "kind 'runes'"),
        ({"special": {"eos": "</s>"}, "add_bos_token": True}, "--special bos=SYMBOL"),
    ],
)
def test_what_does_not_fit_is_refused(here, tmp_path, change, message):
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS))
    with pytest.raises(ImportRefused, match=message):
        import_model(mapped(tmp_path, file, **change), tmp_path / "models")
    assert not list((tmp_path / "models").rglob("*.onnx"))


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    file = graphs.language_model(tmp_path / "lm.onnx", len(SYMBOLS) - 1)
    with pytest.raises(ImportRefused, match=r"symbols|not run"):
        import_model(mapped(tmp_path, file), tmp_path / "models")


class Stepping(nn.Module):
    """A language model with a norm between, which no parts describe."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table = nn.Embedding(len(SYMBOLS), 6)
        self.cell = nn.GRUCell(6, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, len(SYMBOLS))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1, 1)

    def step(self, inputs: dict[str, Tensor], state: dict[str, Tensor]) -> Any:
        h = self.cell(self.table(inputs["token"]), state["h"])
        return {"logits": self.head(self.norm(h))}, {"h": h}


def test_a_module_with_a_step_generates(tmp_path):
    module = Stepping().eval()
    bundle = from_torch(
        module, name="m", task="generate", models=tmp_path, vocabulary=SYMBOLS, special=SPECIAL,
        inputs={"token": torch.zeros(1, dtype=torch.int64)}, state={"h": torch.zeros(1, 6)},
        outputs=["logits"],
    )  # fmt: skip
    prompt = bundle.tokenizers["input"].encode("deaf").ids
    suppressed, made = suppressed_of(bundle), []
    state = {"h": torch.zeros(1, 6)}
    with torch.no_grad():
        for token in prompt:
            out, state = module.step({"token": torch.tensor([token])}, state)
        for uniform in UNIFORMS:
            drawn = draw_numpy(out["logits"].numpy(), suppressed, controls(uniform, len(SYMBOLS)))
            made.append(int(drawn.token[0]))
            out, state = module.step({"token": torch.tensor([made[-1]])}, state)
    assert ours(bundle, prompt, UNIFORMS) == made
