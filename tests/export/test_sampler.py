import numpy as np
import pytest
import torch

from bundle.sampling import GRAPH_PARAMETERS
from export.sampler import draw, draw_numpy

VOCABULARY = 12


def controls(rows, vocabulary, **chosen):
    """What is not chosen is neutral; ``uniform`` is a half."""
    columns = {
        name: np.full(rows, chosen.get(name, parameter.neutral), parameter.dtype)
        for name, parameter in GRAPH_PARAMETERS.items()
    }
    others = {
        "uniform": np.full(rows, 0.5, np.float32),
        "seen": np.zeros((rows, vocabulary), bool),
        "bias": np.zeros((rows, vocabulary), np.float32),
    }
    return columns | {name: chosen.get(name, array) for name, array in others.items()}


def draw_both(logits, suppressed=None, **chosen):
    rows, vocabulary = logits.shape
    suppressed = np.zeros(vocabulary, np.float32) if suppressed is None else suppressed
    arrays = controls(rows, vocabulary, **chosen)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    drawn = draw(torch.from_numpy(logits), torch.from_numpy(suppressed), tensors)
    token, log_probability, log_probabilities = (part.numpy() for part in drawn)
    np.testing.assert_array_equal(
        log_probability, np.take_along_axis(log_probabilities, token[:, None], 1)[:, 0]
    )
    return token, log_probability, draw_numpy(logits, suppressed, arrays)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 4])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("penalised", [False, True])
def test_torch_and_numpy_draw_the_same(temperature, top_k, top_p, penalised):
    """Two independent ways to the same token, but where a uniform falls on an edge."""
    rows = 400
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (rows, VOCABULARY)).astype(np.float32)
    suppressed = np.zeros(VOCABULARY, np.float32)
    suppressed[3] = -np.inf
    chosen = {"uniform": random.random(rows, dtype=np.float32)}
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


def test_top_p_keeps_the_token_that_crosses_the_edge():
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    for uniform, expected in ((0.0, 0), (0.6, 0), (0.63, 1), (0.999, 1)):
        token, _, _ = draw_both(logits, top_p=0.7, uniform=np.array([uniform], np.float32))
        assert token[0] == expected


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    for uniform, expected in ((0.0, 0), (0.62, 0), (0.63, 1), (0.999, 1)):
        token, _, _ = draw_both(logits, min_p=0.5, uniform=np.array([uniform], np.float32))
        assert token[0] == expected


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
    expected = torch.log_softmax(torch.from_numpy(logits), 1)[0, 1]
    np.testing.assert_allclose(log_probability[0], expected, rtol=1e-6)
