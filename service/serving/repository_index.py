"""The repository index: the state of each version of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.refused_model import RefusedModel
from service.serving.control_types import (
    LOADING,
    READY,
    UNAVAILABLE,
    UNLOADING,
    IndexEntry,
    VersionPolicy,
)
from service.serving.model_version import ServedVersion


@dataclass(frozen=True)
class VersionFacts:
    """All that is known of one model.

    on_disk: versions in the models folder. live: those whose engines run. loading: those that
    are being loaded. refused: by version. policy: what the next load would go by.
    """

    on_disk: Collection[int]
    live: Sequence[ServedVersion]
    loading: Collection[int]
    refused: Mapping[str, RefusedModel]
    policy: VersionPolicy
    was_unloaded: bool


def index_of(name: str, known: VersionFacts) -> Iterator[IndexEntry]:
    """One entry a version, ascending."""
    for number in sorted({*known.on_disk, *(int(served.version) for served in known.live)}):
        yield IndexEntry(name, str(number), *_state(number, known))


def _state(number: int, known: VersionFacts) -> tuple[str, str]:
    """The state, and its reason."""
    version = str(number)
    live = [served for served in known.live if served.version == version]
    served = next((served for served in live if not served.is_retired), None)
    refused = known.refused.get(version)
    if served and not served.has_failed:
        return READY, f"what lies there now was refused: {refused.reason}" if refused else ""
    if number in known.loading:
        return LOADING, ""
    if served:
        return UNAVAILABLE, "its engine failed; see the server's log, and load it again"
    if live:
        return UNLOADING, "calls that began on it are finishing"
    return UNAVAILABLE, refused.reason if refused else _why_absent(number, known)


def _why_absent(number: int, known: VersionFacts) -> str:
    if number not in known.policy.choose(known.on_disk):
        return f"not chosen by the version policy, {known.policy}"
    return "unloaded" if known.was_unloaded else "not loaded; load the model to have it served"
