"""What is reached without a network."""

import math

import numpy as np
import pytest

from training.floors.ets import Smoothing, has_ets
from training.floors.naive_bayes import NaiveBayes, character_features, word_features
from training.floors.nearest import NearestText, nearest_vectors
from training.floors.ngram import NGram


def test_word_pairs_distinguish_what_words_do_not():
    texts = ["not good", "very good", "not bad", "very bad"]
    labels = ["blame", "praise", "praise", "blame"]
    bayes = NaiveBayes([word_features(text.split()) for text in texts], labels)
    assert [bayes.ranked(word_features(t.split()))[0] for t in texts] == labels
    alone = NaiveBayes([set(text.split()) for text in texts], labels)
    assert {alone.ranked(set(t.split()))[0] for t in texts} == {"blame"}


def test_a_frequent_label_wins_where_a_text_says_nothing():
    bayes = NaiveBayes([{"a"}, {"a"}, {"a"}], ["x", "y", "y"])
    assert bayes.ranked(set()) == ["y", "x"]


def test_what_is_left_out_was_never_learnt():
    texts = [("a b", "x"), ("a c", "y"), ("b d", "y"), ("c d e", "x")]
    features = [(set(text.split()), label) for text, label in texts]
    every = NaiveBayes(*zip(*features, strict=True))
    fewer = NaiveBayes(*zip(*features[:3], strict=True))
    # Smoothing spreads over all features that are known: e was known to one of them alone.
    every.known -= 1
    for asked in ({"a", "b"}, {"c"}, {"zzz"}, set()):
        assert every.scores(asked, [features[3]]) == pytest.approx(fewer.scores(asked))
    assert every.scores({"e"}, [features[3]]) != pytest.approx(every.scores({"e"}))


def test_ends_of_a_text_are_marked():
    assert {"^a", "b$", "^ab$"} <= character_features("ab")


def test_an_ngrams_probabilities_sum_to_one():
    counted = NGram([[1, 2, 3, 1, 2, 4], [1, 2]], order=3, vocabulary=4)
    for context in ([], [1], [1, 2], [9, 2], [7]):
        total = sum(math.exp(-counted.nats([*context, t], len(context))[0]) for t in range(1, 5))
        assert total == pytest.approx(1)


def test_an_ngram_knows_what_follows():
    counted = NGram([[1, 2] * 50], order=2, vocabulary=9)
    assert counted.nats([1, 2, 1], 1) == pytest.approx([0.02, 0.02], abs=0.05)
    assert NGram([[1, 2] * 50], 1, 9).nats([1, 2], 1)[0] == pytest.approx(math.log(2), abs=0.1)


def test_the_nearest_text_shares_rare_runs():
    known = NearestText(["twenty one", "thirty one", "forty two", "nothing"])
    assert known.nearest("thirty three") == 1
    assert known.nearest("forty one") == 2
    assert known.nearest("§§") == 0


def test_vectors_are_compared_in_deviations():
    vectors = [(0.0, 1_000.0), (1.0, 1_200.0), (0.0, 2_000.0)]
    assert nearest_vectors(vectors, [(0.9, 1_100.0), (0.1, 1_900.0)]) == [1, 2]


needs_ets = pytest.mark.skipif(not has_ets(), reason="statsmodels is not installed")


@needs_ets
def test_smoothing_goes_on_with_a_season_and_says_how_sure_it_is():
    random = np.random.default_rng(0)
    time = np.arange(96)
    values = 100 + 20 * np.sin(2 * np.pi * time / 12) + random.normal(0, 2, 96)
    samples = Smoothing(values[:84], 12).samples(200, 12)
    assert samples.shape == (200, 12)
    assert np.abs(np.median(samples, axis=0) - values[84:]).mean() < 4
    spread = np.diff(np.quantile(samples, (0.1, 0.9), axis=0), axis=0)
    assert (spread > 2).all()
    assert (spread < 20).all()
    assert np.array_equal(samples, Smoothing(values[:84], 12).samples(200, 12)), "by a seed"


@needs_ets
@pytest.mark.parametrize("past", [[5.0] * 30, [3.0], [1.0, 2.0, 4.0], [0.0, -1.0] * 20])
def test_smoothing_of_what_is_short_or_flat_or_below_zero_is_finite(past):
    assert np.isfinite(Smoothing(np.array(past), 12).samples(9, 4)).all()
