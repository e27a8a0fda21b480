import signal
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from training.loop import (
    FitSettings,
    ResumeImpossible,
    Trainer,
    TrainingStopped,
    _schedule,
)

SETTINGS = FitSettings(seed=3, epochs=3, learning_rate=0.05)


@dataclass
class CarryingTask:
    """Regression whose loss depends on a carried state, with dropout; may interrupt itself."""

    interrupt_at: int | None = None
    validation: list[float] = field(default_factory=list)
    steps: int = 0

    def batches(self, epoch):
        shuffle = torch.Generator().manual_seed(epoch)
        return list(torch.randn(4, 8, 5, generator=shuffle))

    def loss(self, model, batch, carry):
        if self.steps == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        self.steps += 1
        before = torch.zeros(8, 1) if carry is None else carry[0]
        out = model(batch) + 0.5 * before
        return (out - batch.sum(dim=1, keepdim=True)).square().mean(), (out, None)

    def validate(self, model):
        if self.validation:
            return self.validation.pop(0)
        return sum(parameter.abs().sum().item() for parameter in model.parameters())


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 1))


@pytest.mark.parametrize("interrupt_at", [0, 2, 3, 7])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, interrupt_at):
    """Ctrl-C at any step and --resume give the same weights and history, bit for bit."""
    whole = make_model()
    history = Trainer(whole, CarryingTask(), SETTINGS, tmp_path / "whole").fit()

    folder = tmp_path / "cut"
    with pytest.raises(TrainingStopped, match="--resume"):
        Trainer(make_model(), CarryingTask(interrupt_at), SETTINGS, folder).fit()
    resumed = make_model()
    resumed_history = Trainer(resumed, CarryingTask(), SETTINGS, folder).fit(resume=True)

    for expected, got in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, got)
    assert resumed_history.train_loss == history.train_loss
    assert resumed_history.validation_loss == history.validation_loss


def test_the_best_epoch_is_kept(tmp_path):
    """The weights handed back are those of the epoch with the lowest validation loss."""
    model = make_model()
    task = CarryingTask(validation=[2.0, 1.0, 3.0])
    history = Trainer(model, task, SETTINGS, tmp_path).fit()
    assert history.best_epoch == 1

    short = make_model()
    # The cosine schedule spans all epochs, so the shorter run must plan for three as well.
    stopping = CarryingTask(interrupt_at=8, validation=[2.0, 1.0])
    trainer = Trainer(short, stopping, SETTINGS, tmp_path / "short")
    with pytest.raises(TrainingStopped):
        trainer.fit()
    for best, kept in zip(trainer.best.values(), model.state_dict().values(), strict=True):
        assert torch.equal(best, kept)


def test_a_finished_run_resumes_to_its_result(tmp_path):
    model = make_model()
    Trainer(model, CarryingTask(), SETTINGS, tmp_path).fit()
    again = make_model()
    Trainer(again, CarryingTask(), SETTINGS, tmp_path).fit(resume=True)
    for expected, got in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(expected, got)


def test_ctrl_c_while_validating_stops_after_the_epoch(tmp_path):
    class Interrupted(CarryingTask):
        def validate(self, model):
            signal.raise_signal(signal.SIGINT)
            return 1.0

    trainer = Trainer(make_model(), Interrupted(), SETTINGS, tmp_path)
    with pytest.raises(TrainingStopped):
        trainer.fit()
    assert trainer.progress.epoch == 1


def test_an_epoch_without_a_number_is_never_the_best(tmp_path):
    task = CarryingTask(validation=[float("nan"), 2.0, 3.0])
    history = Trainer(make_model(), task, SETTINGS, tmp_path).fit()
    assert history.best_epoch == 1


def test_resuming_another_model_is_an_error(tmp_path):
    """The checkpoint knows what it belongs to, beyond the settings of the loop."""
    Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path, {"size": 6}, "first").fit()
    again = Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path, {"size": 6}, "second")
    assert again.fit(resume=True).revision == "first"
    with pytest.raises(ResumeImpossible, match="delete it to begin anew"):
        Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path, {"size": 7}).fit(resume=True)


def test_resuming_nothing_is_an_error(tmp_path):
    with pytest.raises(ResumeImpossible, match="without --resume"):
        Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit(resume=True)


def test_resuming_with_other_settings_is_an_error(tmp_path):
    Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit()
    other = FitSettings(seed=3, epochs=4, learning_rate=0.05)
    with pytest.raises(ResumeImpossible, match="train with those settings"):
        Trainer(make_model(), CarryingTask(), other, tmp_path).fit(resume=True)


def test_a_run_without_progress_ends_early_and_stays_ended(tmp_path):
    settings = FitSettings(seed=3, epochs=9, learning_rate=0.05, patience=2)
    task = CarryingTask(validation=[3.0, 1.0, 2.0, 1.0, 0.5])
    history = Trainer(make_model(), task, settings, tmp_path).fit()
    assert history.validation_loss == [3.0, 1.0, 2.0, 1.0]
    again = Trainer(make_model(), task, settings, tmp_path).fit(resume=True)
    assert again.validation_loss == history.validation_loss


def test_the_rate_rises_and_falls_to_its_last_share():
    settings = FitSettings(1, 1, 1.0, warm_up=0.1, final_rate=0.2)
    rates = [_schedule(done, 100, settings) for done in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.2, abs=0.01)
    assert rates[55] == pytest.approx(0.6)
