"""The view of a call that front ends hand to admission and observation."""

from __future__ import annotations

from typing import Protocol

from service.access.identity import Metadata


class CallContext(Protocol):
    """One call, of whatever transport.

    protocol: as traces name it, such as "grpc". service, method: the full name of the service
    and the method's own. is_multiplexed: whether the call holds many requests, each with
    responses of its own.
    """

    @property
    def protocol(self) -> str: ...

    @property
    def service(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def is_multiplexed(self) -> bool: ...

    @property
    def metadata(self) -> Metadata: ...

    @property
    def peer(self) -> str:
        """The address of its connection, as the transport writes it."""

    def seconds_left(self) -> float | None:
        """Until its deadline; None for one without."""

    def set_trailer(self, name: str, value: str) -> None:
        """Send it with the call's end; a later one replaces it."""


class RequestInfo(Protocol):
    """One request of a call."""

    @property
    def model(self) -> str:
        """The name of the model that it is for; empty where it names none."""

    @property
    def id(self) -> str:
        """What its caller calls it; empty where it says nothing."""

    def text(self) -> str:
        """Its content for the log, without secrets."""
