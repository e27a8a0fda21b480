"""A request's parameters, which may come as number, integer or text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from service.engine.errors import WrongInput
from unroll.inference import grpc_service_pb2 as pb

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class InferParameters:
    """Each is taken once; what is left at the end was unknown.

    Every method raises WrongInput, with the parameter's name, for what it cannot read.
    """

    def __init__(self, given: Mapping[str, pb.InferParameter]) -> None:
        self._left = {name: _value(name, parameter) for name, parameter in given.items()}

    def take(self, name: str) -> Any:
        """As it came; None for none."""
        return self._left.pop(name, None)

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if isinstance(value, bool) or not math.isfinite(found):
            raise WrongInput(f"parameter {name!r} is {value!r}; send a finite number")
        return found

    def whole(self, name: str, most: int = 2**32 - 1) -> int | None:
        """A whole number from 0 to ``most``; 5.0 and "5" are 5."""
        value = self.take(name)
        if value is None:
            return None
        found = _whole(value)
        if found is None or not 0 <= found <= most:
            raise WrongInput(
                f"parameter {name!r} is {value!r}; send a whole number from 0 to {most}"
            )
        return found

    def text(self, name: str) -> str:
        """Empty for none."""
        value = self.take(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise WrongInput(f"parameter {name!r} is {value!r}; send a text")
        return value

    def flag(self, name: str) -> bool:
        """False for none."""
        value = self.take(name)
        text = str(value).lower()
        if value is None or text in _FALSE:
            return False
        if text not in _TRUE:
            raise WrongInput(f"parameter {name!r} is {value!r}; send true or false")
        return True

    def refuse_rest(self, known: str) -> None:
        """known: what else there is, for the message. Raises WrongInput for what is left."""
        if self._left:
            raise WrongInput(f"parameter {next(iter(self._left))!r} is unknown; {known}")


def _value(name: str, parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise WrongInput(f"parameter {name!r} has no value; set one or leave it out")
    return getattr(parameter, kind)


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, float):
            return int(value) if value.is_integer() else None
        return int(value)
    except (ValueError, OverflowError):
        return None
