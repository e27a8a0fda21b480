import numpy as np
import pytest
import torch

from export.sampler import draw, draw_numpy

VOCABULARY = 12


def controls(rows, temperature=1.0, top_k=0, top_p=1.0):
    return (
        np.full(rows, temperature, np.float32),
        np.full(rows, top_k, np.int64),
        np.full(rows, top_p, np.float32),
    )


def draw_both(logits, silent, temperature, top_k, top_p, uniform):
    tensors = (torch.from_numpy(array) for array in (temperature, top_k, top_p, uniform))
    token, log_probability = draw(torch.from_numpy(logits), torch.from_numpy(silent), *tensors)
    twin = draw_numpy(logits, silent, temperature, top_k, top_p, uniform)
    return token.numpy(), log_probability.numpy(), twin


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 4])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 1.0])
def test_torch_and_numpy_draw_the_same(temperature, top_k, top_p):
    """Two independent ways to the same token, but where a uniform falls on an edge."""
    rows = 400
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (rows, VOCABULARY)).astype(np.float32)
    silent = np.zeros(VOCABULARY, np.float32)
    silent[3] = -np.inf
    uniform = random.random(rows, dtype=np.float32)
    token, log_probability, twin = draw_both(
        logits, silent, *controls(rows, temperature, top_k, top_p), uniform
    )
    clear = twin.margin > 1e-5
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(token[clear], twin.token[clear])
    np.testing.assert_allclose(log_probability[clear], twin.log_probability[clear], atol=1e-5)
    assert (token != 3).all()


def test_frequencies_are_the_models_probabilities():
    """Without cuts, evenly spread uniforms meet each token as often as its probability says."""
    rows = 20_000
    logits = np.tile(np.log(np.array([0.5, 0.2, 0.2, 0.1], np.float32)), (rows, 1))
    uniform = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
    token, _, _ = draw_both(logits, np.zeros(4, np.float32), *controls(rows), uniform)
    shares = np.bincount(token, minlength=4) / rows
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.2, 0.1], atol=1e-3)


def test_top_p_keeps_the_token_that_crosses_the_edge():
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    for uniform, expected in ((0.0, 0), (0.6, 0), (0.63, 1), (0.999, 1)):
        token, _, _ = draw_both(
            logits,
            np.zeros(3, np.float32),
            *controls(1, top_p=0.7),
            np.array([uniform], np.float32),
        )
        assert token[0] == expected


def test_temperature_zero_takes_the_lowest_of_equals():
    logits = np.array([[1.0, 3.0, 3.0, 0.0]], np.float32)
    token, _, _ = draw_both(
        logits, np.zeros(4, np.float32), *controls(1, 0.0), np.array([0.99], np.float32)
    )
    assert token[0] == 1


def test_log_probabilities_are_the_models_own():
    """Temperature, cuts and silent ids change what is drawn, not what it is said to be worth."""
    logits = np.array([[2.0, 1.0, 0.0]], np.float32)
    silent = np.array([-np.inf, 0.0, 0.0], np.float32)
    token, log_probability, _ = draw_both(
        logits, silent, *controls(1, 0.5, 1), np.array([0.5], np.float32)
    )
    assert token[0] == 1
    expected = torch.log_softmax(torch.from_numpy(logits), 1)[0, 1]
    np.testing.assert_allclose(log_probability[0], expected, rtol=1e-6)
