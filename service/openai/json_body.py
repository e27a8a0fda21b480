"""JSON from callers: an object, or a refusal that says why not."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from service.engine.errors import WrongInput

# What begins another value: a body may hold so many of these, wherever they stand, as many as the
# longest prompt and some more. A megabyte of empty lists would be read as a hundred.
_SEPARATORS = b",[{"
_MOST_SEPARATORS = 140_000


def read_object(data: bytes) -> dict[str, Any]:
    """Raises WrongInput. Numbers are finite; of a name that comes twice, the last one counts."""
    count = sum(map(data.count, (bytes((each,)) for each in _SEPARATORS)))
    if count > _MOST_SEPARATORS:
        raise WrongInput(
            f"the body holds more than {_MOST_SEPARATORS} commas and brackets; send less at once"
        )
    try:
        content = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise WrongInput("the body is nested too deeply; send a flat JSON object") from None
    except ValueError as error:
        raise WrongInput(f"the body cannot be read as JSON ({error}); send an object") from None
    if not isinstance(content, dict):
        raise WrongInput('the body is no JSON object; send one, such as {"model": …}')
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
