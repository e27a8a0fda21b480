"""The gradient by distance is the lecture's recursion, and autograd's."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from study.gradient import gradient_norms, steps_to
from training.models.generator import Generator, GeneratorConfig
from training.models.options import RecurrentOptions

ROWS, TIME, DISTANCE = 3, 9, 5


def generator(cell):
    torch.manual_seed(1)
    return Generator(GeneratorConfig(7, 4, RecurrentOptions(cell, 5))).double().eval()


def text():
    return torch.randint(0, 7, (ROWS, TIME), generator=torch.Generator().manual_seed(2))


def test_the_plain_cell_follows_the_lecture_by_hand():
    """∇h_τ = Vᵀ(ŷ − 1_y), then ∇h_(t−1) = Wᵀ diag(1 − h_t²) ∇h_t, no autograd at all."""
    model, tokens = generator("rnn"), text()
    cell = model.stack.layers[0].directions[0].cell
    V, W = model.output.weight.detach(), cell.W.weight.detach()
    h, states = torch.zeros(ROWS, 5, dtype=torch.double), []
    for x in model.embedding(tokens[:, :-1]).detach().unbind(1):
        h = torch.tanh(cell.U(x).detach() + h @ W.T)
        states.append(h)
    expected = torch.softmax(model.output(h).detach(), dim=1)
    expected[range(ROWS), tokens[:, -1]] -= 1
    gradient, norms = expected @ V, []
    for h in reversed(states):
        norms.append(gradient.norm(dim=1))
        gradient = (gradient * (1 - h**2)) @ W
    (found,) = gradient_norms(model, tokens, DISTANCE)
    assert found.shape == (DISTANCE + 1, ROWS)
    torch.testing.assert_close(found, torch.stack(norms[: DISTANCE + 1]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_gated_cell_gives_what_autograd_gives_from_a_state_cut_out(cell):
    """Each state in turn is made a leaf, and the rest of the text is read from there."""
    model, tokens = generator(cell), text()
    found = gradient_norms(model, tokens, DISTANCE)
    for k in range(1, DISTANCE + 1):
        before, after = tokens[:, : TIME - 1 - k], tokens[:, TIME - 1 - k : -1]
        _, state = model(before)
        leaves = tuple(part.detach().requires_grad_() for part in state)
        logits, _ = model(after, leaves)
        cross_entropy(logits[:, -1], tokens[:, -1], reduction="sum").backward()
        for part, leaf in zip(found, leaves, strict=True):
            torch.testing.assert_close(part[k], leaf.grad.norm(dim=1), atol=1e-12, rtol=1e-9)


def test_where_a_curve_has_fallen_for_good():
    assert steps_to([1.0, 0.5, 0.005, 0.2, 0.004, 0.003], 0.01) == 4
    assert steps_to([1.0, 0.5, 0.005, 0.2], 0.01) is None
