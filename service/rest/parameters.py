"""Parameters between JSON and the protocol's messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from service.rest.json_body import Object, checked_text, quoted, refuse
from unroll.inference import grpc_service_pb2 as pb

_INT64, _UINT64 = 2**63, 2**64
# MLServer's clients say with it which of its codecs made a tensor; the tensor itself says all that
# is needed here.
_HINT = "content_type"


def set_parameters(into: Mapping[str, pb.InferParameter], given: Object, what: str = "") -> None:
    """Each by its own kind; lists and objects as JSON in a string, as models read them.

    Raises WrongInput.
    """
    for name, value in given.items():
        if name != _HINT:
            _set(into[checked_text(name, f"{what}a parameter's name")], f"{what}{name!r}", value)


def _set(parameter: pb.InferParameter, what: str, value: Any) -> None:
    what = f"parameter {what}"
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, str):
        parameter.string_param = checked_text(value, what)
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, int):
        _set_whole(parameter, what, value)
    elif isinstance(value, list | dict):
        parameter.string_param = json.dumps(value)
    else:
        refuse(what, value, "a value, or leave it out")


def _set_whole(parameter: pb.InferParameter, what: str, value: int) -> None:
    if -_INT64 <= value < _INT64:
        parameter.int64_param = value
    elif 0 < value < _UINT64:
        parameter.uint64_param = value
    else:
        refuse(what, value, "a whole number of 64 bits")


def values_of(parameters: Mapping[str, pb.InferParameter]) -> Object:
    return {
        name: getattr(parameter, parameter.WhichOneof("parameter_choice"))
        for name, parameter in sorted(parameters.items())
    }


def set_repository_parameters(
    into: Mapping[str, pb.ModelRepositoryParameter], given: Object
) -> None:
    """Raises WrongInput."""
    for name, value in given.items():
        parameter = into[checked_text(name, "a parameter's name")]
        what = f"parameter {quoted(name)}"
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, str):
            parameter.string_param = checked_text(value, what)
        elif isinstance(value, int) and -_INT64 <= value < _INT64:
            parameter.int64_param = value
        else:
            refuse(what, value, "a string, a whole number or a truth")
