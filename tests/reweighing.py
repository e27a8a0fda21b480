"""New versions of exported bundles, without exporting them again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from bundle.store import MANIFEST_FILE, WEIGHTS_FILE, read_bundle, staged, write_manifest


def reweigh(source: Path, target: Path, factor: float = -0.7) -> Path:
    """The bundle in ``source`` with every float32 weight times ``factor``, as ``target``.

    target: NAME/VERSION; one that is there is replaced, and may be the source itself.
    """
    manifest = read_bundle(source).manifest
    with staged(target) as folder:
        for path in source.iterdir():
            if path.name != MANIFEST_FILE:
                shutil.copy(path, folder)
        content = np.memmap(folder / WEIGHTS_FILE, np.uint8, mode="r+")
        for place in manifest.weights.tensors.values():
            if place.dtype == "float32":
                size = 4 * int(np.prod(place.shape))
                content[place.offset : place.offset + size].view(np.float32)[:] *= factor
        content.flush()
        write_manifest(folder, replace(manifest, version=int(target.name)))
    return target


def spoil(folder: Path) -> None:
    """Change one byte of the weights."""
    path = folder / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
