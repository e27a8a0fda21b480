"""The training loop: every task's, stoppable at any step and resumed at the same one."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from training.ddp import ProcessGroup
from training.ema import NONE, WeightAverage
from training.models.layers import run_in_bfloat16

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"  # one object an epoch

# Settings that a resumed run may change: it goes on longer, stops sooner, or keeps another epoch.
_EXTENDABLE = ("epochs", "patience", "keep_last")
_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal

AnyModel = TypeVar("AnyModel", bound=nn.Module)
ModelT = TypeVar("ModelT", bound=nn.Module, contravariant=True)


class TrainingStopped(Exception):
    """Training was stopped before its end; ``--resume`` goes on from the checkpoint."""


class ResumeImpossible(Exception):
    """There is no checkpoint to resume, or it was made with other settings, which are named."""


@dataclass(frozen=True)
class FitSettings:
    """One run of the loop.

    learning_rate: the peak of a cosine schedule, which rises over the share ``warm_up`` of all
        steps and falls to ``final_rate`` of the peak.
    clip_norm: the gradient's largest L2 norm.
    average: of the weights, as training/ema.py has them; it begins after the share
        ``average_from`` of all steps. average_decay: of an exponential one, a step.
    patience: epochs in a row without a lower validation loss that end the run; 0 for none.
    parts: that one reading of the data is cut into, each an epoch: more points of the curves, and
        runs shorter than a reading.
    table_rate: share of the learning rate that embeddings, and the weights of what is called the
        output, learn with: vectors of words that begin well are to change little.
    bfloat16: whether a CPU too runs GRU and LSTM layers in bfloat16: with AMX they are faster.
    keep_last: whether the last epoch is kept, and not the one with the lowest validation loss:
        with smoothed labels answers go on getting better when the loss in nats does not.
    """

    seed: int
    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warm_up: float = 0.02
    final_rate: float = 0.0
    average: str = NONE
    average_from: float = 0.0
    average_decay: float = 0.999
    patience: int = 0
    parts: int = 1
    table_rate: float = 1.0
    bfloat16: bool = False
    keep_last: bool = False


class TrainingTask(Protocol[ModelT]):
    """What a task teaches a model."""

    def batches(self, epoch: int) -> Sequence[Any]:
        """The batches of one epoch, the same each time it is asked for."""

    def loss(self, model: ModelT, batch: Any, carry: Any) -> tuple[Tensor, Any]:
        """The mean loss of a batch, and what the epoch's next batch needs of it.

        carry: None at the start of an epoch; nested tuples of tensors, or None.
        """

    def validate(self, model: ModelT) -> float:
        """The loss on the validation split; the epoch with the lowest is kept, or the last."""


@dataclass
class History:
    """A point of each curve an epoch; losses in nats, seconds of wall time.

    revision: of the code when the run began. stage: its name, of one that others follow.
    before: of the stage before; ``seconds`` holds its time too. settings: FitSettings as a run
    ended with them; empty before.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    revision: str = ""
    stage: str = ""
    before: History | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def curves(self) -> dict[str, Any]:
        """Both losses of each epoch, rounded, and the number of the best one, from 1."""
        return {
            "best_epoch": self.best_epoch + 1,
            "train_loss": [round(loss, 4) for loss in self.train_loss],
            "validation_loss": [round(loss, 4) for loss in self.validation_loss],
        }

    def earlier(self) -> dict[str, dict[str, Any]]:
        """The curves and settings of each stage before this one, the first one first."""
        if self.before is None:
            return {}
        facts = {**self.before.curves(), **self.before.settings}
        return {**self.before.earlier(), self.before.stage: facts}

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss; one without a number is never it."""
        losses = [math.inf if math.isnan(loss) else loss for loss in self.validation_loss]
        return min(range(len(losses)), key=losses.__getitem__)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights the model has, of a run that has ended."""
        return len(self.validation_loss) - 1 if self.settings.get("keep_last") else self.best_epoch

    def has_stalled(self, patience: int) -> bool:
        """Whether the last ``patience`` epochs brought no lower validation loss."""
        if not patience or not self.validation_loss:
            return False
        return len(self.validation_loss) - 1 - self.best_epoch >= patience


@dataclass
class _Progress:
    """Where a run stands between two steps; what a checkpoint holds beside the tensors."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    carry: Any = None
    history: History = field(default_factory=History)


class Trainer(Generic[AnyModel]):
    """Trains ``model`` on ``task``; ``folder`` receives the checkpoint.

    team: the processes that train together; its leader alone writes.
    device: what it is trained on, in bfloat16 where that is a GPU. Validation is on the CPU.
    identity: what a run must share with the checkpoint it goes on from, beside the settings:
    the model's configuration, the size of the data. revision: of the code, for the history.

    fit() leaves the weights of the epoch that is kept in the model. Raises TrainingStopped after
    Ctrl-C or SIGTERM, when the step under way is finished and the checkpoint is written, and
    ResumeImpossible where there is nothing to resume. Of the settings, a resumed run may have
    other ``epochs``, ``patience`` and ``keep_last``.
    """

    def __init__(
        self,
        model: AnyModel,
        task: TrainingTask[AnyModel],
        settings: FitSettings,
        folder: Path,
        identity: Mapping[str, Any] | None = None,
        revision: str = "",
        team: ProcessGroup | None = None,
        device: str = "cpu",
    ) -> None:
        self.model = model.to(device)
        self.team = team or ProcessGroup()
        self.device = torch.device(device)
        self.task = task
        self.settings = settings
        self.path = folder / CHECKPOINT
        self.metrics = folder / METRICS
        self.identity = {**asdict(settings), **(identity or {})}
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, settings.table_rate),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over all weights
        )
        run_in_bfloat16(model, settings.bfloat16)
        self.average = WeightAverage(settings.average, settings.average_decay)
        self.progress = _Progress(history=History(revision=revision))
        self.best: dict[str, Tensor] = {}

    def fit(self, resume: bool = False) -> History:
        # Each process drops other features.
        torch.manual_seed(self.settings.seed + self.team.rank)
        if resume:
            self._load()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not resume and self.team.is_leader:
            self.metrics.unlink(missing_ok=True)
        with _stop_requests() as stop_requested:
            while not self._is_finished():
                self._epoch(stop_requested)
                if stop_requested():
                    raise self._stopped()
        kept = self._averaged().state_dict() if self.settings.keep_last else self.best
        self.model.cpu().load_state_dict(kept)
        self.model.eval()
        return self.progress.history

    def _is_finished(self) -> bool:
        stalled = self.progress.history.has_stalled(self.settings.patience)
        return stalled or self.progress.epoch >= self.settings.epochs

    def _epoch(self, stop_requested: Callable[[], bool]) -> None:
        progress, started = self.progress, time.monotonic()
        batches = self._batches(progress.epoch)
        self.model.train()
        with _progress_bar(
            progress, len(batches), self.settings.epochs, self.team.is_leader
        ) as bar:
            for batch in batches[progress.step :]:
                loss, stop = self._step(batch, len(batches), stop_requested)
                bar.set_postfix_str(f"loss {progress.loss_sum / progress.step:.4f} ({loss:.4f})")
                bar.update()
                if stop:
                    progress.history.seconds += time.monotonic() - started
                    self._save()
                    raise self._stopped()
        self._close_epoch(len(batches))
        progress.history.seconds += time.monotonic() - started
        self._save()
        self._record(len(batches))

    def _batches(self, epoch: int) -> Sequence[Any]:
        """Of a part of a reading where that is cut, neighbours in one part."""
        parts = self.settings.parts
        reading, part = divmod(epoch, parts)
        batches = self.task.batches(reading)
        return batches[part * len(batches) // parts : (part + 1) * len(batches) // parts]

    def _stopped(self) -> TrainingStopped:
        return TrainingStopped(f"stopped; {self.path} holds the state for --resume")

    def _step(
        self, batch: Any, batches_per_epoch: int, stop_requested: Callable[[], bool]
    ) -> tuple[float, bool]:
        """The loss of this process's part of ``batch``, and whether the run is to stop."""
        progress, settings = self.progress, self.settings
        done = progress.epoch * batches_per_epoch + progress.step
        total = settings.epochs * batches_per_epoch
        rate = settings.learning_rate * _schedule(done, total, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        part = _on(self.device, self.team.part_of(batch))
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, carry = self.task.loss(self.model, part, _on(self.device, progress.carry))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        stop = self.team.share_gradients(self.model, stop_requested())
        clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        if done >= settings.average_from * total:
            self.average.add(self.model)
        progress.carry = _detach(carry)
        progress.loss_sum += loss.item()
        progress.step += 1
        return loss.item(), stop

    def _close_epoch(self, batches: int) -> None:
        progress, history = self.progress, self.progress.history
        averaged = self._averaged()
        with torch.no_grad():
            validation_loss = self.task.validate(averaged)
        history.train_loss.append(progress.loss_sum / batches)
        history.validation_loss.append(validation_loss)
        if self.team.is_leader:
            tqdm.write(
                f"epoch {progress.epoch + 1}: loss {history.train_loss[-1]:.4f}, "
                f"validation {validation_loss:.4f}"
            )
        if history.best_epoch == progress.epoch:
            self.best = {k: v.detach().clone() for k, v in averaged.state_dict().items()}
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.carry = 0, 0.0, None

    def _record(self, batches: int) -> None:
        """A line of the metrics: both losses in nats, seconds since the run began."""
        if not self.team.is_leader:
            return
        history = self.progress.history
        total = self.settings.epochs * batches
        rate = _schedule(self.progress.epoch * batches - 1, total, self.settings)
        line = {
            "epoch": self.progress.epoch,
            "train_loss": history.train_loss[-1],
            "validation_loss": history.validation_loss[-1],
            "learning_rate": self.settings.learning_rate * rate,
            "seconds": round(history.seconds, 2),
        }
        with self.metrics.open("a") as metrics:
            metrics.write(json.dumps(line) + "\n")

    def _averaged(self) -> AnyModel:
        """The model with the mean of its weights, where one is taken, on the CPU."""
        averaged = deepcopy(self.model)
        averaged.load_state_dict(self.average.weights(self.model))
        return averaged.cpu().eval()

    def _save(self) -> None:
        if not self.team.is_leader:
            return
        progress = self.progress
        content = {
            "identity": self.identity,
            "progress": {**vars(progress), "history": asdict(progress.history)},
            "model": self.model.state_dict(),
            "best": self.best,
            "average": self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        partial = self.path.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, self.path)

    def _load(self) -> None:
        if not self.path.exists():
            raise ResumeImpossible(f"{self.path} is not there; train without --resume")
        content = torch.load(self.path, weights_only=True)
        if differing := _differences(content.get("identity") or {}, self.identity):
            raise ResumeImpossible(
                f"{self.path} was made with other settings: {differing}; train with those it was "
                "made with, or without --resume to begin anew"
            )
        progress = content["progress"]
        self.progress = _Progress(**{**progress, "history": History(**progress["history"])})
        self.model.load_state_dict(content["model"])
        self.best = content["best"]
        self.average.restore(**content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        for group in self.optimizer.param_groups:
            group.setdefault("share", 1.0)  # of a checkpoint of an earlier release
        if self.team.is_leader:
            torch.set_rng_state(content["random"])


def _parameter_groups(model: nn.Module, table_rate: float) -> list[dict[str, Any]]:
    """share: of the learning rate."""
    if table_rate == 1:
        return [{"params": list(model.parameters()), "share": 1.0}]
    named = list(model.named_parameters())
    tables = [weight for name, weight in named if _is_table(name)]
    others = [weight for name, weight in named if not _is_table(name)]
    return [{"params": others, "share": 1.0}, {"params": tables, "share": table_rate}]


def _is_table(name: str) -> bool:
    return name.startswith("embedding.") or name == "output.weight"


def _differences(made_with: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What a checkpoint and a run do not share, each with both values; empty if nothing."""
    names = [name for name in {**made_with, **now} if name not in _EXTENDABLE]
    # A checkpoint of an earlier release lacks settings that are new; those had their defaults.
    known = {**asdict(FitSettings(0, 0, 0.0)), **made_with}
    return ", ".join(
        f"{name} {known.get(name)!r} there and {now.get(name)!r} here"
        for name in names
        if known.get(name) != now.get(name)
    )


def _schedule(done: int, total: int, settings: FitSettings) -> float:
    """Share of the peak learning rate at step ``done``: a linear warm-up, then a half cosine."""
    warmup = max(1, int(total * settings.warm_up))
    if done < warmup:
        return (done + 1) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, total - warmup)))
    return settings.final_rate + (1 - settings.final_rate) * cosine


def _on(device: torch.device, values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.to(device)
    return tuple(_on(device, part) for part in values) if isinstance(values, tuple) else values


def _detach(carry: Any) -> Any:
    if isinstance(carry, Tensor):
        return carry.detach()
    return tuple(_detach(part) for part in carry) if isinstance(carry, tuple) else carry


class _Lines:
    """Progress where no terminal shows a bar: a line every _LINE_SECONDS, with the time left."""

    def __init__(self, progress: _Progress, batches: int, epochs: int) -> None:
        self.progress, self.batches, self.epochs = progress, batches, epochs
        self.began, self.last = time.monotonic(), time.monotonic()
        self.done, self.loss = 0, ""

    def set_postfix_str(self, loss: str) -> None:
        self.loss = loss

    def update(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last < _LINE_SECONDS:
            return
        self.last = now
        total = self.epochs * self.batches
        left = total - self.progress.epoch * self.batches - self.progress.step
        minutes = left * (now - self.began) / self.done / 60
        print(
            f"epoch {self.progress.epoch + 1}/{self.epochs}, batch {self.progress.step} of "
            f"{self.batches}: {self.loss}, {minutes:.1f} minutes left at most",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _progress_bar(progress: _Progress, batches: int, epochs: int, shown: bool) -> Iterator[Any]:
    if shown and not sys.stderr.isatty():
        yield _Lines(progress, batches, epochs)
        return
    bar = tqdm(
        disable=not shown,
        total=epochs * batches,
        initial=progress.epoch * batches + progress.step,
        desc=f"epoch {progress.epoch + 1}/{epochs}",
        unit="batch",
        mininterval=1.0,
    )
    with bar:
        yield bar


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a request; the next Ctrl-C ends the process as usual.

    Signals reach the main thread alone, and only that one may set handlers.
    """
    requested: list[int] = []

    def request(number: int, _frame: object) -> None:
        requested.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
