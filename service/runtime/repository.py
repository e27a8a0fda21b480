"""Finds bundles under a folder and loads the newest version of each, or says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from bundle.errors import BundleError, ManifestInvalid
from bundle.manifest import ROWS
from bundle.store import Bundle, read_bundle
from service.runtime.devices import CPU_PROVIDER, DEVICES
from service.runtime.sessions import SessionSettings, open_session


class NoModels(Exception):
    """The folder holds no bundle at all."""


@dataclass(frozen=True)
class LoadedModel:
    """A verified bundle with a session for each of its graphs.

    rows: of the graph that moves state between rows, which only a device needs.
    """

    bundle: Bundle
    sessions: Mapping[str, onnxruntime.InferenceSession]
    rows: onnxruntime.InferenceSession | None = None

    @property
    def provider(self) -> str:
        session = next(iter(self.sessions.values()))
        provider: str = session.get_providers()[0]
        return provider

    @property
    def device(self) -> str:
        """By onnxruntime's name."""
        return DEVICES[self.provider]


@dataclass(frozen=True)
class RefusedBundle:
    name: str
    version: str
    reason: str


def newest_versions(root: Path) -> list[Path]:
    """``root/NAME/VERSION`` with the highest whole-number VERSION of each NAME.

    Raises NoModels when there is none.
    """
    found: dict[str, Path] = {}
    for folder in sorted(root.glob("*/*/")):
        if folder.name.isdecimal() and not folder.parent.name.startswith("."):
            newest = found.get(folder.parent.name)
            if newest is None or int(folder.name) > int(newest.name):
                found[folder.parent.name] = folder
    if not found:
        raise NoModels(f"{root} holds no bundle (NAME/VERSION/manifest.json); give --models")
    return list(found.values())


def read_checked(folder: Path) -> Bundle:
    """The bundle in ``folder``, which must be the one its place says.

    Raises BundleError's kinds.
    """
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise ManifestInvalid(
            f"{folder} holds model {manifest.name!r} version {manifest.version}; "
            f"move it to {manifest.name}/{manifest.version}"
        )
    return bundle


def load_models(
    root: Path, settings: SessionSettings
) -> tuple[list[LoadedModel], list[RefusedBundle]]:
    """Every model that can be served and every one that cannot, each on its own account.

    Raises NoModels, and DeviceUnavailable when the device cannot run any of them.
    """
    loaded, refused = [], []
    for folder in newest_versions(root):
        try:
            bundle = read_checked(folder)
            loaded.append(_load(bundle, settings))
        except BundleError as error:
            refused.append(RefusedBundle(folder.parent.name, folder.name, str(error)))
    return loaded, refused


def _load(bundle: Bundle, settings: SessionSettings) -> LoadedModel:
    names = [graph for graph in bundle.manifest.graphs if graph != ROWS]
    sessions = {graph: open_session(bundle, graph, settings) for graph in names}
    return _with_rows(LoadedModel(bundle, sessions), settings)


def _with_rows(loaded: LoadedModel, settings: SessionSettings) -> LoadedModel:
    """``loaded``, and the graph that its streams' state needs where it lies on a device."""
    bundle = loaded.bundle
    if loaded.provider == CPU_PROVIDER or not bundle.manifest.state:
        return loaded
    if ROWS not in bundle.manifest.graphs:
        raise ManifestInvalid(
            f"{bundle.folder} has no graph {ROWS!r}, which moves streams between rows on "
            f"{loaded.device}; export the bundle again, or use --device cpu"
        )
    return replace(loaded, rows=open_session(bundle, ROWS, settings))
