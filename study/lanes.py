"""Trains the models of a study in processes side by side, each on one thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from study.characters import CharacterCourse
from study.recipes import Course, Recipe, run_of
from study.sentences import SentenceCourse
from study.settings import Settings
from study.shelf import Shelf
from study.spelling import SpellingCourse
from training.loop import CHECKPOINT, ResumeImpossible, TrainingStopped


class TrainingFailed(Exception):
    """A lane ended before its model was trained."""


@dataclass(frozen=True)
class Workshop:
    """Everything that turns a recipe into a trained model on the shelf."""

    settings: Settings
    root: Path
    data: Path

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf(self.root, self.settings)

    @cached_property
    def sentences(self) -> SentenceCourse:
        return SentenceCourse(self.settings.sentences, self.data)

    @cached_property
    def characters(self) -> CharacterCourse:
        return CharacterCourse(self.settings.characters, self.data)

    @cached_property
    def spelling(self) -> SpellingCourse:
        return SpellingCourse(self.settings.spelling, self.data)

    def train(self, recipe: Recipe) -> None:
        """Its own output goes into log.txt of the model's folder. Raises TrainingStopped."""
        folder = self.shelf.prepare(recipe)
        with (
            (folder / "log.txt").open("a") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                self._train(recipe, folder)
            except ResumeImpossible:
                (folder / CHECKPOINT).unlink()
                self._train(recipe, folder)

    def _train(self, recipe: Recipe, folder: Path) -> None:
        course: Course = getattr(self, recipe.course)
        course.train(run_of(recipe, folder, self.data, self.settings.quick), recipe.design)


@dataclass
class _Lane:
    """A process that trains one recipe after another. current: what it trains now."""

    process: BaseProcess
    connection: Connection
    current: Recipe | None = field(default=None)

    def begin(self, recipe: Recipe) -> None:
        self.current = recipe
        self.connection.send(recipe)

    def finish(self) -> Recipe:
        """The recipe that is done. Raises TrainingFailed where it is not."""
        recipe = self.current
        assert recipe is not None, "only a lane that trains has something to say"
        self.current = None
        try:
            failure = self.connection.recv()
        except EOFError:
            failure = "its process ended"
        if failure:
            raise TrainingFailed(f"{recipe.name}: {failure}")
        return recipe


def train_all(workshop: Workshop, recipes: Sequence[Recipe], lanes: int) -> None:
    """Train what the shelf lacks of ``recipes``; in this process where ``lanes`` is 1.

    Ctrl-C lets each lane finish its step and write its checkpoint, and is then raised.
    Raises TrainingFailed, and TrainingStopped where the one lane is this process.
    """
    missing = [recipe for recipe in recipes if not workshop.shelf.has(recipe)]
    if not missing:
        return
    with tqdm(total=len(missing), desc="training", unit="model") as bar:
        if lanes == 1:
            for recipe in missing:
                bar.set_postfix_str(recipe.name)
                workshop.train(recipe)
                bar.update()
        else:
            _train_side_by_side(workshop, missing, lanes, bar)


def _train_side_by_side(
    workshop: Workshop, missing: Sequence[Recipe], count: int, bar: tqdm[NoReturn]
) -> None:
    waiting = list(missing)
    lanes = [_start_lane(workshop) for _ in range(min(count, len(waiting)))]
    try:
        for lane in lanes:
            lane.begin(waiting.pop(0))
        while busy := {lane.connection: lane for lane in lanes if lane.current}:
            bar.set_postfix_str(", ".join(lane.current.name for lane in lanes if lane.current))
            for connection in wait(list(busy)):
                lane = busy[connection]  # type: ignore[index]
                lane.finish()
                bar.update()
                if waiting:
                    lane.begin(waiting.pop(0))
    finally:
        _end(lanes)


def _start_lane(workshop: Workshop) -> _Lane:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_lane, args=(workshop, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Lane(process, ours)


def _end(lanes: Sequence[_Lane]) -> None:
    """A lane that still trains stops after its step; one that waits sees the pipe's end."""
    for lane in lanes:
        lane.connection.close()
        if lane.current and lane.process.pid and lane.process.is_alive():
            os.kill(lane.process.pid, signal.SIGINT)
    for lane in lanes:
        lane.process.join()


def _run_lane(workshop: Workshop, connection: Connection) -> None:
    os.setsid()  # the terminal's Ctrl-C is the parent's, which passes it on once
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop listens while it trains
    torch.set_num_threads(1)
    while True:
        try:
            recipe = connection.recv()
            connection.send(_failure(workshop, recipe))
        except (EOFError, OSError, TrainingStopped):
            return


def _failure(workshop: Workshop, recipe: Recipe) -> str:
    """Why ``recipe`` could not be trained; empty where it was."""
    try:
        workshop.train(recipe)
    except TrainingStopped:
        raise
    except Exception as error:  # the parent tells it, and ends the study
        return f"{type(error).__name__}: {error}"
    return ""
