"""Classifiers from elsewhere: each text as the original has it alone, whatever it is beside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bundle.store import read_bundle
from export.foreign.bundles import import_model
from export.foreign.classifiers import import_classifier, read_tokenizer
from export.foreign.cli import main
from export.foreign.errors import ImportRefused
from export.foreign.inspection import inspected
from export.foreign.mapping import GraphMapping, ModelMapping
from export.foreign.surgery import open_model
from service.runtime.sessions import SessionSettings, open_session
from tests.export import foreign_graphs as graphs

SYMBOLS = ["[PAD]", "[UNK]", "good", "bad", "food", "the", "is", "not"]
LABELS = ("no", "maybe", "yes")
SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)
TEXTS = ((2,), (5, 4, 6, 7, 2), (3, 3, 1))


def tokenizer(folder: Path, **changes: Any) -> Path:
    """A tokenizer.json of words between spaces."""
    content = {
        "model": {
            "type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {symbol: number for number, symbol in enumerate(SYMBOLS)},
        },
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "normalizer": {"type": "Lowercase"},
        "added_tokens": [{"content": "[PAD]", "id": 0}],
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps({**content, **changes}))
    return folder / "tokenizer.json"


def mapped(folder: Path, file: Path, **options: Any) -> ModelMapping:
    (folder / "labels.txt").write_text("\n".join(LABELS))
    given = {"tokenizer": tokenizer(folder), **options}
    graph = GraphMapping(file)
    return ModelMapping("topics", "classify", (graph,), labels=folder / "labels.txt", **given)


@pytest.mark.parametrize("told", ["lengths", "mask", ""])
def test_texts_of_different_lengths_do_not_meet(tmp_path, told):
    """One that is told nothing of lengths runs its texts one by one."""
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), told)
    options = {told: told} if told else {}
    target = tmp_path / "models" / "topics" / "1"
    target.mkdir(parents=True)
    mapping = mapped(tmp_path, file, tokens="input_ids", **options)
    outcome = import_classifier(mapping, target)
    bundle = read_bundle(target)
    assert (bundle.manifest.training["batching"] == "none") == (not told), outcome
    session = open_session(bundle, "predict", SETTINGS)
    original = open_model(str(file))
    tokens = np.zeros((3, 5), np.int64)
    for row, text in zip(tokens, TEXTS, strict=True):
        row[: len(text)] = text
    lengths = np.array([len(text) for text in TEXTS])
    (found,) = session.run(None, {"tokens": tokens, "lengths": lengths})
    for row, text in zip(found, TEXTS, strict=True):
        feed: dict[str, Any] = {"input_ids": np.array([text])}
        if told == "lengths":
            feed["lengths"] = np.array([len(text)], np.int32)
        elif told == "mask":
            feed["mask"] = np.ones((1, len(text)), np.float32)
        (logits,) = original.run(None, feed)
        weights = np.exp(logits[0] - logits[0].max())
        assert np.allclose(row, weights / weights.sum(), atol=1e-6)


def crowded(file: Path) -> Path:
    """The classifier of ``file``, the logits of all texts beyond the fourth of a batch NaN."""
    model = onnx.load_model(str(file))
    graph = model.graph
    next(node for node in graph.node if "logits" in node.output).output[0] = "scores"
    constants = {"none": 0.0, "unit": 1.0, "most": 4.0, "below": -1.0}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "axis"))
    for kind, inputs, output in (
        ("Mul", ["scores", "none"], "zeros"),
        ("Add", ["zeros", "unit"], "ones"),
        ("CumSum", ["ones", "axis"], "places"),
        ("Greater", ["places", "most"], "late"),
        ("Log", ["below"], "nan"),
        ("Where", ["late", "nan", "scores"], "logits"),
    ):
        graph.node.append(helper.make_node(kind, inputs, [output]))
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize("allow_inexact", [False, True])
def test_texts_that_are_nan_in_a_batch_alone_run_one_by_one(tmp_path, allow_inexact):
    file = crowded(graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), "lengths"))
    target = tmp_path / "models" / "topics" / "1"
    target.mkdir(parents=True)
    mapping = mapped(tmp_path, file, lengths="lengths", allow_inexact=allow_inexact)
    import_classifier(mapping, target)
    found = read_bundle(target).manifest.training
    assert (found["batching"], found["difference"]) == ("none", 0)
    assert found["reason"].startswith("a text's probability is NaN beside others")


@pytest.mark.parametrize("ends", ["lengths", "mask", ""])
def test_inspect_proposes_a_classifier_for_texts_without_state(tmp_path, ends):
    """Its command runs once labels and tokenizer are there."""
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), ends)
    lines = inspected(file)
    assert "so the task is classify" in "\n".join(lines)
    flag = f" --{ends} {ends}" if ends else ""
    assert f"--token input_ids{flag} --logits logits --labels labels.txt" in lines[-1]
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    words = [
        str(tmp_path / word) if word in ("labels.txt", "tokenizer.json") else word
        for word in lines[-1].split()[3:]
    ]
    tokenizer(tmp_path)
    assert main([*words, "--models", str(tmp_path / "models")]) == 0
    assert read_bundle(tmp_path / "models" / "c" / "1").manifest.task == "classify"


def test_its_tokenizer_reads_as_it_did(tmp_path):
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), "lengths")
    bundle, lines = import_model(mapped(tmp_path, file, lengths="lengths"), tmp_path / "m")
    reader = bundle.tokenizers["input"]
    assert reader.encode("The food is great").ids == [5, 4, 6, 1]
    assert reader.encode("[PAD]").ids == [1], "no text is padding"
    assert bundle.manifest.labels == LABELS
    assert any("read as symbols" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "none of this service's ways"),
        ({"model": {"type": "BPE", "vocab": {"[PAD]": 0}}}, "none of this service's ways"),
        ({"normalizer": {"type": "NFKC"}}, "none of this service's ways"),
        ({"model": {"vocab": {"a": 0, "b": 2}}}, "ids are not 0 to"),
        ({"model": []}, "no tokenizer.json"),
        ({"pre_tokenizer": 3}, "no tokenizer.json"),
        ({"normalizer": {"type": "Sequence", "normalizers": 3}}, "no tokenizer.json"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path, change, message):
    with pytest.raises(ImportRefused, match=message):
        read_tokenizer(tokenizer(tmp_path, **change))


SEQUENCE = {
    "type": "Sequence",
    "normalizers": [{"type": "Lowercase"}, {"type": "Sequence", "normalizers": []}],
}
BERT = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None}
MIXED = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, BERT]}


@pytest.mark.parametrize(
    ("normalizer", "options", "lowercases"),
    [
        (None, {}, False),
        (SEQUENCE, {}, True),
        (SEQUENCE, {"kind": "words"}, True),
        ({"type": "Lowercase"}, {"kind": "words"}, True),
        (BERT, {"lowercase": True}, True),
        (BERT, {"kind": "words", "lowercase": False}, False),
        (None, {"lowercase": True}, True),
    ],
)
def test_texts_are_lowercased_as_the_file_or_the_caller_says(
    tmp_path, normalizer, options, lowercases
):
    reader = read_tokenizer(tokenizer(tmp_path, normalizer=normalizer), **options)
    assert reader.lowercase == lowercases
    assert reader.encode("Good").ids == [2 if lowercases else 1]


@pytest.mark.parametrize("normalizer", [BERT, MIXED, {"type": "StripAccents"}])
def test_a_normalizer_that_does_more_is_not_dropped(tmp_path, normalizer):
    with pytest.raises(ImportRefused, match="give --lowercase or --no-lowercase"):
        read_tokenizer(tokenizer(tmp_path, normalizer=normalizer), "words")


def test_special_symbols_count_beside_a_tokenizer_file(tmp_path):
    reader = read_tokenizer(tokenizer(tmp_path), special={"pad": "the", "eos": "not"})
    assert dict(reader.vocabulary.special) == {"pad": 5, "unk": 1, "eos": 7}


@pytest.mark.parametrize("lowercase", [None, True])
def test_a_plain_vocabulary_is_lowercased_where_it_is_said(tmp_path, lowercase):
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), "lengths")
    (tmp_path / "vocab.txt").write_text("\n".join(SYMBOLS))
    mapping = mapped(
        tmp_path, file, tokenizer=None, vocabulary=tmp_path / "vocab.txt", lowercase=lowercase,
        special={"unk": "[UNK]"}, lengths="lengths",
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    import_classifier(mapping, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert content["tokenizers"]["input"]["lowercase"] == bool(lowercase)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "needs --labels"),
        ({"tokenizer": None}, "needs --tokenizer"),
        ({"tokens": "nothing"}, "has no input 'nothing'"),
        ({"logits": "nothing"}, "has no output 'nothing'"),
        ({"lengths": ""}, "neither tokens, mask nor lengths"),
        ({"probabilities": "logits"}, "no probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), len(LABELS), "lengths")
    given = {"tokens": "input_ids", "lengths": "lengths", **change}
    mapping = mapped(tmp_path, file)
    (tmp_path / "out").mkdir()
    with pytest.raises(ImportRefused, match=message):
        import_classifier(replace(mapping, **given), tmp_path / "out")


def test_labels_of_another_number_are_refused(tmp_path):
    file = graphs.classifier(tmp_path / "c.onnx", len(SYMBOLS), 2, "lengths")
    (tmp_path / "out").mkdir()
    with pytest.raises(ImportRefused, match="there are 3 labels"):
        import_classifier(
            mapped(tmp_path, file, tokens="input_ids", lengths="lengths"), tmp_path / "out"
        )
