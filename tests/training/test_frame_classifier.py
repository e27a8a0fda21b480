"""The classifier of frames: whole sequences, and the same step by step."""

import pytest
import torch

from tests import tiny
from training.models import DesignInvalid, build, config_from_json, config_to_json
from training.models.frame_classifier import FrameClassifier, FrameClassifierConfig
from training.models.options import RecurrentOptions

CELLS = ["rnn", "gru", "lstm"]


def frames_of(*lengths):
    """Rows of these lengths, what lies beyond them no number at all."""
    torch.manual_seed(3)
    frames = torch.randn(len(lengths), max(lengths), len(tiny.CHANNELS)) * 3
    for row, length in enumerate(lengths):
        frames[row, length:] = float("nan") if length < max(lengths) else 0.0
    return frames.nan_to_num(7e3), torch.tensor(lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_after_the_last_frame_a_step_says_what_the_whole_sequence_says(cell):
    model = tiny.frame_classifier(cell=cell).build()
    frames, lengths = frames_of(7, 3, 1)
    with torch.no_grad():
        whole = model(frames, lengths)
        state = model.first_state(3)
        for time in range(7):
            logits, state = model.step(frames[:, time], state)
            for row in (lengths == time + 1).nonzero().flatten():
                torch.testing.assert_close(logits[row], whole[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(cell, bidirectional):
    model = tiny.frame_classifier(cell=cell, bidirectional=bidirectional).build()
    frames, lengths = frames_of(6, 2)
    with torch.no_grad():
        together = model(frames, lengths)
        alone = model(frames[1:, :2], lengths[1:])
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-6)


def test_a_state_of_zeros_has_read_nothing():
    """The first frame alone decides, however low its outputs are."""
    model = tiny.frame_classifier().build()
    with torch.no_grad():
        _, (peak, *_) = model.step(torch.full((1, 3), -9.0), model.first_state(1))
    assert (peak >= 0).all()
    assert (peak < 1).any()  # outputs below zero are kept as they are


def test_frames_are_standardised_by_those_of_the_training():
    config = FrameClassifierConfig(2, 2, RecurrentOptions("gru", 5))
    model = FrameClassifier(config)
    model.standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert model.mean.tolist() == [2.0, 5.0]
    assert model.spread.tolist() == [1.0, 1.0]  # a channel that is always the same stays finite


def test_noise_is_added_while_training_alone():
    config = FrameClassifierConfig(2, 2, RecurrentOptions("gru", 5), noise=0.5)
    model = FrameClassifier(config)
    frames, lengths = torch.zeros(1, 4, 2), torch.tensor([4])
    assert not torch.equal(model(frames, lengths), model(frames, lengths))
    model.eval()
    assert torch.equal(model(frames, lengths), model(frames, lengths))


def test_its_configuration_comes_back_from_json():
    config = FrameClassifierConfig(3, 4, RecurrentOptions("lstm", 5, layers=2), 0.1, 0.2)
    assert config_from_json(config_to_json(config)) == config
    assert isinstance(build(config), FrameClassifier)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"channels": 0}, "channels are at least 1"),
        ({"noise": -1.0}, "noise is -1"),
        ({"recurrent": RecurrentOptions("rnn", 5, recurrence="output")}, "recurrence 'hidden' onl"),
    ],
)
def test_a_design_that_makes_no_sense_is_refused(changes, says):
    usual = {"channels": 2, "labels": 2, "recurrent": RecurrentOptions("gru", 5)}
    with pytest.raises(DesignInvalid, match=says):
        FrameClassifierConfig(**{**usual, **changes})
