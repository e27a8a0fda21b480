"""Values of model control: loading and unloading while the service runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from service.engine.errors import WrongInput

READY = "READY"
LOADING = "LOADING"
UNLOADING = "UNLOADING"
UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class VersionPolicy:
    """Which of a model's versions are to be served.

    specific: these, where there are any; else all of them, or the ``latest`` so many.

    Raises WrongInput for a ``latest`` below 1.
    """

    latest: int = 1
    all: bool = False
    specific: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.latest < 1:
            raise WrongInput(f"the latest {self.latest} versions are none; ask for at least 1")

    def choose(self, versions: Iterable[int]) -> list[int]:
        """Those of ``versions`` that are to be served, ascending; none that is not there."""
        ascending = sorted(versions)
        if self.specific:
            return [version for version in ascending if version in self.specific]
        return ascending if self.all else ascending[-self.latest :]

    def as_json(self) -> dict[str, Any]:
        return {"latest": self.latest, "all": self.all, "specific": list(self.specific)}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        return cls(found["latest"], found["all"], tuple(found["specific"]))

    def __str__(self) -> str:
        if self.specific:
            return f"versions {', '.join(map(str, sorted(self.specific)))}"
        return "all versions" if self.all else f"the latest {self.latest}"


@dataclass(frozen=True)
class IndexEntry:
    """state: one of the above. reason: why it is not ready; of a ready one, what it lacks."""

    name: str
    version: str
    state: str
    reason: str = ""


class Control(Protocol):
    """Who loads and unloads models."""

    async def load(self, name: str, policy: VersionPolicy | None = None) -> None:
        """Serve the versions that ``policy`` chooses; without one, by the policy last given.

        Raises ModelNotFound, ModelRefused (then what was served still is), WrongInput,
        QueueFull, Overloaded while too many versions are in use, ControlDisabled or
        ServiceStopping.
        """

    async def unload(self, name: str) -> None:
        """Serve no version of it; returns once the calls that were under way are done.

        Raises ModelNotFound, QueueFull, ControlDisabled or ServiceStopping.
        """

    def index(self) -> Sequence[IndexEntry]:
        """Every version that is served or lies in the models folder."""
