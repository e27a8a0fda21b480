"""Embed over real channels."""

import re

import numpy as np
import pytest

from tests.tiny import TAGS
from unroll import Watch
from unroll.v1 import unroll_pb2 as pb

TEXTS = ["abc", "a", "mn mn mn mn mn mn", "fed a fed"]


def normalised(state):
    values = np.frombuffer(state, "<f2").astype(np.float32)
    return values / np.linalg.norm(values)


def test_an_embedding_is_the_last_layers_state_after_the_text(caller):
    """What a stream's first token is drawn from, which Watch shows as float16."""
    for text, embedding in zip(TEXTS, caller.embed("letters", TEXTS), strict=True):
        chunks = caller.generate("letters", prompt=text, max_tokens=1, watch=Watch(["hidden_1"]))
        (token,) = [token for chunk in chunks for token in chunk.tokens]
        assert embedding.values == pytest.approx(normalised(token.state), abs=2e-3)
        assert np.linalg.norm(embedding.values) == pytest.approx(1)
        assert embedding.input_tokens == len(text)


def test_a_taggers_embedding_is_its_state_after_the_last_word(caller):
    text = "the food was not bad"
    (embedding,) = caller.embed("tags-online", [text])
    chunks = caller.stream_tag("tags-online", [text], watch=Watch(["hidden_0"]))
    *_, last = [token for chunk in chunks for token in chunk.tokens]
    assert last.label in TAGS
    assert embedding.values == pytest.approx(normalised(last.state), abs=2e-3)


@pytest.mark.parametrize(
    ("model", "texts"),
    [
        ("letters", TEXTS),
        ("speller", ["abc", "k", "mn mn mn", "fed"]),
        ("tags-online", ["the food", "bad", "the food was not great and not bad at all"]),
    ],
)
def test_a_text_gets_the_same_bits_alone_and_among_others(caller, model, texts):
    together = caller.embed(model, texts)
    assert len({tuple(embedding.values) for embedding in together}) == len(texts)
    assert together == [caller.embed(model, [text])[0] for text in texts]


def test_tensors_come_one_after_the_other_in_the_order_asked_for(caller):
    sizes = {tensor.name: tensor.units for tensor in caller.get_model("letters").state}
    (both,) = caller.embed("letters", ["abc"], tensors=["cell_0", "hidden_1"])
    (first,) = caller.embed("letters", ["abc"], tensors=["cell_0"])
    (second,) = caller.embed("letters", ["abc"])
    size = sizes["cell_0"]
    assert len(both.values) == size + sizes["hidden_1"]
    for part, alone in ((both.values[:size], first), (both.values[size:], second)):
        assert part / np.linalg.norm(part) == pytest.approx(alone.values, abs=1e-6)


def test_models_say_whether_they_embed(caller):
    embeds = {model.name for model in caller.list_models().models if model.embeds}
    assert embeds == {"letters", "speller", "tags-online"}


def test_unknown_symbols_are_counted(caller):
    (embedding,) = caller.embed("letters", ["aXÄb"])
    assert (embedding.input_tokens, embedding.unknown_symbols) == (4, 2)


REFUSED = {
    "nothing": ({"texts": []}, "texts holds 0 entries"),
    "an empty text": ({"texts": ["a", ""]}, r"texts\[1\] is empty"),
    "a long text": ({"texts": ["a" * 65]}, r"texts\[0\] has 65 "),
    "too many texts": ({"texts": ["a"] * 1025}, "texts holds 1025 entries; send 1 to 1024"),
    "another tensor": ({"tensors": ["hidden_9"]}, "has no state 'hidden_9'; it has hidden_0, cell"),
    "a tensor twice": ({"tensors": ["cell_0"] * 2}, "tensors has a name twice; send each once"),
    "a label of its own": (
        {"model": "tags-online", "tensors": ["previous_label"]},
        "has no state 'previous_label'",
    ),
    "a classifier": ({"model": "mood"}, "model 'mood' does not embed: .* call Classify"),
    "a tagger of whole texts": ({"model": "tags"}, "model 'tags' does not embed: .* call Tag"),
    "no state": ({"model": "bigrams"}, "model 'bigrams' does not embed: .* call Generate or Score"),
    "a vector": ({"model": "foods"}, "model 'foods' does not embed: .* call Generate or Score"),
    "a forecaster": ({"model": "rides"}, "model 'rides' does not embed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_embedded_is_refused_and_says_what_to_do(refusal, case):
    fields, message = REFUSED[case]
    request = pb.EmbedRequest(**{"model": "letters", "texts": ["abc"], **fields})
    assert re.search(message, refusal("Embed", request))


def test_more_values_than_one_answer_holds_are_refused(refusal, monkeypatch):
    monkeypatch.setattr("service.serving.embedder.MAX_RETURNED_VALUES", 25)
    request = pb.EmbedRequest(model="letters", texts=["a", "b"])
    message = "2 texts of 13 values each are too many; request at most 25 values a request"
    assert message in refusal("Embed", request)
