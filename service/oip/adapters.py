"""Adapters: each model as inputs and outputs of the inference protocol, in two ways.

An adapter turns arrays into a model's own requests and its answers into arrays. What batches, steps
and keeps state is the engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.engine.errors import WrongInput
from service.oip.parameters import InferParameters
from service.oip.tensors import Array, TensorMetadata
from service.serving.inputs import MAX_TEXTS
from service.serving.model_info import ModelCard
from service.serving.named_states import NamedState

if TYPE_CHECKING:
    from service.oip.direct import DirectResponses

# What a model's name ends with for its second adapter.
TENSORS = ".tensors"
# The parameter that names a state which a request begins from.
STATE = "state"

Setting = str | int | float | bool


@dataclass(frozen=True)
class InferResult:
    """One response: the outputs in the adapter's order, and what is said beside them.

    is_last: whether it is the request's last one.
    """

    outputs: Mapping[str, Array]
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    is_last: bool = True


class ModelAdapter:
    """One way to call a model.

    max_batch: 0 for tensors without a batch dimension. settings_help: the parameters that it
    knows beside those of every request. is_decoupled: a request gets any number of responses.
    keeps_sequences: requests may go on from each other's state. state: of its inputs those that
    are the state of one; each comes out as ``next_NAME``. begins_from_states: a request may begin
    from a state that its caller keeps by name.
    """

    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    max_batch = MAX_TEXTS
    settings_help = "this model has none of its own"
    is_decoupled = False
    keeps_sequences = False
    begins_from_states = False
    reads_texts = False
    state: tuple[TensorMetadata, ...] = ()

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def settings(self, parameters: InferParameters) -> Any:
        """What the parameters say, as infer() wants it. Raises WrongInput."""
        return None

    def begun_from(self, settings: Any, state: NamedState) -> Any:
        """``settings`` of a request that begins from ``state``; where adapters do so."""
        raise NotImplementedError

    def inputs_of(self, settings: Any) -> Sequence[TensorMetadata]:
        """The inputs that a request of these settings has or may have."""
        return self.inputs

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        """The whole answer. Raises WrongInput, QueueFull or EngineFailed."""
        raise NotImplementedError

    async def rows_of(self, texts: Sequence[str]) -> Sequence[Any]:
        """What the model says to each text. Raises as infer()."""
        raise NotImplementedError

    def result_of(self, rows: Sequence[Any]) -> InferResult:
        """As infer() answers it."""
        raise NotImplementedError

    def raw_of(self, rows: Sequence[Any]) -> Mapping[str, bytes]:
        """The raw contents of result_of()'s outputs."""
        raise NotImplementedError

    def said_of(self, rows: Sequence[Any]) -> Mapping[str, Setting]:
        """The parameters of result_of()."""
        raise NotImplementedError

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        """What the whole answer takes at most while it is made; 0 where its request is larger."""
        return 0

    def stream(
        self,
        inputs: Mapping[str, Array],
        settings: Any,
        direct: DirectResponses | None = None,
    ) -> AsyncGenerator[InferResult, None]:
        """The answer as it is made, of an adapter that is decoupled. Raises as infer().

        direct: takes what may leave at once, between those that are yielded.
        """
        raise NotImplementedError

    async def go_on(
        self, inputs: Mapping[str, Array], settings: Any, state: Any
    ) -> tuple[InferResult, Any]:
        """The answer after ``state`` (None: the first), and the state after it.

        Of an adapter that keeps sequences. Raises as infer().
        """
        raise NotImplementedError

    def batch(self, inputs: Mapping[str, Array]) -> int:
        """Rows of the request; 1 without a batch dimension. Raises WrongInput."""
        if not self.max_batch:
            return 1
        sizes = {name: len(array) for name, array in inputs.items()}
        first = next(iter(sizes), None)
        if first is None:
            raise WrongInput(
                f"the request has no inputs; send some of {', '.join(p.name for p in self.inputs)}"
            )
        for name, size in sizes.items():
            if size != sizes[first]:
                raise WrongInput(
                    f"input {name!r} has {size} rows, input {first!r} has {sizes[first]}; the "
                    "batch is one for all"
                )
        if sizes[first] > self.max_batch:
            raise WrongInput(
                f"input {first!r} has {sizes[first]} rows; send at most {self.max_batch}"
            )
        return sizes[first]


class about:
    """Within it, refusals of the model name the tensor that they are about."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, WrongInput):
            raise WrongInput(f"input {self._name!r}: {error}") from error


def base_name(name: str) -> str:
    """Of the model, whichever adapter ``name`` stands for."""
    return name.removesuffix(TENSORS)
