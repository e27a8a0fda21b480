import numpy as np
import pytest

from export.sampler import draw_numpy
from tests.export.drawing import draw, feed_of

VOCABULARY = 12


def draw_both(logits, suppressed=None, **chosen):
    rows, vocabulary = logits.shape
    suppressed = np.zeros(vocabulary, np.float32) if suppressed is None else suppressed
    if "seen" in chosen or "bias" in chosen:
        nothing = {"seen": np.zeros((rows, vocabulary), bool)}
        nothing["bias"] = np.zeros((rows, vocabulary), np.float32)
        chosen = nothing | chosen | {"adjusted": np.arange(rows)}
    chosen.setdefault("uniform", np.full(rows, 0.5, np.float32))
    feed = feed_of(logits, suppressed=suppressed, **chosen)
    token, log_probability, log_probabilities = draw(feed)
    np.testing.assert_array_equal(
        log_probability, np.take_along_axis(log_probabilities, token[:, None], 1)[:, 0]
    )
    return token, log_probability, draw_numpy(logits, suppressed, feed)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 4])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("penalised", [False, True])
def test_graph_and_numpy_draw_the_same(temperature, top_k, top_p, penalised):
    """Two independent ways to the same token, but where a uniform falls on an edge."""
    rows = 400
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (rows, VOCABULARY)).astype(np.float32)
    suppressed = np.zeros(VOCABULARY, np.float32)
    suppressed[3] = -np.inf
    chosen = {"uniform": random.random(rows, dtype=np.float32)}
    chosen["retries"] = random.random((rows, 2), dtype=np.float32)
    if penalised:
        bias = random.normal(0, 1, (rows, VOCABULARY)).astype(np.float32)
        bias[:, 5] = -np.inf
        chosen |= {"bias": bias, "seen": random.random((rows, VOCABULARY)) < 0.4}
        chosen |= {"repetition": 1.4, "min_p": 0.1}
    token, log_probability, twin = draw_both(
        logits, suppressed, temperature=temperature, top_k=top_k, top_p=top_p, **chosen
    )
    clear = twin.margin > 1e-5
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(token[clear], twin.token[clear])
    np.testing.assert_allclose(log_probability[clear], twin.log_probability[clear], atol=1e-5)
    assert (token != 3).all()
    assert not (penalised and (token == 5).any())


def test_frequencies_are_the_models_probabilities():
    """Without cuts, evenly spread uniforms meet each token as often as its probability says."""
    rows = 20_000
    logits = np.tile(np.log(np.array([0.5, 0.2, 0.2, 0.1], np.float32)), (rows, 1))
    uniform = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
    token, _, _ = draw_both(logits, uniform=uniform)
    shares = np.bincount(token, minlength=4) / rows
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.2, 0.1], atol=1e-3)


def shares(logits, **chosen):
    """How often each token is drawn of one row of logits, by evenly spread uniforms."""
    rows = 8_000
    random = np.random.default_rng(2)
    chosen["uniform"] = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
    chosen["retries"] = random.random((rows, 2), dtype=np.float32)
    token, _, twin = draw_both(np.tile(logits, (rows, 1)), **chosen)
    np.testing.assert_array_equal(token[twin.margin > 1e-5], twin.token[twin.margin > 1e-5])
    return np.bincount(token, minlength=len(logits)) / rows


def test_top_p_keeps_the_token_that_crosses_the_edge():
    """Drawn again or by rank where the first token is not kept: the shares are those of p."""
    found = shares(np.log(np.array([0.2, 0.5, 0.3], np.float32)), top_p=0.7)
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], [0.625, 0.375], atol=0.02)


def test_top_p_takes_equally_probable_tokens_together():
    found = shares(np.log(np.array([0.25, 0.25, 0.25, 0.2, 0.05], np.float32)), top_p=0.3)
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 3, 0, 0], atol=0.02)


def test_top_k_takes_of_equally_probable_tokens_the_lower_ids():
    found = shares(np.log(np.array([0.1, 0.3, 0.3, 0.3], np.float32)), top_k=2)
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 0], atol=0.02)


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest():
    found = shares(np.log(np.array([0.05, 0.5, 0.3, 0.15], np.float32)), min_p=0.5)
    assert found[0] == found[3] == 0
    np.testing.assert_allclose(found[1:3], [0.625, 0.375], atol=0.02)


def test_a_small_nucleus_is_drawn_by_rank():
    """Of 1,000 tokens the few that top-p keeps are met by the first two uniforms hardly ever."""
    logits = np.full(1_000, np.log(0.9 / 990), np.float32)
    logits[7::100] = np.log(0.1 / 10)
    found = shares(logits, top_p=0.05)
    np.testing.assert_allclose(found[7::100], 0.1, atol=0.02)
    assert found.sum() == pytest.approx(found[7::100].sum())


def test_repetition_divides_positive_and_multiplies_negative_logits():
    """Both ways make a token that was seen less likely; one that was not seen stays."""
    logits = np.array([[2.0, 1.5, -3.0], [-1.0, -1.5, -3.0]], np.float32)
    seen = np.array([[True, False, False], [True, False, False]])
    token, _, _ = draw_both(logits, temperature=0.0, repetition=2.0, seen=seen)
    assert token.tolist() == [1, 1]


def test_temperature_zero_takes_the_lowest_of_equals():
    logits = np.array([[1.0, 3.0, 3.0, 0.0]], np.float32)
    token, _, _ = draw_both(logits, temperature=0.0, uniform=np.array([0.99], np.float32))
    assert token[0] == 1


def test_log_probabilities_are_the_models_own():
    """Temperature, cuts, bias and suppressed ids change what is drawn, not what it is worth."""
    logits = np.array([[2.0, 1.0, 0.0]], np.float32)
    suppressed = np.array([-np.inf, 0.0, 0.0], np.float32)
    bias = np.array([[0.0, 5.0, 0.0]], np.float32)
    token, log_probability, _ = draw_both(logits, suppressed, temperature=0.5, top_k=1, bias=bias)
    assert token[0] == 1
    expected = logits[0, 1] - np.logaddexp.reduce(logits[0])
    np.testing.assert_allclose(log_probability[0], expected, rtol=1e-6)
