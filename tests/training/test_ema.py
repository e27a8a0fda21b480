import signal

import pytest
import torch
from torch import nn

from training.ema import EXPONENTIAL, NONE, UNIFORM, AverageUnknown, WeightAverage
from training.loop import FitSettings, Trainer, TrainingStopped


def weights_after(kind, values, decay=0.5):
    average, model = WeightAverage(kind, decay), nn.Linear(1, 1, bias=False)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.add(model)
    return average.weights(model)["weight"].item()


def test_a_uniform_mean_counts_every_step_alike():
    assert weights_after(UNIFORM, [1.0, 2.0, 6.0]) == pytest.approx(3.0)


def test_an_exponential_mean_counts_late_steps_more():
    assert 2.0 < weights_after(EXPONENTIAL, [0.0] * 50 + [2.0] * 3 + [4.0], decay=0.5) < 4.0
    assert weights_after(EXPONENTIAL, [0.0] + [3.0] * 200, decay=0.99) == pytest.approx(
        3.0, abs=1e-3
    )


def test_without_an_average_the_weights_are_the_last_ones():
    assert weights_after(NONE, [1.0, 2.0]) == 2.0


def test_another_kind_is_refused():
    with pytest.raises(AverageUnknown, match="'median' is not one of none, uniform"):
        WeightAverage("median", 0.5)


class OneNumber:
    """Moves one weight towards 1, and is validated by how far it is."""

    def batches(self, epoch):
        return [torch.ones(1)] * 4

    def loss(self, model, batch, carry):
        return (model.weight - 1).square().mean(), None

    def validate(self, model):
        return (model.weight - 1).abs().item()


def make_model():
    torch.manual_seed(1)
    return nn.Linear(1, 1, bias=False)


@pytest.mark.parametrize("kind", [UNIFORM, EXPONENTIAL])
def test_what_is_judged_and_kept_is_the_mean(tmp_path, kind):
    settings = FitSettings(1, 3, 0.05, average=kind, average_from=0.5, average_decay=0.9)
    model, plain = make_model(), make_model()
    Trainer(model, OneNumber(), settings, tmp_path / "mean").fit()
    last = FitSettings(1, 3, 0.05)
    Trainer(plain, OneNumber(), last, tmp_path / "plain").fit()
    assert model.weight.item() < plain.weight.item()


def test_the_mean_goes_on_from_the_checkpoint(tmp_path):
    """A run that is stopped and resumed ends with the mean of the uninterrupted one."""

    class Interrupted(OneNumber):
        steps = 0

        def loss(self, model, batch, carry):
            self.steps += 1
            if self.steps == 7:
                signal.raise_signal(signal.SIGINT)
            return super().loss(model, batch, carry)

    settings = FitSettings(1, 3, 0.05, average=EXPONENTIAL, average_decay=0.9)
    whole, resumed = make_model(), make_model()
    Trainer(whole, OneNumber(), settings, tmp_path / "whole").fit()
    with pytest.raises(TrainingStopped):
        Trainer(make_model(), Interrupted(), settings, tmp_path / "cut").fit()
    Trainer(resumed, OneNumber(), settings, tmp_path / "cut").fit(resume=True)
    assert torch.equal(whole.weight, resumed.weight)
