"""The registry of served models by name and version, and of refused bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from service.engine.errors import ModelNotFound, ModelRefused, WrongInput
from service.refused_model import RefusedModel
from service.serving.model_version import Call, ServedVersion
from service.serving.served_model import ServedModel

Kind = TypeVar("Kind", bound=ServedModel)
Part = TypeVar("Part")


class ModelRegistry:
    """Which versions of each model are served now. Used and changed by the event loop alone."""

    def __init__(self) -> None:
        self._served: dict[str, dict[int, ServedVersion]] = {}
        self._refused: dict[str, list[RefusedModel]] = {}
        self._known: set[str] = set()
        self._withdrawn: set[str] = set()

    @property
    def served(self) -> list[ServedVersion]:
        """By name and version."""
        return [
            versions[number]
            for _, versions in sorted(self._served.items())
            for number in sorted(versions)
        ]

    @property
    def models(self) -> list[ServedModel]:
        return [served.model for served in self.served]

    @property
    def refused(self) -> tuple[RefusedModel, ...]:
        """Found and not loaded, by name."""
        return tuple(bundle for name in sorted(self._refused) for bundle in self._refused[name])

    def knows(self, name: str) -> bool:
        """Whether a model of this name is or was served."""
        return name in self._known

    def versions(self, name: str) -> list[str]:
        """The served ones, ascending."""
        return [str(number) for number in sorted(self._served.get(name, {}))]

    def was_unloaded(self, name: str) -> bool:
        return name in self._withdrawn

    def refused_of(self, name: str) -> list[RefusedModel]:
        return list(self._refused.get(name, ()))

    # -- changes -------------------------------------------------------------------------------

    def replace(self, name: str, versions: Sequence[ServedVersion]) -> None:
        """From now on these are served; who uses another one finishes on that."""
        before = self._served.get(name, {})
        now = {int(served.version): served for served in versions}
        self._served[name] = now
        self._known.add(name)
        self._withdrawn.discard(name)
        for served in before.values():
            if served not in now.values():
                served.retire()

    def withdraw(self, name: str) -> None:
        """Unload: nobody new is served; whoever waits for that wakes."""
        self._withdrawn.add(name)
        for served in self._served.pop(name, {}).values():
            served.withdraw()

    def refuse(self, name: str, refused: Sequence[RefusedModel]) -> None:
        """From now on these versions of ``name`` are the ones that could not be loaded."""
        self._refused.pop(name, None)
        if refused:
            self._refused[name] = list(refused)
            self._withdrawn.discard(name)

    # -- look-ups ------------------------------------------------------------------------------

    def get(self, name: str, version: str = "") -> ServedModel:
        """As find(), without a lease: for what is read at once."""
        return self.find(name, version).model

    def find(self, name: str, version: str = "") -> ServedVersion:
        """version: empty for the highest one.

        Raises ModelRefused for a bundle that could not be loaded, else ModelNotFound.
        """
        versions = self._served.get(name)
        if not versions:
            raise self._missing(name)
        if version == "":
            return versions[max(versions)]
        for served in versions.values():
            if served.version == version:
                return served
        raise self._missing_version(name, version)

    def call(
        self, kind: type[Kind], name: str, version: str = ""
    ) -> AbstractContextManager[Call[Kind]]:
        """One request to a model of this kind.

        Raises WrongInput for a model of another one, beside what find() raises.
        """
        served = self.find(name, version)
        return served.call_of(_expect(kind, served.model))

    def call_of_part(
        self, kind: type[Kind], part: Callable[[Kind], Part], name: str, version: str = ""
    ) -> AbstractContextManager[Call[Part]]:
        """As call(), of what ``part`` takes of the model; raises what that raises, too."""
        served = self.find(name, version)
        return served.call_of(part(_expect(kind, served.model)))

    def _missing(self, name: str) -> ModelNotFound | ModelRefused:
        if name in self._withdrawn:
            return ModelNotFound(f"model {name!r} was unloaded; load it, then ask again")
        for refused in self._refused.get(name, ()):
            return ModelRefused(f"model {name!r} was not loaded: {refused.reason}")
        known = ", ".join(sorted(self._served)) or "none"
        return ModelNotFound(f"no model {name!r}; served are: {known}")

    def _missing_version(self, name: str, version: str) -> ModelNotFound | ModelRefused:
        for refused in self._refused.get(name, ()):
            if refused.version == version:
                return ModelRefused(
                    f"version {version} of model {name!r} was not loaded: {refused.reason}"
                )
        served = " and ".join(repr(number) for number in self.versions(name))
        return ModelNotFound(
            f"model {name!r} is served in version {served}, not {version!r}; "
            "leave the version empty for the newest that is served"
        )


def _expect(kind: type[Kind], model: ServedModel) -> Kind:
    if not isinstance(model, kind):
        raise WrongInput(f"model {model.card.name!r} does not {kind.does}; call {model.calls}")
    return model
