"""Long work on a thread that holds up neither the event loop nor the exit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_background(name: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """What ``work(*arguments)`` returns or raises.

    The thread is a daemon: an executor's would be waited for at the exit, however long a read
    hangs in a file system that does not answer.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(how: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            how(outcome)

    def run() -> None:
        try:
            report = (done.set_result, work(*arguments))
        except Exception as error:
            report = (done.set_exception, error)  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *report)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
