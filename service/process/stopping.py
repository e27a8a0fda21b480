"""A stop that its callers have time for."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from service.config import Config
from service.process.signals import end_after, on_hang_up

# Each begins a stop; a second one ends the process.
STOPPING = (signal.SIGTERM, signal.SIGINT)
_ENDS = {True: "every call finished or was handed over", False: "some calls were ended"}


class Served(Protocol):
    config: Config

    @property
    def open_calls(self) -> int: ...

    async def announce(self) -> None:
        """It is not ready any more, and takes calls still."""

    async def stop(self) -> bool:
        """Returns whether every call finished or was handed over."""


async def stop_gently(
    served: Served,
    number: int,
    last: Callable[[], None],
    log: logging.Logger,
) -> None:
    """number: of the signal. last: before a second one ends the process.

    Nobody balances calls away from a service that has a terminal, so SIGINT announces nothing.
    """
    config = served.config
    on_hang_up(None)
    for other in STOPPING:
        asyncio.get_running_loop().remove_signal_handler(other)
    end_after(last, STOPPING)
    if number == signal.SIGTERM and config.propagation_seconds:
        log.info("not ready any more, takes calls for %g s", config.propagation_seconds)
        await served.announce()
        await asyncio.sleep(config.propagation_seconds)
    log.info("stopping: %d calls under way, grace %.0f s", served.open_calls, config.grace_seconds)
    finished = await served.stop()
    log.info("stopped, %s", _ENDS[finished])
