"""What tritonclient raises where the server refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.utils import InferenceServerException


@contextmanager
def refused(status: str, *words: str) -> Iterator[None]:
    """The block fails with ``status``, such as NOT_FOUND, and a message that holds ``words``."""
    caught: InferenceServerException | None = None
    try:
        yield
    except InferenceServerException as error:
        caught = error
    check_refusal(caught, *words)
    print(f"{caught.status()}: {caught.message()}")
    assert caught.status() == f"StatusCode.{status}"


def check_refusal(error: InferenceServerException | None, *words: str) -> None:
    """An error came, and its message holds ``words``."""
    assert error is not None, "it was answered"
    for word in words:
        assert word in error.message(), error.message()
