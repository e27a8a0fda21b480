"""The models that are served, by name, and the bundles that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.errors import ModelNotFound, ModelRefused, WrongInput
from service.engine.models import ClassifierModel, GeneratorModel, ServedModel


@dataclass(frozen=True)
class RefusedModel:
    name: str
    version: str
    reason: str


class Catalogue:
    """One version of each model."""

    def __init__(self, models: Sequence[ServedModel], refused: Sequence[RefusedModel] = ()) -> None:
        self._models = {model.card.name: model for model in models}
        self.refused = tuple(refused)

    @property
    def models(self) -> list[ServedModel]:
        return [self._models[name] for name in sorted(self._models)]

    def get(self, name: str, version: str = "") -> ServedModel:
        """Raises ModelRefused for a bundle that could not be loaded, else ModelNotFound."""
        model = self._models.get(name)
        if model is None:
            raise self._missing(name)
        if version not in ("", model.card.version):
            raise ModelNotFound(
                f"model {name!r} is served in version {model.card.version!r}, not {version!r}; "
                "leave the version empty for the one that is served"
            )
        return model

    def classifier(self, name: str, version: str = "") -> ClassifierModel:
        model = self.get(name, version)
        if not isinstance(model, ClassifierModel):
            raise WrongInput(f"model {name!r} does not classify; call Generate or Score")
        return model

    def generator(self, name: str, version: str = "") -> GeneratorModel:
        model = self.get(name, version)
        if not isinstance(model, GeneratorModel):
            raise WrongInput(f"model {name!r} does not generate; call Classify")
        return model

    def _missing(self, name: str) -> ModelNotFound | ModelRefused:
        for refused in self.refused:
            if refused.name == name:
                return ModelRefused(f"model {name!r} was not loaded: {refused.reason}")
        known = ", ".join(sorted(self._models)) or "none"
        return ModelNotFound(f"no model {name!r}; served are: {known}")
