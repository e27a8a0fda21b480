"""Finds bundles under a folder and loads the newest version of each, or says why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime

from bundle.errors import BundleCorrupt, BundleError, ManifestInvalid
from bundle.manifest import DENSE_STEP_INPUTS, FP32, ROWS, STEP_INPUTS, Manifest
from bundle.store import MOST_BUNDLE_BYTES, Bundle, digest_of, read_bundle
from bundle.tasks import spec_of
from service.failpoints import failpoint
from service.refused_model import RefusedModel
from service.runtime.devices import CPU_PROVIDER, DEVICES
from service.runtime.sessions import SessionSettings, open_session, open_state_path

OpenSession = Callable[[], onnxruntime.InferenceSession]

# What large batches run on several threads; scores and predictions share their cores with it.
_WIDE = ("prime", "step")


class NoModels(Exception):
    """The folder holds no bundle at all, or none of a name that was asked for."""


@dataclass(frozen=True)
class Precisions:
    """What models are to run in.

    default: for models that are not named; one whose bundle lacks it runs in fp32.
    named: by model; one whose bundle lacks it is refused.
    """

    default: str = FP32
    named: Mapping[str, str] = field(default_factory=dict)

    def choose(self, manifest: Manifest) -> str:
        """Raises ManifestInvalid for a model that was named and lacks the precision."""
        wanted = self.named.get(manifest.name, self.default)
        if wanted == FP32 or wanted in manifest.precisions:
            return wanted
        if manifest.name in self.named:
            raise ManifestInvalid(
                f"{manifest.name} is to run in {wanted}, and its bundle has "
                f"{', '.join((FP32, *manifest.precisions))}; export it with --{wanted}, or "
                f"leave {manifest.name}={wanted} out of --precision"
            )
        return FP32


@dataclass(frozen=True)
class LoadedModel:
    """A verified bundle with a session for each graph of its task, in one precision.

    bundle: without the contents of its files, which the sessions have copies of.
    sessions: by the name of the fp32 graph, whichever graph of the bundle runs for it; none for
    a task without graphs. A step in another precision reads prompts too, so where the task can
    do without ``prime``, such a model has none.
    open_wide: what opens the session of a step or a prefill once more, on several threads; none
    where one is all. The bundle's files are read and verified again for it. Raises BundleError's
    kinds, also where they are no longer the ones that were loaded.
    rows: of the graph that moves state between rows, which only a device needs.
    state_path: of the step what makes its next state, as open_state_path() has it, where the step
    reads prompts; else nothing.
    seconds: that reading, verifying and opening took.
    """

    bundle: Bundle
    precision: str
    sessions: Mapping[str, onnxruntime.InferenceSession]
    open_wide: Mapping[str, OpenSession] = field(default_factory=dict)
    rows: onnxruntime.InferenceSession | None = None
    state_path: Sequence[onnxruntime.InferenceSession] = ()
    seconds: float = 0.0

    @property
    def provider(self) -> str:
        for session in self.sessions.values():
            return str(session.get_providers()[0])
        return CPU_PROVIDER

    @property
    def device(self) -> str:
        """By onnxruntime's name."""
        return DEVICES[self.provider]


@dataclass(frozen=True)
class Repository:
    """A folder of bundles, and how their graphs are to be run."""

    root: Path
    settings: SessionSettings
    precisions: Precisions = Precisions()
    most_bytes: int = MOST_BUNDLE_BYTES

    def versions(self) -> dict[str, dict[int, Path]]:
        return all_versions(self.root)

    def load_newest(self) -> tuple[list[LoadedModel], list[RefusedModel]]:
        """Raises NoModels and DeviceUnavailable."""
        return load_models(self.root, self.settings, self.precisions, self.most_bytes)

    def differs(self, folder: Path, known: str | None) -> bool:
        """Whether load() would open a bundle that is not the ``known`` one; its manifest is read.

        Raises BundleError's kinds.
        """
        return digest_of(folder) != known

    def load(self, folder: Path, known: str | None = None) -> LoadedModel | None:
        """The bundle in ``folder``, verified and opened; None for one whose digest is ``known``.

        Raises BundleError's kinds, and DeviceUnavailable.
        """
        started = time.monotonic()
        bundle = read_checked(folder, self.most_bytes)
        if bundle.digest == known:
            return None
        loaded = open_bundle(bundle, self.settings, self.precisions)
        return replace(loaded, seconds=time.monotonic() - started)


def newest_versions(root: Path) -> list[Path]:
    """``root/NAME/VERSION`` with the highest whole-number VERSION of each NAME.

    Raises NoModels when there is none.
    """
    found = all_versions(root)
    if not found:
        raise NoModels(f"{root} holds no bundle (NAME/VERSION/manifest.json); give --models")
    return [versions[max(versions)] for versions in found.values()]


def all_versions(root: Path) -> dict[str, dict[int, Path]]:
    """Every ``root/NAME/VERSION`` whose VERSION is a whole number, by name and version.

    What a caller names is looked up here, so that no name leads out of ``root``.
    """
    found: dict[str, dict[int, Path]] = {}
    # The longest first: of 1 and 01, the one that is written as the manifest writes it counts.
    for folder in sorted(root.glob("*/*/"), key=lambda folder: (-len(folder.name), folder)):
        if folder.name.isdecimal() and not folder.parent.name.startswith("."):
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return dict(sorted(found.items()))


def read_checked(folder: Path, most_bytes: int = MOST_BUNDLE_BYTES) -> Bundle:
    """The bundle in ``folder``, which must be the one its place says.

    Raises BundleError's kinds.
    """
    failpoint("bundle.read")
    bundle = read_bundle(folder, most_bytes)
    manifest = bundle.manifest
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise ManifestInvalid(
            f"{folder} holds model {manifest.name!r} version {manifest.version}; "
            f"move it to {manifest.name}/{manifest.version}"
        )
    return bundle


def load_models(
    root: Path,
    settings: SessionSettings,
    precisions: Precisions | None = None,
    most_bytes: int = MOST_BUNDLE_BYTES,
) -> tuple[list[LoadedModel], list[RefusedModel]]:
    """Every model that can be served and every one that cannot, each on its own account.

    Raises NoModels, also for a model that ``precisions`` names and the folder lacks, and
    DeviceUnavailable when the device cannot run any of them.
    """
    precisions = precisions or Precisions()
    folders = newest_versions(root)
    _expect_named(root, folders, precisions)
    loaded, refused = [], []
    for folder in folders:
        try:
            started = time.monotonic()
            opened = open_bundle(read_checked(folder, most_bytes), settings, precisions)
            loaded.append(replace(opened, seconds=time.monotonic() - started))
        except BundleError as error:
            refused.append(RefusedModel(folder.parent.name, folder.name, str(error)))
    return loaded, refused


def _expect_named(root: Path, folders: list[Path], precisions: Precisions) -> None:
    names = sorted(folder.parent.name for folder in folders)
    missing = sorted(precisions.named.keys() - set(names))
    if missing:
        raise NoModels(
            f"--precision names the model {missing[0]!r}; {root} holds {', '.join(names)}"
        )


def open_bundle(bundle: Bundle, settings: SessionSettings, precisions: Precisions) -> LoadedModel:
    """Opens the graphs of the chosen precision and no others.

    Raises BundleError's kinds, and DeviceUnavailable.
    """
    manifest = bundle.manifest
    _check_step(bundle)
    precision = precisions.choose(manifest)
    if precision != FP32 and settings.provider != CPU_PROVIDER:
        raise ManifestInvalid(
            f"{manifest.name} is to run in {precision} on {settings.provider}, and {precision} "
            f"runs on the CPU alone; use --device cpu or --precision {manifest.name}={FP32}"
        )
    instead = manifest.precisions[precision].graphs if precision != FP32 else {}
    graphs = {role: instead.get(role, role) for role in _roles(manifest, "step" in instead)}
    narrow = replace(settings, threads=1)
    sessions = {role: open_session(bundle, graph, narrow) for role, graph in graphs.items()}
    wide = {
        role: _opener(bundle, graph, settings)
        for role, graph in graphs.items()
        if role in _WIDE and settings.threads > 1 and settings.provider == CPU_PROVIDER
    }
    loaded = _with_rows(LoadedModel(bundle, precision, sessions, wide), settings)
    if precision != FP32 and "step" in instead and "prime" not in graphs and manifest.state:
        loaded = replace(loaded, state_path=open_state_path(bundle, instead["step"], narrow))
    return replace(loaded, bundle=bundle.without_contents())


def _opener(bundle: Bundle, graph: str, settings: SessionSettings) -> OpenSession:
    """As LoadedModel.open_wide has it; keeps nothing of what the files hold."""
    folder, digest = bundle.folder, bundle.digest
    size = sum(spec.bytes for spec in bundle.manifest.files.values())

    def open_again() -> onnxruntime.InferenceSession:
        again = read_checked(folder, size)
        if again.digest != digest:
            raise BundleCorrupt(f"{folder} is no longer the bundle that was loaded; load it again")
        return open_session(again, graph, settings)

    return open_again


def _check_step(bundle: Bundle) -> None:
    """Raises ManifestInvalid for a step graph of a release before the present inputs."""
    graph = bundle.manifest.graphs.get("step")
    inputs = {port.name for port in graph.inputs} if graph else set()
    changed = set(STEP_INPUTS) - set(DENSE_STEP_INPUTS)
    if "seen" in inputs and not changed <= inputs:
        name = bundle.manifest.name
        raise ManifestInvalid(
            f"{bundle.folder}: its step graph is of an earlier release and lacks the inputs "
            f"{', '.join(sorted(changed - inputs))}; nothing need be trained again: "
            f"`python -m export {name} --bundle {bundle.folder} --models FOLDER` makes the graphs "
            "anew of its own weights"
        )


def _roles(manifest: Manifest, step_reads_prompts: bool) -> list[str]:
    spec = spec_of(manifest.task)
    optional = [role for role in spec.optional_graphs if role in manifest.graphs]
    if step_reads_prompts and "prime" in optional:
        optional.remove("prime")
    return [*spec.graphs, *optional]


def _with_rows(loaded: LoadedModel, settings: SessionSettings) -> LoadedModel:
    """``loaded``, and the graph that its streams' state needs where it lies on a device."""
    bundle = loaded.bundle
    if not bundle.manifest.state or loaded.provider == CPU_PROVIDER:
        return loaded
    if ROWS not in bundle.manifest.graphs:
        raise ManifestInvalid(
            f"{bundle.folder} has no graph {ROWS!r}, which moves streams between rows on "
            f"{loaded.device}; export the bundle again, or use --device cpu"
        )
    return replace(loaded, rows=open_session(bundle, ROWS, settings))
