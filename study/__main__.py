"""python -m study [--only SECTION …] [--quick] [--fresh] [--page] [--output FOLDER]

Searches each design's learning rate, reruns the lecture's arguments with it and writes
docs/study.md with its figures, docs/designs.md and docs/study/results.json. Trained models and
measured sections are stored in runs/study/ and used again unless --fresh. Ctrl-C or SIGTERM stops
it, in the search too; the same command, without --fresh, goes on. A section whose
sections/NAME.json is gone is measured again with the models that are there. --page only writes the
pages again from the results. A quick run writes nothing unless --output says where.

    0  done   1  a model could not be trained, or a bundle is missing   130  stopped
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.machine import this_machine
from export.parity import ParityMissed
from study import (
    attention,
    designs,
    gradient,
    layer_depth,
    lengths,
    teacher_forcing,
    vectors,
    window,
    word_order,
)
from study.artifact_cache import ArtifactCache
from study.page import page_of, read_results, write_pages, write_results
from study.rate_search import as_json
from study.recipes import Learner
from study.sections import Section, Study
from study.settings import QUICK, WHOLE, Settings
from study.trainer import Trainer
from study.worker_pool import TrainingFailed
from training.data.packages import DATA_FOLDER, DataUnavailable
from training.loop import TrainingStopped
from training.run import STOPPED_BY_USER
from unroll import RequestFailed

SECTIONS = tuple(
    module.SECTION
    for module in (
        word_order,
        window,
        gradient,
        teacher_forcing,
        layer_depth,
        attention,
        lengths,
        vectors,
    )
)
_BY_NAME: dict[str, Section] = {s.name: s for s in (*SECTIONS, designs.SECTION)}


@dataclass
class _Run:
    """One command: its sections, and what it measures them with."""

    study: Study
    chosen: Sequence[Section]
    workers: int

    def discard(self) -> None:
        for section in self.chosen:
            self.study.cache.discard_section(section.name)
        for learner in learners_of(self.chosen):
            self.study.cache.discard_models(learner)

    def measure(self) -> dict[str, Any]:
        """What each chosen section found, now or before."""
        if designs.SECTION in self.chosen:
            designs.missing_bundles(self.study)  # known before minutes of work, not after
        self.study.search.train(self.study.trainer, learners_of(self.chosen), self.workers)
        return {section.name: self._measure(section) for section in self.chosen}

    def _measure(self, section: Section) -> Any:
        cache = self.study.cache
        found = cache.load_section(section.name)
        if found is None:
            print(f"measuring: {section.name}", file=sys.stderr, flush=True)
            found = cache.store_section(section.name, section.measure(self.study))
        return found

    def choices(self) -> dict[str, Any]:
        """What each learner of the chosen sections was given."""
        search = self.study.search
        return as_json({each: search.choice(each) for each in learners_of(self.chosen)})


_FAILURES = (
    TrainingFailed, DataUnavailable, ParityMissed, RequestFailed, designs.BundlesMissing,
    designs.NotServed,
)  # fmt: skip


def learners_of(sections: Iterable[Section]) -> list[Learner]:
    """Each once."""
    return list(dict.fromkeys(learner for section in sections for learner in section.learners))


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    settings = QUICK if chosen.quick else WHOLE
    output = chosen.output or (None if chosen.quick else Path("docs"))
    torch.set_num_threads(1)
    try:
        if chosen.page:
            return _write_page_again(output or Path("docs"))
        return _run(chosen, settings, output)
    except (KeyboardInterrupt, TrainingStopped):
        print("stopped; the same command without --fresh goes on", file=sys.stderr)
        return STOPPED_BY_USER
    except _FAILURES as error:
        print(f"study: {error}", file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace, settings: Settings, output: Path | None) -> int:
    work = chosen.work or Path("runs") / ("study-quick" if chosen.quick else "study")
    trainer = Trainer(settings, work, chosen.data)
    study = Study(settings, trainer.cache, trainer, chosen.models)
    run = _Run(study, [_BY_NAME[name] for name in chosen.only], chosen.workers)
    if chosen.fresh:
        run.discard()
    found = run.measure()
    before = read_results(output) if output else {}
    earlier = before if before.get("quick") == settings.quick else {}
    results = {
        "quick": settings.quick,
        "machine": _machine(),
        "workers": chosen.workers,
        "training": _training(study.cache),
        "choices": {**earlier.get("choices", {}), **run.choices()},
        "sections": {**earlier.get("sections", {}), **found},
    }
    if output:
        write_results(output, results)
        _write(output, results)
    else:
        print(page_of(results, SECTIONS))
    return 0


def _write(output: Path, results: Mapping[str, Any]) -> None:
    for path in write_pages(output, results, SECTIONS, designs.SECTION):
        print(path)


def _write_page_again(output: Path) -> int:
    results = read_results(output)
    if not results:
        print(f"study: {output} holds no results; run without --page", file=sys.stderr)
        return 1
    _write(output, results)
    return 0


def _machine() -> str:
    machine = this_machine()
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}, "
        f"torch {torch.__version__}, onnxruntime {machine.packages['onnxruntime']}"
    )


def _training(cache: ArtifactCache) -> dict[str, float]:
    """How many models the cache has, and their CPU time."""
    seconds = cache.seconds()
    return {"models": len(seconds), "seconds": round(sum(seconds), 1)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study")
    names = list(_BY_NAME)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="SECTION",
        help=f"sections: {', '.join(names)} (default: all)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short run that only shows whether everything works"
    )
    parser.add_argument("--fresh", action="store_true", help="nothing reused from earlier runs")
    parser.add_argument("--page", action="store_true", help="pages from the results alone")
    parser.add_argument(
        "--workers", type=int, default=2, help="models trained side by side (default: 2)"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the pages (default: docs, none with --quick)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder of reused results (default: runs/study, runs/study-quick with --quick)",
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FOLDER, help="folder of data packages (default: .data)"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    sys.exit(main())
