"""Export a trained model, or the model inside a bundle, as a bundle.

python -m export MODEL [--run FOLDER | --bundle FOLDER] [--adjust] [--int8] [--figures]
    [--models FOLDER] [--version N]

--int8 adds a step graph in int8 beside the fp32 one, and measures on held-out data what it costs
and how much faster it is here. Without it a bundle's precisions and their figures stay.
--adjust chooses anew what training chooses on its validation split once the weights are there, such
as a classifier's temperature, and measures as --figures does.
--figures measures the model's own figures, and what they are without a network, anew as its
training did, where what they depend on has changed: the draws of a forecaster. Without it those of
the run or bundle stay.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import INT8
from bundle.store import Bundle, read_bundle
from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.parity import ParityMissed
from export.quality import adjusted, int8_figures, measured_anew, step_speedups
from export.reports import headline_of, parity_lines
from training.checkpoint import MODEL_FILE, TrainedModel
from training.data.packages import DataUnavailable
from training.readers import DataInvalid


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export")
    parser.add_argument("model", help="name of the model")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="folder of the training run (default: runs/MODEL)")
    source.add_argument("--bundle", type=Path, help="bundle that the model is rebuilt from")
    parser.add_argument(
        "--adjust", action="store_true", help="choices on the validation split, made anew"
    )
    parser.add_argument("--int8", action="store_true", help="int8 step graph, measured")
    parser.add_argument(
        "--figures",
        action="store_true",
        help="held-out figures of the model and their floors, measured anew",
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument(
        "--version", type=int, default=1, help="version that is written (default: 1)"
    )
    chosen = parser.parse_args()
    target = chosen.models / chosen.model / str(chosen.version)
    try:
        trained = _source(chosen.model, chosen.run, chosen.bundle)
        if chosen.adjust:
            trained = adjusted(trained, run=chosen.run)
        if chosen.figures or chosen.adjust:
            trained = measured_anew(trained, run=chosen.run)
        bundle = _export(trained, target, chosen.int8, chosen.run)
    except (
        BundleError, DataInvalid, DataUnavailable, ExportRefused, ParityMissed, FileNotFoundError,
    ) as error:  # fmt: skip
        print(f"{chosen.model}: {error}", file=sys.stderr)
        return 1
    print("\n".join([headline_of(bundle), *parity_lines(bundle)]))
    for precision in bundle.manifest.precisions.values():
        for figure in precision.figures:
            print(f"  {figure.name}: {figure.value:.4f} {figure.unit} ({figure.split})")
    if chosen.int8:
        for batch, speedup in step_speedups(bundle).items():
            print(f"  int8 step: {speedup:.2f} times as fast as fp32 at batch {batch}")
    return 0


def _export(trained: TrainedModel, target: Path, int8: bool, run: Path | None) -> Bundle:
    if not int8:
        return export_bundle(trained, target)
    trained = replace(trained, precisions={INT8: ()})
    return export_bundle(trained, target, partial(int8_figures, trained, run=run))


def _source(model: str, run: Path | None, bundle: Path | None) -> TrainedModel:
    if bundle is not None:
        return trained_from_bundle(read_bundle(bundle))
    folder = run or Path("runs") / model
    if not (folder / MODEL_FILE).exists():
        raise FileNotFoundError(
            f"{folder / MODEL_FILE} is not there; train it first: `make train MODEL={model}` if it "
            f"is bundled, else `python -m training TASK --name {model} --data FILE`"
        )
    return TrainedModel.load(folder)
