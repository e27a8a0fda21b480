"""Trains the models of a study in processes side by side, each on one thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.synchronize import Event
from typing import NoReturn

import torch
from tqdm import tqdm

from study.recipes import Recipe
from study.trainer import Trainer


class TrainingFailed(Exception):
    """A worker could not train its model; says why."""


def train_all(trainer: Trainer, recipes: Sequence[Recipe], workers: int) -> None:
    """Train what the cache lacks of ``recipes``; in this process where ``workers`` is 1.

    Ctrl-C lets each worker finish its step and write its checkpoint, and is then raised.
    Raises TrainingFailed, and TrainingStopped where the one worker is this process.
    """
    missing = [recipe for recipe in recipes if not trainer.cache.has_model(recipe)]
    if not missing:
        return
    with tqdm(total=len(missing), desc="training", unit="model") as bar:
        if workers == 1:
            for recipe in missing:
                bar.set_postfix_str(recipe.name)
                trainer.train(recipe)
                bar.update()
        else:
            _train_side_by_side(trainer, missing, workers, bar)


def _train_side_by_side(
    trainer: Trainer, missing: Sequence[Recipe], workers: int, bar: tqdm[NoReturn]
) -> None:
    waiting = list(missing)
    running: dict[Future[None], Recipe] = {}
    # A spawned process: a fork of this one would inherit torch's threads and a service's.
    context = get_context("spawn")
    stop_requested = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(missing)), context, _start_worker, (trainer, stop_requested)
    )
    with pool:
        try:
            while waiting or running:
                # No more than run at once: what the bar shows is under way, and a stop ends it.
                while waiting and len(running) < workers:
                    recipe = waiting.pop(0)
                    running[pool.submit(_train, recipe)] = recipe
                bar.set_postfix_str(", ".join(recipe.name for recipe in running.values()))
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    _check(future, running.pop(future))
                    bar.update()
        except BaseException:
            stop_requested.set()
            _interrupt_workers()
            raise


def _check(future: Future[None], recipe: Recipe) -> None:
    error = future.exception()
    if error:
        raise TrainingFailed(f"{recipe.name}: {type(error).__name__}: {error}") from error


def _interrupt_workers() -> None:
    """One that trains stops after its step, with a checkpoint; one that reads data, at once."""
    for process in active_children():
        if process.pid:
            os.kill(process.pid, signal.SIGINT)


def _start_worker(trainer: Trainer, stop_requested: Event) -> None:
    global _trainer, _stop_requested
    os.setsid()  # the terminal's Ctrl-C is the parent's, which passes it on once
    # A worker that dies while it waits breaks the pool, which then ends those that train.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _trainer, _stop_requested = trainer, stop_requested


def _exit_with_parent() -> None:
    """A worker of a parent that was killed would wait for its next recipe for ever."""
    parent = parent_process()
    assert parent is not None, "this runs in a worker"
    parent.join()
    os._exit(1)


# Of a worker process: it reads a data set once for all models that it trains.
_trainer: Trainer
_stop_requested: Event


def _train(recipe: Recipe) -> None:
    """Raises KeyboardInterrupt where a stop comes before the first step or after the last."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the loop has its own
        if _stop_requested.is_set():  # the signal came before this recipe, and was ignored
            raise KeyboardInterrupt
        _trainer.train(recipe)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
