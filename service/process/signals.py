"""Signals that end the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType


def end_on(number: int) -> None:
    """Have the signal end the process at once.

    By default it does, but for process 1, whose default is to ignore what it does not handle.
    """
    signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def end_after(last: Callable[[], None], numbers: Iterable[int]) -> None:
    """Have each of these signals end the process once ``last()`` has returned.

    A thread of its own does it: the main one may be what hangs. The exit code is 128 and the
    signal's number, as of any process that a shell saw end by it.
    """
    ending = frozenset(numbers)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in ending:
        signal.signal(number, _noted)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        while (number := os.read(reader, 1)[0]) not in ending:
            continue
        last()
        os._exit(128 + number)

    threading.Thread(target=wait, name="signals", daemon=True).start()


def on_hang_up(call: Callable[[], object] | None) -> None:
    """Have SIGHUP call this on the main thread, in the midst of whatever it does; None: nothing.

    By default it would end the process, with whatever it streams.
    """
    signal.signal(signal.SIGHUP, (lambda *_: call()) if call else signal.SIG_IGN)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def _noted(number: int, _: FrameType | None) -> None:
    """The interpreter has written its number to whoever waits for it."""
