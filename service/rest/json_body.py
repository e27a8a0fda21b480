"""JSON of callers: read within bounds, and every value checked before it becomes a message's.

Errors quote scalars alone, cut short: what is nested may be too deep to be written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from service.engine.errors import WrongInput
from service.serving.inputs import MAX_REQUEST_CHARACTERS

Object = dict[str, Any]

# What Python makes of a body, in bytes: of each of its own, decoded and as part of a text; and of
# each value, list and object with the pairs that it is made of. Measured with tracemalloc on the
# dearest bodies, in tests/service/rest/test_json_body.py.
_BYTE_BYTES, _VALUE_BYTES, _LIST_BYTES, _OBJECT_BYTES = 8, 96, 96, 480
# Lists are made by C in one go, for which every thread waits: as many as a text may have brackets.
_MOST_LISTS = MAX_REQUEST_CHARACTERS
_MOST_QUOTED = 80
# Elements that are written in one go, for the same reason.
_PART_ELEMENTS = 4096
_INT64 = 2**63


def parsed_bytes(body: bytes) -> int:
    """Upper bound of what ``body`` takes while it is read, in bytes."""
    return (
        _BYTE_BYTES * len(body)
        + _VALUE_BYTES * body.count(b",")
        + _LIST_BYTES * body.count(b"[")
        + _OBJECT_BYTES * body.count(b"{")
    )


def read_object(body: bytes) -> Object:
    """The one object that a body is; an empty body is an empty one.

    NaN, Infinity and -Infinity are numbers, as for Triton. Raises WrongInput, for a name that
    comes twice and for a number beyond a double, too.
    """
    if not body:
        return {}
    if (lists := body.count(b"[")) > _MOST_LISTS:
        raise WrongInput(
            f"the request holds {lists} lists; send at most {_MOST_LISTS}, such as flat data"
        )
    try:
        found = json.loads(
            str(body, "utf8"), object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise WrongInput(f"the request is not JSON ({error}); send an object") from error
    if not isinstance(found, dict):
        raise WrongInput(f"the request is {quoted(found)}; send a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> Object:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise WrongInput(f"the name {quoted(name)} comes twice in an object; send it once")
            seen.add(name)
    return found


# Both are functions of Python's, so that other threads get their turn between numbers.
def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise WrongInput(f"the number {text[:_MOST_QUOTED]} is beyond what a double holds")
    return value


def _whole(text: str) -> int:
    # Python's own limit, beyond which int() says something of the interpreter's settings.
    if len(text) > 400:
        raise WrongInput(f"the number {text[:_MOST_QUOTED]}… is beyond what a double holds")
    return int(text)


def quoted(value: Any) -> str:
    """What a value is, for an error's message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}…"


def refuse(what: str, value: Any, wanted: str) -> NoReturn:
    """Raises WrongInput."""
    raise WrongInput(f"{what} is {quoted(value)}; send {wanted}")


def member(found: Object, name: str, kind: type, wanted: str, what: str = "") -> Any:
    """The value of ``name``; None where there is none, or null. Raises WrongInput for another
    kind."""
    value = found.get(name)
    if value is not None and type(value) is not kind:
        refuse(f"{what}{name!r}", value, wanted)
    return value


def text(found: Object, name: str, what: str = "") -> str:
    """Empty for none. Raises WrongInput."""
    value = member(found, name, str, "a string", what)
    return "" if value is None else checked_text(value, f"{what}{name!r}")


def checked_text(value: str, what: str) -> str:
    """Raises WrongInput for what no UTF-8 is: half of a pair of surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongInput(f"{what} holds half of a surrogate pair; send whole characters") from error
    return value


def objects(found: Object, name: str) -> list[Object]:
    """A list of objects; empty for none. Raises WrongInput."""
    every = member(found, name, list, "a list of objects") or []
    for number, value in enumerate(every):
        if not isinstance(value, dict):
            refuse(f"{name}[{number}]", value, "an object")
    return every


def nested(found: Object, name: str, what: str = "") -> Object:
    """An object; empty for none. Raises WrongInput."""
    return member(found, name, dict, "an object", what) or {}


def shape(found: Object, what: str) -> list[int]:
    """Raises WrongInput."""
    sizes: list[int] | None = member(found, "shape", list, "a list of whole numbers", what)
    if sizes is None:
        raise WrongInput(f"{what}'shape' is missing; send a list of whole numbers")
    for size in sizes:
        if type(size) is not int or not -_INT64 <= size < _INT64:
            raise WrongInput(f"{what}'shape' holds {quoted(size)}; send whole numbers of 64 bits")
    return sizes


def only(found: Object, known: Iterable[str], what: str = "the request") -> None:
    """Raises WrongInput for a name that is not known."""
    names = tuple(known)
    for name in found:
        if name not in names:
            raise WrongInput(
                f"{what} has the unknown name {quoted(name)}; known are {', '.join(names)}"
            )


def written_list(parts: Iterable[list[Any]]) -> bytes:
    """The elements of all parts as one list."""
    return b"[%b]" % b",".join(written(part)[1:-1] for part in parts if part)


def parts_of(values: Any) -> Iterator[Any]:
    """Slices of anything that has them, each small enough to be written in one go."""
    for place in range(0, len(values), _PART_ELEMENTS):
        yield values[place : place + _PART_ELEMENTS]


def written(value: Any) -> bytes:
    """As JSON in UTF-8. NaN and infinities as Triton has them: NaN, Infinity, -Infinity."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf8", "replace")
