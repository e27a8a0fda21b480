"""A bundle made ready to be served, or refused: all that takes long, for any thread.

A refusal is a value: an exception would keep what was opened alive in its traceback.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bundle.errors import BundleError
from service.refused_model import RefusedModel
from service.runtime.devices import DeviceUnavailable
from service.runtime.probe import OutputNotFinite
from service.runtime.repository import LoadedModel, Repository
from service.serving.model_factory import ReadyModel, ServerContext, assemble


def make_ready(
    repository: Repository, folder: Path, context: ServerContext, known: str | None
) -> ReadyModel | RefusedModel | None:
    """Read, open and run the bundle in ``folder``; prompts are read, too.

    known: the digest of what is served already; None is returned for it.
    """
    try:
        loaded = repository.load(folder, known)
    except (BundleError, DeviceUnavailable) as error:
        return RefusedModel(folder.parent.name, folder.name, str(error))
    return None if loaded is None else run_once(loaded, context, reads=True)


def others_of(
    repository: Repository, folders: Mapping[int, Path], known: Mapping[int, str]
) -> set[int]:
    """The versions that hold another bundle than the ``known`` one, by their manifests; not those
    that would be refused."""
    others = set()
    for number, folder in folders.items():
        with suppress(BundleError):
            if repository.differs(folder, known.get(number)):
                others.add(number)
    return others


def run_once(
    loaded: LoadedModel, context: ServerContext, reads: bool = False
) -> ReadyModel | RefusedModel:
    """The model, whose graphs have run. reads: whether prompts are to have been read, too."""
    started = time.monotonic()
    try:
        assembled = assemble(loaded, context)
        if reads:
            assembled.warm_reading()
        return replace(assembled, seconds=loaded.seconds + time.monotonic() - started)
    except OutputNotFinite as error:
        return _refused(loaded, f"{error}; train the model again, or export an earlier checkpoint")
    except Exception as error:  # whatever it is, it is this bundle's own
        return _refused(loaded, f"its graphs do not run ({error}); export the bundle again")


def _refused(loaded: LoadedModel, reason: str) -> RefusedModel:
    bundle = loaded.bundle
    manifest = bundle.manifest
    return RefusedModel(manifest.name, str(manifest.version), f"{bundle.folder}: {reason}")
