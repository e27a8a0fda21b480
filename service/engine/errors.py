"""Why a request cannot be served. No transport's codes here: service/access/codes.py maps them.

RequestError
├── Unauthenticated    it does not say whose it is, or nobody is known by that
├── PermissionDenied   its caller is known and may not do this
├── ModelNotFound      no such model or version
├── ModelRefused       its bundle was found and not loaded
├── ControlDisabled    models are not loaded and unloaded on request here
├── WrongInput         the request contradicts the model's task or limits
├── MessageTooLarge    it has more bytes than a request may have
├── ConstraintFailed   what compiles its constraint broke
├── ResumeInvalid      its resume token is none, was changed, or is too large
├── ResumeRefused      its resume token is good elsewhere, for another caller, or no more
├── StateNotFound      its caller has no state of that name
├── StateExists        its caller has one already
├── StateRefused       the state is of another bundle, or none are kept here
├── ReaderStalled      its caller has not read for too long
├── TryLater           what it needs is taken; carries when to try again
│   ├── TooManyStates  its caller has as many as it may
│   ├── QueueFull      as many requests wait as may
│   └── Overloaded     memory or a caller's share is used up
├── TimedOut           it took longer than the request itself allows
├── NotOffered         the protocol has it, this service does not
├── ServiceStopping    the service takes no new work
└── EngineFailed       the model's engine stopped on an error of its own
    └── NotFinite      the model computed NaN for this request; others go on
"""

from __future__ import annotations


class RequestError(Exception):
    """The message says what the caller can do."""


class Unauthenticated(RequestError):
    pass


class PermissionDenied(RequestError):
    pass


class ModelNotFound(RequestError):
    pass


class ModelRefused(RequestError):
    pass


class ControlDisabled(RequestError):
    pass


class WrongInput(RequestError):
    pass


class MessageTooLarge(RequestError):
    pass


class ConstraintFailed(RequestError):
    pass


class ResumeInvalid(RequestError):
    pass


class ResumeRefused(RequestError):
    pass


class StateNotFound(RequestError):
    pass


class StateExists(RequestError):
    pass


class StateRefused(RequestError):
    pass


class ReaderStalled(RequestError):
    pass


class TryLater(RequestError):
    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyStates(TryLater):
    pass


class QueueFull(TryLater):
    pass


class Overloaded(TryLater):
    pass


class TimedOut(RequestError):
    pass


class NotOffered(RequestError):
    pass


class ServiceStopping(RequestError):
    pass


class EngineFailed(RequestError):
    pass


class NotFinite(EngineFailed):
    pass


def without_frames(error: RequestError) -> RequestError:
    """``error``, with no traceback of itself or of what led to it: the frames hold the request."""
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    return error
