"""Bundles changed under the service, and bundles that are whole and say wrong numbers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bundle.store import MANIFEST_FILE, WEIGHTS_FILE


def with_number(folder: Path, number: float, *, tensor: str = "", row: int | None = None) -> None:
    """Set weights of the bundle in ``folder`` to ``number`` and have its manifest say so.

    tensor: the start of its name, of every tensor with it. row: of each that alone.
    """
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    path = folder / manifest["weights"]["file"]
    content = bytearray(path.read_bytes())
    for name, spec in manifest["weights"]["tensors"].items():
        if name.startswith(tensor) and spec["dtype"].startswith("float"):
            count = int(np.prod(spec["shape"]))
            array = np.frombuffer(content, spec["dtype"], count, spec["offset"])
            array = array.reshape(spec["shape"])
            array[slice(None) if row is None else row] = number
    _replace(path, bytes(content))
    resign(folder, lambda _: None)


def resign(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply ``change`` to the manifest, and have it list its files as they are now."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    change(manifest)
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _replace(path, json.dumps(manifest).encode())


def describe(folder: Path, text: str) -> None:
    """Another description makes it another bundle, which a load does not keep as it is."""
    resign(folder, lambda manifest: manifest.update(description=text))


def copy_over(source: Path, folder: Path) -> None:
    """The files of ``source`` over those of ``folder``, as cp does: cut to nothing, then filled."""
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)


def overwrite(folder: Path) -> None:
    """Other weights in place: the file's size and inode stay."""
    path = folder / WEIGHTS_FILE
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(np.random.default_rng(1).normal(size=size // 4).astype("<f4").tobytes())


def _replace(path: Path, content: bytes) -> None:
    """By another file, so that nothing that is open or mapped sees it."""
    made = path.with_name(f".{path.name}")
    made.write_bytes(content)
    made.replace(path)
