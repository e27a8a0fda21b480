"""Without weights from hidden to hidden, one pass and a walk through time are the same."""

import pytest
import torch

from study.characters import PartsTask, options_of
from study.teacher_forcing import gradients, loss_at_once, loss_by_steps
from study.timing import alternate
from training.models.generator import Generator, GeneratorConfig
from training.tasks.generate import GenerateTask


@pytest.mark.parametrize("design", ["output", "rnn", "gru", "lstm"])
def test_one_pass_and_steps_give_one_loss_and_one_gradient(design):
    torch.manual_seed(1)
    model = Generator(GeneratorConfig(7, 4, options_of(design, 5))).double()
    inputs, targets = torch.randint(1, 7, (2, 3, 11)).unbind(0)
    at_once = gradients(model, loss_at_once, inputs, targets)
    by_steps = gradients(model, loss_by_steps, inputs, targets)
    assert len(at_once) == 1 + len(list(model.parameters()))
    torch.testing.assert_close(at_once, by_steps, atol=1e-12, rtol=1e-12)


def test_parts_of_training_read_the_same_batches_in_the_same_order():
    """Parts go on where the last one ended, and on into the next reading of the text."""
    text = torch.arange(1, 3 * 32 * 64 + 70)
    parts = PartsTask([text], [text], seed=1, part=2)
    whole = GenerateTask([text], [text], seed=1)
    expected = [*whole.batches(0), *whole.batches(1)][:4]
    found = [*parts.batches(0), *parts.batches(1)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(expected, found, strict=True))


def test_works_take_turns_and_the_first_round_does_not_count():
    calls = []
    found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert "".join(calls) == "ababab"
    assert all(seconds >= 0 for seconds in found.values())
