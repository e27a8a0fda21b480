"""Garbage collection that stays out of the way of short steps."""

from __future__ import annotations

import gc
import sys

from service.process.memory import give_back


def settle() -> None:
    """What was made until now stays: collections need not look at it again. What it took to make it
    is given back.

    A thread that comes back from a kernel gets the interpreter within half a millisecond, not
    five: a step takes less than that.
    """
    gc.collect()
    give_back()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.0005)


def collect_freed() -> None:
    """Something that was to stay is gone: look at everything once, and set it aside again."""
    was_settled = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if was_settled:
        gc.freeze()
