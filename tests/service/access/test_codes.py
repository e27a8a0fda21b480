"""Every domain error has a code, and gRPC has a status of the same name and number."""

import grpc
import pytest

from service.access.codes import Code, code_of
from service.engine import errors
from service.engine.errors import RequestError
from service.grpc.errors import _STATUSES

# What is never raised itself: only its kinds are.
ABSTRACT = {errors.TryLater}


def kinds(of=RequestError):
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()) - ABSTRACT, key=lambda kind: kind.__name__))
def test_every_error_has_a_code_of_its_own_kind(kind):
    error = kind("why", 1.0) if issubclass(kind, errors.TryLater) else kind("why")
    assert code_of(error) not in (Code.OK, Code.UNKNOWN, Code.CANCELLED)


def test_codes_are_grpcs_by_name_and_number():
    assert {(code.name, code.value) for code in Code} == {
        (status.name, status.value[0]) for status in grpc.StatusCode
    }
    assert all(_STATUSES[code].value[0] == code.value for code in Code)
