"""Bundles on disk: ``models/NAME/VERSION/``, written as a whole or not at all, read verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.errors import BundleCorrupt, BundleError, BundleMissing, ManifestInvalid
from bundle.manifest import FileSpec, Manifest, TokenizerSpec, Weights, WeightTensor
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary

MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.json"
WEIGHTS_FILE = "weights.bin"

# ONNX external data may be mapped into memory, which wants whole pages.
_ALIGNMENT = 4096


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are the ones its manifest lists.

    digest: sha256 of the manifest, and through it of every file.
    """

    folder: Path
    manifest: Manifest
    digest: str
    tokenizers: Mapping[str, Tokenizer]

    def path_of(self, graph: str) -> Path:
        return self.folder / self.manifest.graphs[graph].file


def read_bundle(folder: Path) -> Bundle:
    """Raises BundleError's kinds: what is wrong with which file, and what to do."""
    raw = _read(folder / MANIFEST_FILE)
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise BundleCorrupt(
            f"{folder / MANIFEST_FILE} is not JSON ({error}); copy or export the bundle again"
        ) from error
    try:
        manifest = Manifest.from_json(content)
    except BundleError as error:
        raise type(error)(
            f"{folder / MANIFEST_FILE}: {error}; export the bundle again with this release"
        ) from error
    for name, expected in manifest.files.items():
        _verify(folder / name, expected)
    return Bundle(
        folder, manifest, hashlib.sha256(raw).hexdigest(), _read_tokenizers(folder, manifest)
    )


def _read_tokenizers(folder: Path, manifest: Manifest) -> dict[str, Tokenizer]:
    path = folder / manifest.vocabulary_file
    try:
        vocabularies = json.loads(path.read_bytes())
        return {role: _tokenizer(spec, vocabularies) for role, spec in manifest.tokenizers.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestInvalid(
            f"{path} holds no vocabularies as this release writes them ({error!r}); "
            "export the bundle again"
        ) from error


def _tokenizer(spec: TokenizerSpec, vocabularies: Mapping[str, Any]) -> Tokenizer:
    if spec.vocabulary not in vocabularies:
        raise ManifestInvalid(f"the vocabulary file holds no vocabulary {spec.vocabulary!r}")
    vocabulary = Vocabulary.from_json(vocabularies[spec.vocabulary])
    return Tokenizer(spec.kind, vocabulary, spec.lowercase)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleMissing(
            f"{path} cannot be read ({error.strerror}); copy or export the bundle again"
        ) from error


def _verify(path: Path, expected: FileSpec) -> None:
    content = _read(path)
    if len(content) != expected.bytes:
        raise BundleCorrupt(
            f"{path} has {len(content)} bytes, the manifest says {expected.bytes}; "
            "copy or export the bundle again"
        )
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise BundleCorrupt(
            f"{path} is not the file that was exported (its sha256 differs); "
            "copy or export the bundle again"
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``target`` when the block ends well, else vanishes.

    An older ``target`` stays whole until then; between two renames it is aside, for as long
    as they take.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o755)
        _replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path, target: Path) -> None:
    """A folder cannot be renamed over another: the old one steps aside, for one rename."""
    if not target.exists():
        os.rename(folder, target)
        return
    aside = folder.with_name(folder.name + "-old")
    os.rename(target, aside)
    try:
        os.rename(folder, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside)


def seal(folder: Path, manifest: Manifest) -> None:
    """Hash every file in ``folder`` and write the manifest beside them, last."""
    files = {path.name: _file_spec(path) for path in sorted(folder.iterdir())}
    content = replace(manifest, files=files).to_json()
    Manifest.from_json(content)
    (folder / MANIFEST_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _file_spec(path: Path) -> FileSpec:
    content = path.read_bytes()
    return FileSpec(hashlib.sha256(content).hexdigest(), len(content))


def write_vocabularies(
    folder: Path, tokenizers: Mapping[str, Tokenizer]
) -> dict[str, TokenizerSpec]:
    """Write each vocabulary once, under the first role that uses it.

    Returns the manifest's part.
    """
    keys: dict[Vocabulary, str] = {}
    for role, tokenizer in tokenizers.items():
        keys.setdefault(tokenizer.vocabulary, role)
    content = {key: vocabulary.to_json() for vocabulary, key in keys.items()}
    text = json.dumps(content, ensure_ascii=False, indent=0)
    (folder / VOCABULARY_FILE).write_text(text + "\n", encoding="utf8")
    return {
        role: TokenizerSpec(t.kind, t.lowercase, keys[t.vocabulary])
        for role, t in tokenizers.items()
    }


def write_weights(folder: Path, tensors: Mapping[str, NDArray[Any]]) -> Weights:
    """Write all tensors into one file, each at a whole page, and say where they lie."""
    places: dict[str, WeightTensor] = {}
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for name, tensor in tensors.items():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            places[name] = WeightTensor(str(tensor.dtype), tensor.shape, file.tell())
            file.write(np.ascontiguousarray(tensor).tobytes())
    return Weights(WEIGHTS_FILE, places)


def read_weights(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The tensors of the weights file by name, as read-only views of one mapped file."""
    weights = bundle.manifest.weights
    content = np.memmap(bundle.folder / weights.file, np.uint8, mode="r")
    return {name: _tensor(content, name, place) for name, place in weights.tensors.items()}


def _tensor(content: NDArray[np.uint8], name: str, place: WeightTensor) -> NDArray[Any]:
    dtype = np.dtype(place.dtype)
    size = int(np.prod(place.shape)) * dtype.itemsize
    part = content[place.offset : place.offset + size]
    if len(part) != size:
        raise ManifestInvalid(f"weight {name!r} lies outside the weights file")
    return part.view(dtype).reshape(place.shape)
