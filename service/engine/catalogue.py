"""The models that are served, by name, and the bundles that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.engine.errors import ModelNotFound, ModelRefused, WrongInput
from service.engine.filling import FillModel
from service.engine.models import ClassifierModel, GeneratorModel
from service.engine.tag_streams import TagStreams
from service.engine.tagging import TaggerModel

ServedModel = ClassifierModel | TaggerModel | FillModel | GeneratorModel
Kind = TypeVar("Kind", ClassifierModel, TaggerModel, FillModel, GeneratorModel)


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
        return self._of(ClassifierModel, "classify", name, version)

    def tagger(self, name: str, version: str = "") -> TaggerModel:
        return self._of(TaggerModel, "tag", name, version)

    def tag_streams(self, name: str, version: str = "") -> TagStreams:
        """Raises WrongInput for a tagger that cannot label a token before the next one, too."""
        stream: TagStreams | None = self.tagger(name, version).stream
        if stream is None:
            raise WrongInput(
                f"model {name!r} needs the tokens to the right of each, too; call Tag with all of "
                "them"
            )
        return stream

    def filler(self, name: str, version: str = "") -> FillModel:
        return self._of(FillModel, "fill blanks", name, version)

    def generator(self, name: str, version: str = "") -> GeneratorModel:
        return self._of(GeneratorModel, "generate", name, version)

    def _of(self, kind: type[Kind], does: str, name: str, version: str) -> Kind:
        """Raises WrongInput for a model of another kind, beside what get() raises."""
        model = self.get(name, version)
        if not isinstance(model, kind):
            raise WrongInput(f"model {name!r} does not {does}; call {_calls_of(model)}")
        return model

    def _missing(self, name: str) -> ModelNotFound | ModelRefused:
        for refused in self.refused:
            if refused.name == name:
                return ModelRefused(f"model {name!r} was not loaded: {refused.reason}")
        known = ", ".join(sorted(self._models)) or "none"
        return ModelNotFound(f"no model {name!r}; served are: {known}")


def _calls_of(model: ServedModel) -> str:
    if isinstance(model, TaggerModel):
        return "Tag or StreamTag" if model.card.streams_tags else "Tag"
    if isinstance(model, GeneratorModel):
        return "Generate or Score"
    return "Classify" if isinstance(model, ClassifierModel) else "Fill"
