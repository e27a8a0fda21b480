"""How tokens are drawn: one line declares a parameter, everything else derives from it.

The keywords of ``generate``, ``Sampling``, the message of unroll.v1 and the options of the command
line are made of ``SamplingKeywords``; a name here is the name of the field in ``pb.Sampling``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypedDict, Unpack, get_type_hints

from unroll.v1 import unroll_pb2 as pb


@dataclass(frozen=True)
class Flag:
    """An option of the command line. help: noun phrase. parse: of its text.

    metavar: placeholder of the value; None for that of a number.
    """

    help: str
    parse: Callable[[str], Any] = float
    metavar: str | None = None


def _ids(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _biases(text: str) -> dict[int, float]:
    pairs = (pair.split("=") for pair in text.split(","))
    return {int(number): float(bias) for number, bias in pairs}


class SamplingKeywords(TypedDict, total=False):
    """Parameters of sampling; one that is left out or None takes the model's default."""

    temperature: Annotated[float | None, Flag("sampling temperature; 0 = most probable token")]
    top_k: Annotated[int | None, Flag("number of most probable tokens to draw from; 0 = all", int)]
    top_p: Annotated[float | None, Flag("cumulative probability to draw from; 1 = all tokens")]
    seed: Annotated[int | None, Flag("seed of the draws; default: one of the server's", int)]
    min_p: Annotated[float | None, Flag("least probability, as a share of the largest; 0 = all")]
    typical_p: Annotated[
        float | None, Flag("mass of the most typical tokens to draw from; 1 = all")
    ]
    repetition_penalty: Annotated[
        float | None, Flag("divisor of the logits of tokens seen in prompt or output; 1 = none")
    ]
    frequency_penalty: Annotated[
        float | None, Flag("logit penalty of a token for each time it was made, -2 to 2")
    ]
    presence_penalty: Annotated[
        float | None, Flag("logit penalty of a token that was made at all, -2 to 2")
    ]
    logit_bias: Annotated[
        Mapping[int, float], Flag("addends to logits by token id", _biases, "ID=BIAS,…")
    ]
    allowed_tokens: Annotated[Sequence[int], Flag("ids of the only tokens drawn", _ids, "ID,…")]
    banned_tokens: Annotated[Sequence[int], Flag("ids of tokens never drawn", _ids, "ID,…")]


FLAGS: Mapping[str, Flag] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(SamplingKeywords, include_extras=True).items()
}


class Sampling:
    """How tokens are drawn: the keywords of ``generate`` as one value.

    Every parameter is an attribute, None where it was left out. Each is explained at its field of
    ``Sampling`` in proto/unroll/v1/unroll.proto. Raises TypeError for a name that is none.
    """

    def __init__(self, **parameters: Unpack[SamplingKeywords]) -> None:
        for name in parameters:
            if name not in FLAGS:
                raise TypeError(f"no sampling parameter {name!r}; there are {', '.join(FLAGS)}")
        self.__dict__.update(dict.fromkeys(FLAGS), **parameters)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Sampling does not change; replace() makes another one")

    def replace(self, **parameters: Unpack[SamplingKeywords]) -> Sampling:
        """Another one, with ``parameters`` in place of its own."""
        return Sampling(**{**self.parameters, **parameters})

    @property
    def parameters(self) -> dict[str, Any]:
        """Those that were chosen, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def to_message(self) -> pb.Sampling:
        """Raises ValueError for a number its field cannot hold."""
        return pb.Sampling(**self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sampling) and self.parameters == other.parameters

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Sampling({', '.join(f'{n}={v!r}' for n, v in self.parameters.items())})"
