import json
import re
import signal
from dataclasses import asdict, dataclass, field, replace

import pytest
import torch
from torch import nn

from training.loop import (
    METRICS,
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
    signal: int = signal.SIGINT

    def batches(self, epoch):
        shuffle = torch.Generator().manual_seed(epoch)
        return list(torch.randn(4, 8, 5, generator=shuffle))

    def loss(self, model, batch, carry):
        if self.steps == self.interrupt_at:
            signal.raise_signal(self.signal)
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


def test_the_last_epoch_is_kept_where_that_is_wanted(tmp_path):
    """Of a run that has ended as well, since both are in its checkpoint."""
    best, last = make_model(), make_model()
    Trainer(best, CarryingTask(validation=[1.0, 2.0, 3.0]), SETTINGS, tmp_path).fit()
    keeping = replace(SETTINGS, keep_last=True)
    history = Trainer(last, CarryingTask(), keeping, tmp_path).fit(resume=True)
    assert history.best_epoch == 0
    assert replace(history, settings=asdict(keeping)).kept_epoch == 2
    assert replace(history, settings=asdict(SETTINGS)).kept_epoch == 0
    assert not torch.equal(next(last.parameters()), next(best.parameters()))

    whole = make_model()
    Trainer(whole, CarryingTask(validation=[1.0, 2.0, 3.0]), keeping, tmp_path / "whole").fit()
    for expected, got in zip(whole.parameters(), last.parameters(), strict=True):
        assert torch.equal(expected, got)


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
    with pytest.raises(ResumeImpossible, match="size 6 there and 7 here"):
        Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path, {"size": 7}).fit(resume=True)


def test_resuming_nothing_is_an_error(tmp_path):
    with pytest.raises(ResumeImpossible, match="without --resume"):
        Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit(resume=True)


def test_resuming_with_other_settings_names_what_differs(tmp_path):
    Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit()
    other = FitSettings(seed=3, epochs=4, learning_rate=0.1, clip_norm=2.0)
    named = r"learning_rate 0.05 there and 0.1 here, clip_norm 1.0 there and 2.0 here; train"
    with pytest.raises(ResumeImpossible, match=named):
        Trainer(make_model(), CarryingTask(), other, tmp_path).fit(resume=True)


def test_a_run_goes_on_with_more_epochs(tmp_path):
    Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit()
    longer = replace(SETTINGS, epochs=5, patience=9)
    history = Trainer(make_model(), CarryingTask(), longer, tmp_path).fit(resume=True)
    assert len(history.train_loss) == 5
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["validation_loss"] for line in lines] == history.validation_loss


def test_parts_of_a_reading_are_epochs_that_make_it_up(tmp_path):
    trainer = Trainer(make_model(), CarryingTask(), replace(SETTINGS, parts=3), tmp_path)
    parts = [trainer._batches(epoch) for epoch in range(6)]
    assert [len(part) for part in parts] == [1, 1, 2] * 2
    for reading in (0, 1):
        whole = torch.stack(CarryingTask().batches(reading))
        together = torch.stack([b for part in parts[3 * reading :][:3] for b in part])
        assert torch.equal(whole, together)


def test_without_a_terminal_a_line_says_how_long_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.loop._LINE_SECONDS", 0.0)
    Trainer(make_model(), CarryingTask(), SETTINGS, tmp_path).fit()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert re.match(
        r"epoch 1/3, batch 1 of 4: loss [\d.]+ \([\d.]+\), [\d.]+ minutes left", lines[0]
    )


def test_sigterm_stops_as_ctrl_c_does(tmp_path):
    task = CarryingTask(interrupt_at=5, signal=signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="--resume"):
        Trainer(make_model(), task, SETTINGS, tmp_path).fit()
    assert task.steps == 6  # the step under way is finished
    assert signal.getsignal(signal.SIGTERM) == before


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


class _Named(nn.Module):
    """A model whose embedding and output are named as every model's."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle, self.output = (nn.Linear(3, 3) for _ in range(3))


def test_tables_learn_at_their_share_of_the_rate(tmp_path):
    settings = replace(SETTINGS, table_rate=0.1)
    trainer = Trainer(_Named(), CarryingTask(), settings, tmp_path)
    weights = {id(weight): name for name, weight in trainer.model.named_parameters()}
    shares = {
        weights[id(weight)]: group["share"]
        for group in trainer.optimizer.param_groups
        for weight in group["params"]
    }
    slow = {name for name, share in shares.items() if share == 0.1}
    assert slow == {"embedding.weight", "embedding.bias", "output.weight"}
    assert len(shares) == 6


def test_a_slow_table_moves_less(tmp_path):
    class Step(CarryingTask):
        def loss(self, model, batch, carry):
            return model.output.weight.sum() + model.middle.weight.sum(), None

    model = _Named()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    Trainer(model, Step(), replace(SETTINGS, table_rate=0.1, weight_decay=0.0), tmp_path).fit()
    moved = {
        name: (before[name] - weight).mean().item() for name, weight in model.state_dict().items()
    }
    assert moved["output.weight"] == pytest.approx(0.1 * moved["middle.weight"], rel=1e-3)
