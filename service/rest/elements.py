"""Elements of a tensor between JSON and what a message holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.oip.tensors import Datatype, raw_of
from service.rest.json_body import checked_text, quoted

_KINDS: dict[str, tuple[frozenset[type], str]] = {
    "?": (frozenset((bool,)), "true or false"),
    "i": (frozenset((int,)), "whole numbers"),
    "u": (frozenset((int,)), "whole numbers from 0"),
    "f": (frozenset((int, float, type(None))), "numbers"),
    "O": (frozenset((str,)), "strings"),
}


def flattened(data: list[Any], shape: Sequence[int], what: str) -> list[Any]:
    """In row-major order, of a flat list or of one nested as ``shape``. Raises WrongInput."""
    level, axis = data, 0
    while level and isinstance(level[0], list):
        axis += 1
        size = shape[axis] if axis < len(shape) else None
        if not all(isinstance(row, list) and len(row) == size for row in level):
            raise WrongInput(
                f"{what} has data that is not nested as its shape {list(shape)}; send it so, or "
                "as one flat list"
            )
        level = list(chain.from_iterable(level))
    return level


def elements_of(datatype: Datatype, values: list[Any], what: str) -> list[Any]:
    """As a message's typed contents take them: texts as bytes, null among numbers with a fraction
    as NaN. Raises WrongInput."""
    if not datatype.contents:
        raise WrongInput(
            f"{what} is {datatype.name}, which JSON does not hold; send it as binary data"
        )
    kinds, wanted = _KINDS[np.dtype(datatype.dtype).kind if datatype.dtype != "?" else "?"]
    if not kinds.issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) not in kinds)
        raise WrongInput(f"{what} is {datatype.name} and holds {quoted(wrong)}; send {wanted}")
    if datatype.name == "BYTES":
        return _encoded(values, what)
    if None in values:
        values = [math.nan if value is None else value for value in values]
    if values and datatype.dtype != "?":
        _check_range(datatype, values, what)
    return values


def _encoded(values: list[str], what: str) -> list[bytes]:
    try:
        return [value.encode() for value in values]
    except UnicodeEncodeError:
        for number, value in enumerate(values):
            checked_text(value, f"{what}: element {number}")
        raise


def _check_range(datatype: Datatype, values: list[Any], what: str) -> None:
    dtype = np.dtype(datatype.dtype)
    if dtype.kind == "f":
        wrong = _first_beyond(values, float(np.finfo(dtype).max))
    else:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if least <= min(values) and max(values) <= most:
            return
        wrong = next(value for value in values if not least <= value <= most)
    if wrong is not None:
        raise WrongInput(f"{what} is {datatype.name} and holds {quoted(wrong)}, which is beyond it")


def _first_beyond(values: list[Any], most: float) -> Any:
    """NaN and infinities are what they are; anything else must not become one. None for none."""
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        return next(value for value in values if isinstance(value, int) and abs(value) > most)
    beyond = np.isfinite(array) & (np.abs(array) > most)
    return values[int(beyond.argmax())] if beyond.any() else None


def raw_elements(datatype: Datatype, elements: list[Any]) -> bytes:
    """Elements that were checked, as they come in binary."""
    if datatype.name == "BYTES":
        array = np.empty(len(elements), object)
        array[:] = elements
        return raw_of(array)
    return raw_of(np.array(elements, datatype.dtype))


def texts(elements: Sequence[bytes]) -> list[str]:
    """For JSON, which holds no other bytes than UTF-8: what is none is replaced."""
    return [element.decode("utf8", "replace") for element in elements]
