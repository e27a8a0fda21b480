"""The generator's text: which plays it reads, and where a lane begins anew."""

import pytest
import torch
from torch import nn

from tests.training.real import real
from training.bundled.prose import VALIDATION_PLAY, split
from training.data.shakespeare import load_other_plays, load_play, load_text
from training.tasks.generate import GenerateTask


class Recorder(nn.Module):
    """Keeps the state that it is given, and answers logits of nothing known."""

    def forward(self, tokens, state):
        self.given = state
        return torch.zeros(*tokens.shape, 5), (torch.ones(len(tokens), 3),)


def given_after_a_window(cold_starts):
    task = GenerateTask(
        [torch.ones(9).long()], [torch.ones(9).long()], seed=1, cold_starts=cold_starts
    )
    tokens = torch.ones(4_000, 2).long()
    model = Recorder()
    _, state = task.loss(model, (tokens, tokens), None)
    assert model.given is None
    task.loss(model, (tokens, tokens), state)
    return model.given[0]


def test_a_share_of_the_lanes_begins_anew():
    torch.manual_seed(1)
    given = given_after_a_window(0.25)
    begun = (given == 0).all(dim=1)
    assert torch.equal(begun, (given == 0).any(dim=1))
    assert 0.2 < begun.float().mean() < 0.3


def test_without_cold_starts_every_lane_goes_on_and_nothing_is_drawn():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert (given_after_a_window(0.0) == 1).all()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.real_data
def test_the_other_plays_hold_nothing_of_what_is_held_out():
    """29 plays; one line of more than 25 characters is in both, a greeting."""
    others, nine = real(load_other_plays), real(load_text)
    assert len(others) == 3_602_130
    assert set(others) <= set(nine)
    *_, held_out = split(torch.arange(len(nine)))
    known = set(others.split("\n"))
    lines = {line for line in nine[int(held_out[0]) :].split("\n") if len(line) > 25}
    assert lines & known == {"How now! what's the matter?"}


@pytest.mark.real_data
def test_the_play_that_validates_is_not_among_those_that_are_trained_on():
    validating = real(lambda: load_play(VALIDATION_PLAY))
    rest = real(lambda: load_other_plays(without=(VALIDATION_PLAY,)))
    assert len(validating) == 110_838
    assert len(rest) + len("\n") + len(validating) == len(real(load_other_plays))
    assert "If music be the food of love, play on" in validating
    assert "If music be the food of love, play on" not in rest
