"""Measure what every bundle says of itself, through the service.

    python -m evaluation [--only MODEL …] [--models FOLDER] [--output FOLDER]

Serves the bundles, asks them over gRPC what their held-out splits hold, and writes models.md and
the cards with their pictures. Exits with 1 where a figure does not reproduce.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import FP32, INT8, FigureSpec
from bundle.store import Bundle, read_bundle
from evaluation import goals
from evaluation.confusion import Confusion
from evaluation.judged import Checked, check
from evaluation.judges import JUDGES, PRECISION_JUDGES, STEP_JUDGES, Bench, Judges
from evaluation.pages import write_pages
from study.serving import serving
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
    parser.add_argument("--data", type=Path, default=DATA_FOLDER, help="folder of data packages")
    chosen = parser.parse_args(arguments)
    try:
        bundles = _bundles(chosen.models, chosen.only)
        evaluated, confusions = _evaluate(bundles, chosen.models, chosen.data)
    except (BundleError, DataUnavailable, UnknownModel) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    for path in write_pages(chosen.output, evaluated, bundles, confusions, chosen.data):
        print(path)
    for sentence in goals.missed(evaluated):
        print(f"evaluation: goal missed: {sentence}")
    missed = [f"{name}: {c.claimed.name}" for name, rows in evaluated.items() for c in rows
              if not c.reproduces]  # fmt: skip
    if missed:
        print(f"evaluation: these do not reproduce: {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


class UnknownModel(Exception):
    """A bundle that is not there, or that nobody knows how to judge."""


def _bundles(models: Path, only: Sequence[str] | None) -> dict[str, Bundle]:
    """The newest version of each."""
    names = only or sorted(folder.name for folder in models.iterdir() if folder.is_dir())
    bundles = {}
    for name in names:
        versions = [int(v.name) for v in (models / name).glob("*") if v.name.isdigit()]
        if name not in JUDGES or not versions:
            known = ", ".join(JUDGES)
            raise UnknownModel(f"{models / name} is no bundle that can be judged ({known})")
        bundles[name] = read_bundle(models / name / str(max(versions)))
    return bundles


def _evaluate(
    bundles: dict[str, Bundle], models: Path, data: Path
) -> tuple[dict[str, list[Checked]], dict[str, Confusion]]:
    """The figures of each model, and which labels it took for which."""
    evaluated: dict[str, list[Checked]] = {name: [] for name in bundles}
    confusions: dict[str, Confusion] = {}

    def judge(name: str, client: Client, claims: Sequence[FigureSpec], judges: Judges) -> None:
        begin = time.monotonic()
        bench = Bench(client, bundles[name], data, tuple(claims))
        rows = check(claims, judges[name](bench) if name in judges else [])
        evaluated[name] += rows
        confusions.setdefault(name, bench.confusion)
        print(f"{name}: {time.monotonic() - begin:.0f} s")
        for row in rows:
            _tell(row)

    with serving(models, _CALL_SECONDS) as client:
        for name, bundle in bundles.items():
            judge(name, client, bundle.manifest.figures, JUDGES)
            fp32, int8 = (_of_precision(bundle, precision) for precision in (FP32, INT8))
            if name in STEP_JUDGES:
                judge(name, client, fp32 + int8, STEP_JUDGES)
            elif fp32:
                judge(name, client, fp32, PRECISION_JUDGES)
    small = [n for n, b in bundles.items() if _of_precision(b, INT8) and n not in STEP_JUDGES]
    if small:
        chosen = ",".join(f"{name}={INT8}" for name in small)
        with serving(models, _CALL_SECONDS, chosen) as client:
            for name in small:
                judge(name, client, _of_precision(bundles[name], INT8), PRECISION_JUDGES)
    return evaluated, confusions


def _of_precision(bundle: Bundle, precision: str) -> list[FigureSpec]:
    """What an int8 bundle says of its step graphs, of one of the two."""
    spec = bundle.manifest.precisions.get(INT8)
    return [f for f in spec.figures if f.name.endswith(f", {precision}")] if spec else []


def _tell(row: Checked) -> None:
    claim, judged = row.claimed, row.judged
    if judged is None:
        print(f"  {claim.name}: not measured")
        return
    verdict = "" if row.reproduces else "  DOES NOT REPRODUCE"
    print(
        f"  {claim.name}: {judged.value:.4f} ({judged.low:.4f} to {judged.high:.4f}), "
        f"manifest {claim.value:.4f} {claim.unit}{verdict}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
