"""Measure what every bundle says of itself, through the service.

    python -m evaluation [--only MODEL …] [--models FOLDER] [--output FOLDER] [--everyday]

Serves the bundles, asks them over gRPC what their held-out splits hold and the everyday questions
of each, and writes models.md and the cards with their plots. Exits with 1 where a figure does not
reproduce. --everyday asks the everyday questions alone, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import FP32, INT8, FigureSpec
from bundle.store import Bundle, read_bundle
from evaluation import goals
from evaluation.evaluators import (
    EVALUATORS,
    claims_of,
    evaluate,
    evaluate_graphs,
    held_out_of,
    measure_floors,
)
from evaluation.everyday_sets import EverydayAnswers, ask_everyday, everyday_set_of
from evaluation.pages import Evaluated, write_pages
from evaluation.results import Floor, Result
from evaluation.serving import serving
from training.config import CardSettings, RecipeInvalid, models, recipe_of
from training.data.packages import DATA_FOLDER, DataUnavailable
from unroll import Client

_CALL_SECONDS = 600  # some calls wait behind many others


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation")
    parser.add_argument(
        "--only", nargs="+", metavar="MODEL", help="names of bundles in --models (default: all)"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs"), help="folder of the pages (default: docs)"
    )
    parser.add_argument("--everyday", action="store_true", help="everyday questions alone, printed")
    parser.add_argument(
        "--data", type=Path, default=DATA_FOLDER, help="folder of data packages (default: .data)"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.everyday:
            return _everyday_alone(chosen.models, chosen.only)
        evaluated = _evaluated(chosen.models, chosen.only, chosen.data)
        _evaluate(evaluated, chosen.models)
    except (BundleError, DataUnavailable, RecipeInvalid, UnknownModel) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    for path in write_pages(chosen.output, evaluated):
        print(path)
    results = {name: model.results for name, model in evaluated.items()}
    found = {name: model.found for name, model in evaluated.items()}
    for sentence in goals.missed(found, {name: m.goals for name, m in evaluated.items()}):
        print(f"evaluation: goal missed: {sentence}")
    missed = [f"{name}: {r.claimed.name}" for name, rows in results.items() for r in rows
              if not r.reproduces]  # fmt: skip
    if missed:
        print(f"evaluation: these do not reproduce: {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


class UnknownModel(Exception):
    """A bundle that is not there, or of which no held-out split is known."""


def _everyday_alone(folder: Path, only: Sequence[str] | None) -> int:
    """Raises UnknownModel for a model without a bundle."""
    with serving(folder, _CALL_SECONDS) as client:
        for name in _names(folder, only):
            if everyday := everyday_set_of(name):
                _print_everyday(name, ask_everyday(client, _bundle(folder, name), everyday))
    return 0


def _names(folder: Path, only: Sequence[str] | None) -> Sequence[str]:
    return only or sorted(path.name for path in folder.iterdir() if path.is_dir())


def _bundle(folder: Path, name: str) -> Bundle:
    """The newest version. Raises UnknownModel where there is none."""
    versions = [int(v.name) for v in (folder / name).glob("*") if v.name.isdigit()]
    if not versions:
        raise UnknownModel(f"{folder / name} is no bundle")
    return read_bundle(folder / name / str(max(versions)))


def _evaluated(folder: Path, only: Sequence[str] | None, data: Path) -> dict[str, Evaluated]:
    """The newest version of each, before anything is measured."""
    return {name: _newest(folder, name, data) for name in _names(folder, only)}


def _newest(folder: Path, name: str, data: Path) -> Evaluated:
    with suppress(UnknownModel):
        bundle = _bundle(folder, name)
        held_out = held_out_of(bundle, data)
        if held_out is not None:
            if name not in models():
                return Evaluated(bundle, held_out, (), CardSettings())
            recipe = recipe_of(name)
            return Evaluated(
                bundle, held_out, recipe.goals, recipe.card, published=recipe.published
            )
    raise UnknownModel(
        f"{folder / name} is no bundle with a known held-out split (of: {', '.join(models())})"
    )


def _evaluate(evaluated: Mapping[str, Evaluated], models: Path) -> None:
    """Measure every claim: through a service in fp32, then through one in int8 where such a
    step is served; then what they are without a network, where that is measured here.
    """
    in_int8 = {}
    with serving(models, _CALL_SECONDS) as client:
        for name, model in evaluated.items():
            with _timed(name, model):
                _through_the_service(client, model, model.bundle.manifest.figures)
            if everyday := everyday_set_of(name):
                model.everyday = ask_everyday(client, model.bundle, everyday)
                _print_everyday(name, model.everyday)
            if not claims_of(model.bundle, INT8):
                continue
            if EVALUATORS[model.bundle.manifest.task].ask_graph is None:
                in_int8[name] = model
                with _timed(name, model):
                    _through_the_service(client, model, claims_of(model.bundle, FP32))
            else:
                claims = [
                    f for precision in (FP32, INT8) for f in claims_of(model.bundle, precision)
                ]
                with _timed(name, model):
                    model.results += evaluate_graphs(model.bundle, model.held_out, claims)
    if in_int8:
        precision = ",".join(f"{name}={INT8}" for name in in_int8)
        with serving(models, _CALL_SECONDS, precision) as client:
            for name, model in in_int8.items():
                with _timed(name, model):
                    _through_the_service(client, model, claims_of(model.bundle, INT8))
    for name, model in evaluated.items():
        model.floors = measure_floors(model.bundle, model.held_out)
        for floor in model.floors:
            _print_floor(name, floor)


def _through_the_service(client: Client, model: Evaluated, claims: Sequence[FigureSpec]) -> None:
    results, confusion = evaluate(client, model.bundle, model.held_out, claims)
    model.results += results
    # Of the first beam and precision alone: later ones answer the same questions again.
    model.confusion = model.confusion or confusion


@contextmanager
def _timed(name: str, model: Evaluated) -> Iterator[None]:
    """Prints how long it took, and what was measured meanwhile."""
    begin, before = time.monotonic(), len(model.results)
    yield
    print(f"{name}: {time.monotonic() - begin:.0f} s")
    for result in model.results[before:]:
        _print(result)


def _print(result: Result) -> None:
    claim, measured = result.claimed, result.measured
    if measured is None:
        print(f"  {claim.name}: not measured")
        return
    verdict = "" if result.reproduces else "  DOES NOT REPRODUCE"
    print(
        f"  {claim.name}: {measured.value:.4f} ({measured.low:.4f} to {measured.high:.4f}), "
        f"manifest {claim.value:.4f} {claim.unit}{verdict}",
        flush=True,
    )


def _print_everyday(name: str, answers: EverydayAnswers) -> None:
    for figure, found in answers.figures():
        print(
            f"{name}, {figure.split}: {figure.name} {found.value:.1f} % of {found.examples} "
            f"({found.low:.1f} to {found.high:.1f})",
            flush=True,
        )


def _print_floor(name: str, floor: Floor) -> None:
    figure, value = floor.figure, floor.measured.value
    print(
        f"{name}, floor: {figure.name} {value:.4f} {figure.unit} by {floor.by}, {figure.split}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
