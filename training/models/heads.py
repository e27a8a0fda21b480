"""What a forecaster's last layer means: a distribution, its likelihood, and draws from it.

A draw is by inverse transform, as that of a token (export/sampler.py): cells share the interval [0,
1) by their probability, a uniform number picks one, and within a cell of a continuous distribution
it says how far. A graph computes the draw, whose bits must not depend on where in a batch a row
lies. So it is made of sums, products, quotients, square roots, softmax and running sums alone:
onnxruntime computes logarithms, powers and sines otherwise at the end of an array than in its
middle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import NegativeBinomial, Normal, StudentT

from bundle.series import GAUSSIAN, NEGATIVE_BINOMIAL, STUDENT_T

# Cells of a draw: in probability, few are wider than a thousandth.
CELLS = 1024
# A count is below this; a model of larger ones takes another head.
MOST_COUNT = CELLS - 1
# No distribution is narrower, in units of a series' scale.
_LEAST_SPREAD = 1e-3
_LEAST_FREEDOM = 2.0
# Logarithms of a count's mean and of its shape are kept within this: exp() stays finite.
_MOST_LOG = 12.0


class Head(nn.Module):
    """parameters_size: numbers of the last layer that it reads."""

    parameters_size: int

    def log_likelihood(self, parameters: Tensor, values: Tensor, log_scale: Tensor) -> Tensor:
        """parameters (…, parameters_size), values and log_scale (…), in units of the scale and its
        logarithm → (…) nats of the values in these units"""
        raise NotImplementedError

    def weights(self, parameters: Tensor, log_scale: Tensor) -> Tensor:
        """Probabilities (batch, CELLS) of the cells."""
        raise NotImplementedError

    def place(self, cells: Tensor, parameters: Tensor, log_scale: Tensor) -> Tensor:
        """The value at ``cells`` (batch,), whole cells and the share of the last one."""
        raise NotImplementedError

    def draw(self, parameters: Tensor, uniform: Tensor, log_scale: Tensor) -> Tensor:
        """parameters (batch, parameters_size), uniform in [0, 1) and log_scale (batch,) →
        (batch,)"""
        weights = self.weights(parameters, log_scale)
        edges = weights.cumsum(dim=1)
        target = uniform.unsqueeze(1) * edges[:, -1:]
        # As of a token: an edge lies above the target, and the first one ends a cell with weight.
        cell = (edges <= target).sum(dim=1, keepdim=True).clamp(max=CELLS - 1)
        weight, edge = weights.gather(1, cell), edges.gather(1, cell)
        share = ((target - (edge - weight)) / weight.clamp(min=1e-30)).clamp(0.0, 1.0)
        return self.place((cell + share).squeeze(1), parameters, log_scale)


class _Continuous(Head):
    """Cells are equal parts of (-1, 1), whose number y stands for the deviation 2y / (1 - y²) in
    units of ``unit()``: the tangent of twice the angle whose tangent y is."""

    middle: Tensor

    def __init__(self) -> None:
        super().__init__()
        middle = (2 * torch.arange(CELLS, dtype=torch.float64) + 1) / CELLS - 1
        self.register_buffer("middle", middle.float(), persistent=False)

    def unit(self, parameters: Tensor) -> Tensor:
        """(batch,)"""
        raise NotImplementedError

    def place(self, cells: Tensor, parameters: Tensor, log_scale: Tensor) -> Tensor:
        # The ends are infinitely far: a thousandth of a cell before them is far enough.
        y = (cells.clamp(1e-3, CELLS - 1e-3) / (CELLS / 2)) - 1
        return parameters[:, 0] + self.unit(parameters) * (2 * y / (1 - y * y))


class GaussianHead(_Continuous):
    """loc, spread."""

    parameters_size = 2
    probability: Tensor

    def __init__(self) -> None:
        super().__init__()
        y = (2 * torch.arange(CELLS + 1, dtype=torch.float64) / CELLS - 1).clamp(-1, 1)
        deviation = 2 * y / (1 - y * y).clamp(min=1e-12)
        below = 0.5 * torch.erfc(-deviation / 2**0.5)
        self.register_buffer("probability", below.diff().float(), persistent=False)

    def log_likelihood(self, parameters: Tensor, values: Tensor, log_scale: Tensor) -> Tensor:
        loc, spread = parameters.unbind(dim=-1)
        found: Tensor = Normal(loc, _positive(spread), validate_args=False).log_prob(values)
        return found

    def unit(self, parameters: Tensor) -> Tensor:
        return _positive(parameters[:, 1])

    def weights(self, parameters: Tensor, log_scale: Tensor) -> Tensor:
        return self.probability.unsqueeze(0).expand(parameters.shape[0], -1)


class StudentTHead(_Continuous):
    """loc, spread, degrees of freedom.

    With t = √ν tan θ the density of θ is proportional to cos(θ) to the power of ν - 1, so the
    logarithms of the cells' weights are constants times ν - 1, beside others.
    """

    parameters_size = 3
    log_cosine: Tensor
    log_width: Tensor

    def __init__(self) -> None:
        super().__init__()
        square = ((2 * torch.arange(CELLS, dtype=torch.float64) + 1) / CELLS - 1) ** 2
        self.register_buffer(
            "log_cosine", torch.log((1 - square) / (1 + square)).float(), persistent=False
        )
        self.register_buffer("log_width", -torch.log1p(square).float(), persistent=False)

    def log_likelihood(self, parameters: Tensor, values: Tensor, log_scale: Tensor) -> Tensor:
        loc, spread, freedom = parameters.unbind(dim=-1)
        found: Tensor = StudentT(
            _freedom(freedom), loc, _positive(spread), validate_args=False
        ).log_prob(values)
        return found

    def unit(self, parameters: Tensor) -> Tensor:
        return _positive(parameters[:, 1]) * torch.sqrt(_freedom(parameters[:, 2]))

    def weights(self, parameters: Tensor, log_scale: Tensor) -> Tensor:
        power = (_freedom(parameters[:, 2]) - 1).unsqueeze(1)
        return torch.softmax(power * self.log_cosine + self.log_width, dim=1)


class NegativeBinomialHead(Head):
    """Logarithms of the mean, in units of the scale, and of the shape r; the variance is
    mean + mean² / r. A cell is a count.

    The probabilities of neighbours k and k + 1 differ by the factor (k + r) / (k + 1) · q; the
    logarithms of sums come from log_softmax.
    """

    parameters_size = 2
    log_count: Tensor
    log_step: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = torch.arange(1, MOST_COUNT, dtype=torch.float64)
        self.register_buffer("log_count", torch.log(count).float(), persistent=False)
        step = torch.log(count / (count + 1))
        self.register_buffer("log_step", step.float(), persistent=False)

    def log_likelihood(self, parameters: Tensor, values: Tensor, log_scale: Tensor) -> Tensor:
        log_mean, log_shape = self._logs(parameters, log_scale)
        counts = torch.round(values * torch.exp(log_scale)).clamp(min=0)
        found: Tensor = NegativeBinomial(
            torch.exp(log_shape), logits=log_mean - log_shape, validate_args=False
        ).log_prob(counts)
        return found

    def weights(self, parameters: Tensor, log_scale: Tensor) -> Tensor:
        log_mean, log_shape = self._logs(parameters, log_scale)
        shape = log_shape.unsqueeze(1)
        # log(k + r) - log(k + 1) of k = 1 …; of k = 0 it is log r.
        grown = self.log_step - _log_share(self.log_count, shape)
        ratios = torch.cat((shape, grown), dim=1) + _log_share(log_mean, log_shape).unsqueeze(1)
        first = torch.zeros_like(shape)
        return torch.softmax(torch.cat((first, ratios.cumsum(dim=1)), dim=1), dim=1)

    def place(self, cells: Tensor, parameters: Tensor, log_scale: Tensor) -> Tensor:
        # What lies behind the whole cell is how far, which a count has no use for.
        return torch.floor(cells.clamp(max=MOST_COUNT)) * torch.exp(-log_scale)

    def _logs(self, parameters: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean of the counts, and of their shape."""
        log_mean, log_shape = parameters.unbind(dim=-1)
        bounded = log_shape.clamp(-_MOST_LOG, _MOST_LOG)
        return log_mean.clamp(-_MOST_LOG, _MOST_LOG) + log_scale, bounded


def _log_share(a: Tensor, b: Tensor) -> Tensor:
    """log(eᵃ / (eᵃ + eᵇ))"""
    both = torch.stack(torch.broadcast_tensors(a, b), dim=-1)
    return torch.log_softmax(both, dim=-1)[..., 0]


def _squareplus(x: Tensor) -> Tensor:
    """A number above zero, like softplus, without a logarithm (Barron 2021, arXiv:2112.11687)."""
    return 0.5 * (x + torch.sqrt(x * x + 4.0))


def _positive(x: Tensor) -> Tensor:
    return _squareplus(x) + _LEAST_SPREAD


def _freedom(x: Tensor) -> Tensor:
    return _squareplus(x) + _LEAST_FREEDOM


HEADS: dict[str, type[Head]] = {
    GAUSSIAN: GaussianHead,
    STUDENT_T: StudentTHead,
    NEGATIVE_BINOMIAL: NegativeBinomialHead,
}


def make_head(distribution: str) -> Head:
    return HEADS[distribution]()
