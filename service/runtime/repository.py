"""Finds bundles under a folder and loads the newest version of each, or says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from bundle.errors import BundleError, ManifestInvalid
from bundle.store import Bundle, read_bundle
from service.runtime.sessions import SessionSettings, open_session


class NoModels(Exception):
    """The folder holds no bundle at all."""


@dataclass(frozen=True)
class LoadedModel:
    """A verified bundle with a session for each of its graphs."""

    bundle: Bundle
    sessions: Mapping[str, onnxruntime.InferenceSession]

    @property
    def provider(self) -> str:
        session = next(iter(self.sessions.values()))
        provider: str = session.get_providers()[0]
        return provider


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
            sessions = {
                graph: open_session(bundle, graph, settings) for graph in bundle.manifest.graphs
            }
            loaded.append(LoadedModel(bundle, sessions))
        except BundleError as error:
            refused.append(RefusedBundle(folder.parent.name, folder.name, str(error)))
    return loaded, refused
