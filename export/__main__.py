"""Export a trained model, or the model inside a bundle, as a bundle.

python -m export MODEL [--run FOLDER | --bundle FOLDER] [--models FOLDER] [--version N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bundle.errors import BundleError
from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from export.onnx_files import ExportRefused
from export.parity import ParityMissed
from training.trained import MODEL_FILE, TrainedModel


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export")
    parser.add_argument("model", help="name of the model")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="training run (default runs/MODEL)")
    source.add_argument("--bundle", type=Path, help="bundle to rebuild the model from")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where bundles go")
    parser.add_argument("--version", type=int, default=1, help="version to write (default 1)")
    chosen = parser.parse_args()
    target = chosen.models / chosen.model / str(chosen.version)
    try:
        trained = _source(chosen.model, chosen.run, chosen.bundle)
        bundle = export_bundle(trained, target)
    except (BundleError, ExportRefused, ParityMissed, FileNotFoundError) as error:
        print(f"{chosen.model}: {error}", file=sys.stderr)
        return 1
    size = sum(file.bytes for file in bundle.manifest.files.values())
    print(f"{target}: {size / 1e6:.1f} MB, digest {bundle.digest[:12]}")
    for graph, deviation in bundle.manifest.export.parity.items():
        print(f"  {graph}: deviates from PyTorch by at most {deviation:.1e}")
    return 0


def _source(model: str, run: Path | None, bundle: Path | None) -> TrainedModel:
    if bundle is not None:
        return trained_from_bundle(read_bundle(bundle))
    folder = run or Path("runs") / model
    if not (folder / MODEL_FILE).exists():
        raise FileNotFoundError(
            f"{folder / MODEL_FILE} is not there; run `make train MODEL={model}` first"
        )
    return TrainedModel.load(folder)


if __name__ == "__main__":
    sys.exit(main())
