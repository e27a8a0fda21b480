"""Which attack comes when: all of them in an order of chance, again and again, side by side."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Mapping


class Schedule:
    """Hands out attacks to workers that run side by side; thread-safe.

    groups: by attack, the name of what it needs for itself ("" for nothing): two of one group
    never run at once. seed: the order and each attack's own draws follow from it, as far as the
    workers' timing lets them.
    """

    def __init__(self, groups: Mapping[str, str], seed: int) -> None:
        self.rounds = 0
        self._groups = dict(groups)
        self._draw = random.Random(seed)
        self._waiting: list[str] = []
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, int] | None:
        """An attack and its seed; None while all that is left of this round must wait."""
        with self._lock:
            if not self._waiting:
                self._waiting = self._draw.sample(sorted(self._groups), len(self._groups))
                self.rounds += 1
            for name in self._waiting:
                if self._groups[name] not in self._busy:
                    self._waiting.remove(name)
                    self._take(name)
                    return name, self._draw.randrange(2**32)
            return None

    def end(self, name: str) -> None:
        """What begin() gave out is over."""
        with self._lock:
            self._busy.discard(self._groups[name])

    def _take(self, name: str) -> None:
        if group := self._groups[name]:
            self._busy.add(group)


def never_run(names: Collection[str], runs: Mapping[str, int]) -> list[str]:
    return sorted(name for name in names if not runs.get(name))
