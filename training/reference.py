"""The lecture's recurrent network and its gradient in plain NumPy, an equation a function.

Part II & III, "Forward propagation" and "Computing the gradient"; docs/gradient.md derives every
line. It is what PyTorch's gradients are compared with, and trains nothing.

Shapes: x (τ, inputs), h (τ + 1, hidden) with h[0] the state before the first step, o, ŷ and the
targets p (τ, classes). Row t - 1 of x, o, ŷ and p, and row t of h, belong to step t. All float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A target distribution may miss a sum of 1 by rounding only.
_SUM_TOLERANCE = 1e-9


class TargetsInvalid(ValueError):
    """Targets that are no distribution at some step: ŷ - p is not the gradient of their loss."""


@dataclass(frozen=True)
class Parameters:
    """U (hidden, inputs), W (hidden, hidden), V (classes, hidden), b (hidden,), c (classes,);
    or, of the same shapes, the gradient with respect to each."""

    U: Array
    W: Array
    V: Array
    b: Array
    c: Array


@dataclass(frozen=True)
class Unrolled:
    """What a forward pass leaves for the way back: h (τ + 1, hidden), o and ŷ (τ, classes)."""

    h: Array
    o: Array
    y_hat: Array


def one_hot(labels: NDArray[np.int64], classes: int) -> Array:
    """labels (τ,) below ``classes`` → (τ, classes), each row a 1 at its label"""
    rows: Array = np.eye(classes)[labels]
    return rows


# -- forward --------------------------------------------------------------------------------


def forward(parameters: Parameters, x: Array, before: Array) -> Unrolled:
    """Unroll the one update rule over x (τ, inputs) from h^(0) = ``before`` (hidden,)."""
    h = [before]
    for x_t in x:
        h.append(step(parameters, x_t, h[-1]))
    o = np.stack([parameters.c + parameters.V @ h_t for h_t in h[1:]])
    return Unrolled(np.stack(h), o, softmax(o))


def step(parameters: Parameters, x_t: Array, h_before: Array) -> Array:
    """a^(t) = b + W h^(t-1) + U x^(t), h^(t) = tanh(a^(t))"""
    a = parameters.b + parameters.W @ h_before + parameters.U @ x_t
    h: Array = np.tanh(a)
    return h


def log_softmax(o: Array) -> Array:
    """log ŷ, from the largest logit down so that no exponential overflows"""
    shifted = o - o.max(axis=1, keepdims=True)
    log_y_hat: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_y_hat


def softmax(o: Array) -> Array:
    y_hat: Array = np.exp(log_softmax(o))
    return y_hat


def loss(o: Array, p: Array) -> float:
    """L = Σ_t L^(t), L^(t) = -Σ_i p_i log ŷ_i: -log ŷ_y where p is one-hot at y. In nats."""
    return float(-(p * log_softmax(o)).sum())


# -- backward, on the nodes of the unrolled graph -------------------------------------------


def gradient_of_o(y_hat: Array, p: Array) -> Array:
    """∇_{o^(t)} L = ŷ^(t) - p^(t), for every t

    Raises TargetsInvalid where p is not a distribution at each step.
    """
    if (p < 0).any() or (np.abs(p.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise TargetsInvalid("targets of a step must be at least 0 and sum to 1; normalise them")
    return y_hat - p


def gradient_of_last_h(V: Array, on_o: Array) -> Array:
    """∇_{h^(τ)} L = Vᵀ ∇_{o^(τ)} L: nothing follows the last step."""
    return V.T @ on_o


def gradient_of_earlier_h(
    parameters: Parameters, h_next: Array, on_h_next: Array, on_o: Array
) -> Array:
    """∇_{h^(t)} L = Wᵀ diag(1 - h^(t+1)²) ∇_{h^(t+1)} L + Vᵀ ∇_{o^(t)} L, for t < τ"""
    return parameters.W.T @ gradient_of_a(h_next, on_h_next) + parameters.V.T @ on_o


def gradient_of_h(parameters: Parameters, h: Array, on_o: Array) -> Array:
    """∇_{h^(t)} L for t = 1 … τ (τ, hidden), from the last step to the first"""
    on_h = [gradient_of_last_h(parameters.V, on_o[-1])]
    for h_next, on_o_t in zip(h[:1:-1], on_o[-2::-1], strict=True):
        on_h.append(gradient_of_earlier_h(parameters, h_next, on_h[-1], on_o_t))
    return np.stack(on_h[::-1])


def gradient_of_a(h: Array, on_h: Array) -> Array:
    """∇_{a^(t)} L = diag(1 - h^(t)²) ∇_{h^(t)} L, for one step or for all"""
    on_a: Array = (1 - h**2) * on_h
    return on_a


# -- backward, on the parameters, which every step shares -----------------------------------


def gradient_of_c(on_o: Array) -> Array:
    """∇_c L = Σ_t ∇_{o^(t)} L"""
    return sum_over_time(on_o)


def gradient_of_V(on_o: Array, h: Array) -> Array:
    """∇_V L = Σ_t (∇_{o^(t)} L) h^(t)ᵀ"""
    return on_o.T @ h[1:]


def gradient_of_b(on_a: Array) -> Array:
    """∇_b L = Σ_t ∇_{a^(t)} L"""
    return sum_over_time(on_a)


def gradient_of_W(on_a: Array, h: Array) -> Array:
    """∇_W L = Σ_t (∇_{a^(t)} L) h^(t-1)ᵀ"""
    return on_a.T @ h[:-1]


def gradient_of_U(on_a: Array, x: Array) -> Array:
    """∇_U L = Σ_t (∇_{a^(t)} L) x^(t)ᵀ"""
    return on_a.T @ x


def sum_over_time(rows: Array) -> Array:
    total: Array = rows.sum(axis=0)
    return total


def gradient(parameters: Parameters, x: Array, p: Array, unrolled: Unrolled) -> Parameters:
    """The gradient of the loss with respect to every parameter: back-propagation through time.

    unrolled: of ``forward`` with the same parameters and x.

    Raises TargetsInvalid where p (τ, classes) is not a distribution at each step.
    """
    h = unrolled.h
    on_o = gradient_of_o(unrolled.y_hat, p)
    on_h = gradient_of_h(parameters, h, on_o)
    on_a = gradient_of_a(h[1:], on_h)
    return Parameters(
        U=gradient_of_U(on_a, x),
        W=gradient_of_W(on_a, h),
        V=gradient_of_V(on_o, h),
        b=gradient_of_b(on_a),
        c=gradient_of_c(on_o),
    )


def reach(W: Array, h: Array, step_from: int, step_to: int) -> Array:
    """What carries a gradient from step ``step_to`` back to step ``step_from`` (hidden, hidden)

    (∂h^(to) / ∂h^(from))ᵀ = Π_{k = from+1 … to} Wᵀ diag(1 - h^(k)²), the earliest factor
    leftmost. Its norm is at most ‖W‖₂^(to - from): below 1 it vanishes with the distance.
    """
    product = np.eye(len(W))
    for k in range(step_from + 1, step_to + 1):
        product = product @ (W.T * (1 - h[k] ** 2))
    return product
