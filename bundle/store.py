"""Bundles on disk: ``models/NAME/VERSION/``, written as a whole or not at all, read verified."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.errors import (
    BundleCorrupt,
    BundleError,
    BundleMissing,
    BundleTooLarge,
    ManifestInvalid,
    WeightsNotFinite,
)
from bundle.manifest import FileSpec, Manifest, TokenizerSpec, Weights, WeightTensor
from bundle.paths import within
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary

MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocabulary.json"
WEIGHTS_FILE = "weights.bin"

# Readers may map the weights file into memory, which wants whole pages.
_ALIGNMENT = 4096

_DTYPES = {
    name: np.dtype(name)
    for name in (
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
    )
}

# Far above what any manifest or vocabulary needs: parsed, a JSON text takes many times its size.
MOST_JSON_BYTES = 16 * 1024**2
# All files of a bundle together are in memory while they are verified and opened.
MOST_BUNDLE_BYTES = 1024**3


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are the ones its manifest lists.

    digest: sha256 of the manifest, and through it of every file.
    contents: the very bytes that were verified, by file name. The files may change afterwards,
    so whatever is made of the bundle is made of these.
    """

    folder: Path
    manifest: Manifest
    digest: str
    tokenizers: Mapping[str, Tokenizer]
    contents: Mapping[str, bytes] = field(repr=False)

    def path_of(self, graph: str) -> Path:
        return self.folder / self.manifest.graphs[graph].file

    def graph_of(self, graph: str) -> bytes:
        return self.contents[self.manifest.graphs[graph].file]

    @property
    def weights(self) -> bytes:
        return self.contents[self.manifest.weights.file]

    def without_contents(self) -> Bundle:
        """For whoever keeps the bundle once all that needs its files is made."""
        return replace(self, contents={})


def read_bundle(folder: Path, most_bytes: int = MOST_BUNDLE_BYTES) -> Bundle:
    """Each file is read once; what is hashed is what the bundle holds.

    ``folder`` may be reached through symbolic links, its files may not lead out of it.
    most_bytes: of all files together.

    Raises BundleError's kinds: what is wrong with which file, and what to do.
    """
    path, raw = folder / MANIFEST_FILE, _read_manifest(folder)
    content = _parsed(path, raw)
    try:
        manifest = Manifest.from_json(content)
    except BundleError as error:
        raise type(error)(f"{path}: {error}; export the bundle again with this release") from error
    _check_sizes(path, manifest, most_bytes)
    contents = {name: _verified(folder, name, spec) for name, spec in manifest.files.items()}
    bundle = Bundle(
        folder,
        manifest,
        hashlib.sha256(raw).hexdigest(),
        _tokenizers(folder / manifest.vocabulary_file, manifest, contents),
        contents,
    )
    _check_bos(bundle)
    _check_weights(bundle)
    return bundle


def digest_of(folder: Path) -> str:
    """The digest that the bundle in ``folder`` would have, its files not verified.

    Raises BundleError's kinds.
    """
    return hashlib.sha256(_read_manifest(folder)).hexdigest()


def _read_manifest(folder: Path) -> bytes:
    return _read(folder, MANIFEST_FILE, MOST_JSON_BYTES)


def _check_sizes(path: Path, manifest: Manifest, most_bytes: int) -> None:
    """By the manifest alone: a file of another size than it says is not read."""
    total = sum(spec.bytes for spec in manifest.files.values())
    if total > most_bytes:
        raise BundleTooLarge(
            f"{path} lists files of {total} bytes together, at most {most_bytes} are read; "
            "export a smaller model, or raise the service's --max-bundle-bytes"
        )
    vocabulary = manifest.files[manifest.vocabulary_file].bytes
    if vocabulary > MOST_JSON_BYTES:
        raise BundleTooLarge(
            f"{path} lists a vocabulary of {vocabulary} bytes, at most {MOST_JSON_BYTES} are "
            "read; export the model with a smaller one"
        )


def _parsed(path: Path, raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleCorrupt(
            f"{path} is not JSON ({error}); copy or export the bundle again"
        ) from error


def _tokenizers(
    path: Path, manifest: Manifest, contents: Mapping[str, bytes]
) -> dict[str, Tokenizer]:
    vocabularies = _parsed(path, contents[manifest.vocabulary_file])
    try:
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


def _verified(folder: Path, name: str, expected: FileSpec) -> bytes:
    path, content = folder / name, _read(folder, name, expected.bytes, expected.bytes)
    if len(content) != expected.bytes:  # it changed while it was read
        raise _wrong_size(path, len(content), expected.bytes)
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise BundleCorrupt(
            f"{path} is not the file that was exported (its sha256 differs); "
            "copy or export the bundle again"
        )
    return content


def _read(folder: Path, name: str, most_bytes: int, exactly: int | None = None) -> bytes:
    """A file of the bundle, whose size is looked at before a byte of it is read.

    Raises BundleMissing, BundleTooLarge, or BundleCorrupt for one that has not ``exactly`` so
    many bytes, is no regular file (a pipe would be waited for) or lies outside the folder.
    """
    path = folder / name
    try:
        with open(_inside(folder, name), "rb", opener=_open) as file:
            _check_file(path, os.fstat(file.fileno()), most_bytes, exactly)
            return file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        raise BundleMissing(
            f"{path} cannot be read ({getattr(error, 'strerror', error)}); "
            "copy or export the bundle again"
        ) from error


def _check_file(path: Path, status: os.stat_result, most_bytes: int, exactly: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BundleCorrupt(f"{path} is not a regular file; copy or export the bundle again")
    if exactly is not None and status.st_size != exactly:
        raise _wrong_size(path, status.st_size, exactly)
    if status.st_size > most_bytes:
        raise BundleTooLarge(
            f"{path} has {status.st_size} bytes, at most {most_bytes} are read; "
            "export the bundle again"
        )


def _inside(folder: Path, name: str) -> Path:
    """Where the file really is. The folder is whoever's who keeps the models, and may be a link;
    its files come with the bundle, and one that leads elsewhere is none of it."""
    path = within(folder, name)
    if path is None:
        raise BundleCorrupt(
            f"{folder / name} is a link that leads out of the bundle; copy the file itself (cp -L)"
        )
    return path


def _open(path: str, flags: int) -> int:
    """Without waiting for whoever writes into a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _wrong_size(path: Path, found: int, expected: int) -> BundleCorrupt:
    return BundleCorrupt(
        f"{path} has {found} bytes, the manifest says {expected}; copy or export the bundle again"
    )


def _check_bos(bundle: Bundle) -> None:
    """Raises ManifestInvalid where texts are to begin with a token that there is not."""
    manifest = bundle.manifest
    if manifest.add_bos_token and not bundle.tokenizers["input"].vocabulary.has_begin:
        raise ManifestInvalid(
            f"{bundle.folder / MANIFEST_FILE} says add_bos_token, and the vocabulary has no symbol "
            "for 'bos'; import the model again with both"
        )


def _check_weights(bundle: Bundle) -> None:
    """Raises ManifestInvalid for a tensor that is not in the file, WeightsNotFinite."""
    for name, tensor in read_weights(bundle).items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise WeightsNotFinite(
                f"{bundle.folder / bundle.manifest.weights.file}: weight {name!r} holds NaN or "
                "infinity; train the model again, or export an earlier checkpoint"
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


def write_manifest(folder: Path, manifest: Manifest) -> None:
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
    """The tensors of the weights file by name, as read-only views of what was verified."""
    places = bundle.manifest.weights.tensors
    return {name: _tensor(bundle.weights, name, place) for name, place in places.items()}


def _tensor(content: bytes, name: str, place: WeightTensor) -> NDArray[Any]:
    dtype = _DTYPES.get(place.dtype)
    if dtype is None:
        raise ManifestInvalid(
            f"weight {name!r} is of type {place.dtype!r}, not one of {', '.join(_DTYPES)}"
        )
    count = math.prod(place.shape)
    try:
        return np.frombuffer(content, dtype, count, place.offset).reshape(place.shape)
    except (ValueError, OverflowError) as error:
        raise ManifestInvalid(f"weight {name!r} lies outside the weights file") from error
