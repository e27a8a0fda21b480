"""Children of the service: Envoy, workers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# Those that are the service's to handle, in whichever process of its group they arrive.
_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def spawn(command: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """As subprocess.Popen; signals that are ours wait in the child until it lets them in.

    A child begins with the mask of the thread that makes it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    try:
        return subprocess.Popen(command, **how)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def how_ended(code: int) -> str:
    """Of an exit code, in words; below 0 for a signal."""
    if code >= 0:
        return f"with code {code}"
    with suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
