"""Outcome codes of requests, for any transport: those of google.rpc.Code.

A front end maps these to its own: gRPC to its statuses of the same names and numbers.
"""

from __future__ import annotations

from enum import IntEnum

from service.engine.errors import (
    ConstraintFailed,
    ControlDisabled,
    EngineFailed,
    MessageTooLarge,
    ModelNotFound,
    ModelRefused,
    NotFinite,
    NotOffered,
    Overloaded,
    PermissionDenied,
    QueueFull,
    ReaderStalled,
    RequestError,
    ResumeInvalid,
    ResumeRefused,
    ServiceStopping,
    StateExists,
    StateNotFound,
    StateRefused,
    TimedOut,
    TooManyStates,
    Unauthenticated,
    WrongInput,
)


class Code(IntEnum):
    """Numbers and names of google/rpc/code.proto."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CODES: dict[type[RequestError], Code] = {
    Unauthenticated: Code.UNAUTHENTICATED,
    PermissionDenied: Code.PERMISSION_DENIED,
    ModelNotFound: Code.NOT_FOUND,
    ModelRefused: Code.FAILED_PRECONDITION,
    ControlDisabled: Code.FAILED_PRECONDITION,
    WrongInput: Code.INVALID_ARGUMENT,
    MessageTooLarge: Code.RESOURCE_EXHAUSTED,
    ConstraintFailed: Code.INTERNAL,
    ResumeInvalid: Code.INVALID_ARGUMENT,
    ResumeRefused: Code.FAILED_PRECONDITION,
    StateNotFound: Code.NOT_FOUND,
    StateExists: Code.ALREADY_EXISTS,
    StateRefused: Code.FAILED_PRECONDITION,
    TooManyStates: Code.RESOURCE_EXHAUSTED,
    ReaderStalled: Code.ABORTED,
    QueueFull: Code.RESOURCE_EXHAUSTED,
    Overloaded: Code.RESOURCE_EXHAUSTED,
    TimedOut: Code.DEADLINE_EXCEEDED,
    NotOffered: Code.UNIMPLEMENTED,
    ServiceStopping: Code.UNAVAILABLE,
    EngineFailed: Code.INTERNAL,
    NotFinite: Code.INTERNAL,
}


def code_of(error: RequestError) -> Code:
    return _CODES[type(error)]
