"""The lecture's gradient by hand, against PyTorch's and against differences of the loss."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from training.reference import (
    Parameters,
    TargetsInvalid,
    forward,
    gradient,
    loss,
    one_hot,
    reach,
)

# (τ, inputs, hidden, classes)
SIZES = ((1, 3, 4, 2), (1, 1, 1, 2), (2, 4, 3, 5), (7, 5, 6, 4), (30, 8, 12, 10))
PARAMETERS = ("U", "W", "V", "b", "c")


def problem(sizes, seed, soft):
    """Random parameters, inputs, first state and targets; soft targets are distributions."""
    steps, inputs, hidden, classes = sizes
    random = np.random.default_rng(seed)
    parameters = Parameters(
        U=random.normal(0, 0.7, (hidden, inputs)),
        W=random.normal(0, 0.7, (hidden, hidden)),
        V=random.normal(0, 0.7, (classes, hidden)),
        b=random.normal(0, 0.3, hidden),
        c=random.normal(0, 0.3, classes),
    )
    x, before = random.normal(0, 1, (steps, inputs)), random.uniform(-1, 1, hidden)
    labels = random.integers(0, classes, steps)
    p = random.dirichlet(np.ones(classes), steps) if soft else one_hot(labels, classes)
    return parameters, x, before, p, labels


@pytest.fixture(params=SIZES, ids=lambda sizes: f"{sizes[0]} steps, hidden {sizes[2]}")
def sizes(request):
    return request.param


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "distributions"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_is_pytorchs(sizes, seed, soft):
    """To 1e-10 in float64, through PyTorch's own recurrent layer and its own loss."""
    parameters, x, before, p, labels = problem(sizes, seed, soft)
    _, inputs, hidden, classes = sizes
    layer = torch.nn.RNN(inputs, hidden, dtype=torch.float64)
    output = torch.nn.Linear(hidden, classes, dtype=torch.float64)
    theirs = {
        "U": layer.weight_ih_l0,
        "W": layer.weight_hh_l0,
        "V": output.weight,
        "b": layer.bias_ih_l0,
        "c": output.bias,
    }
    with torch.no_grad():
        layer.bias_hh_l0.zero_()
        for name, tensor in theirs.items():
            tensor.copy_(torch.from_numpy(getattr(parameters, name)))
    h, _ = layer(torch.from_numpy(x), torch.from_numpy(before).unsqueeze(0))
    targets = torch.from_numpy(p if soft else labels)
    total = cross_entropy(output(h), targets, reduction="sum")
    total.backward()

    unrolled = forward(parameters, x, before)
    ours = gradient(parameters, x, p, unrolled)
    assert loss(unrolled.o, p) == pytest.approx(total.item(), abs=1e-10)
    np.testing.assert_allclose(unrolled.h[1:], h.detach().numpy(), atol=1e-12)
    for name, tensor in theirs.items():
        np.testing.assert_allclose(
            getattr(ours, name), tensor.grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name
        )


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "distributions"])
@pytest.mark.parametrize("seed", [3, 4])
def test_the_gradient_is_the_slope_of_the_loss(sizes, seed, soft):
    """Central differences of each number of each parameter, to 1e-6 of the gradient's norm."""
    parameters, x, before, p, _ = problem(sizes, seed, soft)
    ours = gradient(parameters, x, p, forward(parameters, x, before))
    for name in PARAMETERS:
        slopes = central_differences(parameters, name, x, before, p)
        exact = getattr(ours, name)
        missed = np.linalg.norm(slopes - exact) / np.linalg.norm(exact)
        assert missed < 1e-6, name


def central_differences(parameters, name, x, before, p, width=1e-5):
    def loss_with(place, change):
        moved = getattr(parameters, name).copy()
        moved[place] += change
        return loss(forward(replace(parameters, **{name: moved}), x, before).o, p)

    slopes = np.zeros_like(getattr(parameters, name))
    for place in np.ndindex(slopes.shape):
        slopes[place] = (loss_with(place, width) - loss_with(place, -width)) / (2 * width)
    return slopes


def test_a_single_step_has_no_past_but_its_first_state():
    """τ = 1: W learns only from the state before, so from none where that is zero."""
    parameters, x, _, p, _ = problem((1, 3, 4, 2), 5, soft=False)
    ours = gradient(parameters, x, p, forward(parameters, x, np.zeros(4)))
    assert not ours.W.any()
    assert ours.U.any()


def test_labels_are_the_one_hot_case_of_distributions():
    """L = Σ_t -log ŷ_y: the loss of a one-hot target is that of its label."""
    parameters, x, before, p, labels = problem((6, 3, 4, 5), 6, soft=False)
    unrolled = forward(parameters, x, before)
    chosen = unrolled.y_hat[np.arange(6), labels]
    assert loss(unrolled.o, p) == pytest.approx(-np.log(chosen).sum(), rel=1e-14)


def test_large_logits_do_not_overflow():
    o, p = np.array([[1e4, -1e4]]), np.array([[0.0, 1.0]])
    assert loss(o, p) == 2e4


@pytest.mark.parametrize("p", [[[0.5, 0.4]], [[1.5, -0.5]]], ids=["sum below 1", "below 0"])
def test_targets_that_are_no_distribution_are_refused(p):
    """ŷ - p is the gradient for Σ p = 1 alone; the slide's last step uses it."""
    parameters, x, before, _, _ = problem((1, 3, 4, 2), 7, soft=True)
    with pytest.raises(TargetsInvalid, match="sum to 1"):
        gradient(parameters, x, np.array(p), forward(parameters, x, before))


def test_all_is_float64():
    parameters, x, before, p, _ = problem((4, 3, 4, 2), 8, soft=True)
    unrolled = forward(parameters, x, before)
    parts = {**vars(unrolled), **asdict(gradient(parameters, x, p, unrolled))}
    assert {part.dtype for part in parts.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_gradients_vanish_or_explode_with_the_distance(gain):
    """W a rotation times ``gain``, at states near zero: the reach is near gain^distance.

    At large states tanh is flat, and the same W of gain 1.5 lets nothing through.
    """
    random = np.random.default_rng(9)
    W = gain * np.linalg.qr(random.normal(size=(8, 8)))[0]
    quiet, loud = np.full((41, 8), 0.01), np.full((41, 8), 0.9)
    for distance in (1, 20, 40):
        norm = np.linalg.norm(reach(W, quiet, 0, distance), 2)
        assert norm == pytest.approx((gain * (1 - 0.01**2)) ** distance)
    assert np.linalg.norm(reach(W, loud, 0, 40), 2) < 1e-20


def test_the_reach_is_how_a_late_loss_changes_with_an_early_state():
    """∂h^(τ) / ∂h^(0), transposed, against autograd."""
    parameters, x, before, _, _ = problem((6, 3, 4, 2), 10, soft=False)
    b, W, U = (torch.from_numpy(getattr(parameters, name)) for name in ("b", "W", "U"))

    def last_state(h):
        for x_t in torch.from_numpy(x):
            h = torch.tanh(b + W @ h + U @ x_t)
        return h

    jacobian = torch.autograd.functional.jacobian(last_state, torch.from_numpy(before))
    h = forward(parameters, x, before).h
    np.testing.assert_allclose(reach(parameters.W, h, 0, 6), jacobian.numpy().T, atol=1e-13)
