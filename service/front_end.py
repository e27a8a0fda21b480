"""What a front end is: it listens, carries calls to the services, and stops."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

# Of the memory limit, near which a front end's own process sheds load.
FRONT_END_SHARE = 0.25


class AddressInUse(Exception):
    """The server cannot listen on the address it was given."""


@dataclass(frozen=True)
class FrontEndSettings:
    """Of the same names as in the configuration."""

    address: str
    max_message_bytes: int
    max_metadata_bytes: int
    max_connections: int
    max_calls_per_connection: int
    handshake_seconds: float
    body_seconds: float
    idle_connection_seconds: float
    stall_seconds: float
    cors_origins: str = ""
    page: bool = True


def front_end_settings(config: object) -> FrontEndSettings:
    """Those of ``config``'s settings that have these names."""
    return FrontEndSettings(**{f.name: getattr(config, f.name) for f in fields(FrontEndSettings)})


class FrontEnd(Protocol):
    @property
    def port(self) -> int:
        """The one it listens on, once it was started."""

    @property
    def is_listening(self) -> bool:
        """Whether callers can reach it now."""

    @property
    def pid(self) -> int | None:
        """Of its process beside this one, while it has one that runs."""

    async def start(self) -> None:
        """Raises AddressInUse."""

    async def stop(self, is_drained: bool) -> None:
        """is_drained: whether every call has ended; those that have not are ended now."""
