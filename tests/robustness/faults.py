"""What a failpoint does, and when."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

# Reached while calls are answered; the hand-over comes at the end of a service.
WHILE_SERVING = (
    "engine.prefill", "engine.decode", "engine.predict", "engine.deliver", "resume.sign",
    "resume.open", "bundle.read", "session.open", "model.take_over", "rpc.write",
)  # fmt: skip
# So often that an engine that breaks there would be all that is tested.
_OFTEN = {"engine.decode": 60, "rpc.write": 40, "engine.deliver": 40, "engine.predict": 3}


class InjectedFault(Exception):
    """What a failpoint raises: no error that the service knows."""


@dataclass
class Fault:
    """An action of a failpoint: it acts once, after so many passes.

    seconds: that it holds up whoever passes. raises: whether it fails then.
    """

    after: int
    seconds: float
    raises: bool
    passes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def has_acted(self) -> bool:
        return self.passes > self.after

    def __call__(self) -> None:
        with self._lock:
            self.passes += 1
            if self.passes != self.after + 1:
                return
        time.sleep(self.seconds)
        if self.raises:
            raise InjectedFault("a failpoint says so")


def draw(choose: random.Random, point: str) -> dict[str, float]:
    """The fields of a Fault for ``point``."""
    raises = choose.random() < 0.7
    return {
        "after": choose.randrange(_OFTEN.get(point, 4)),
        "seconds": 0.0 if raises else choose.choice((0.002, 0.02, 0.1)),
        "raises": raises,
    }
