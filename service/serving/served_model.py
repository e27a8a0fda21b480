"""The base of served models: card, and the error for calls that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from service.engine.errors import WrongInput
from service.serving.model_info import ModelCard

if TYPE_CHECKING:
    from service.serving.embedder import Embedder
    from service.serving.named_states import StateMaker
    from service.serving.stepper import StepperModel


class ServedModel:
    """One loaded model; each task derives its own and gives it the methods that callers await.

    does: what those do, as in "model 'g2p' does not classify".
    """

    does: ClassVar[str] = "answer this call"

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    @property
    def calls(self) -> str:
        """The calls that it answers, for a caller who tried another one."""
        return "ModelInfer"

    @property
    def frame_stepper(self) -> StepperModel:
        """Raises WrongInput for a model that is not stepped over numbers."""
        raise WrongInput(f"model {self.card.name!r} does not step over numbers; call {self.calls}")

    @property
    def state_maker(self) -> StateMaker:
        """Raises WrongInput for a model whose streams begin from no state."""
        raise WrongInput(f"model {self.card.name!r} does not go on from a state; name another one")

    @property
    def embedder(self) -> Embedder:
        """Raises WrongInput for a model that does not embed texts."""
        raise WrongInput(
            f"model {self.card.name!r} does not embed: that takes one that reads texts and carries "
            f"a state, as Model.embeds says; call {self.calls}"
        )
