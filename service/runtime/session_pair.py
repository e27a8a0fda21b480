"""One graph in one or two sessions: on one thread, and on several once that may pay."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnxruntime

from service.runtime.width import Width

# Runs that could have been on several threads before there is a session for them: more than warming
# up makes, and than one caller's first calls.
RUNS_BEFORE = 32

log = logging.getLogger(__name__)

Session: TypeAlias = onnxruntime.InferenceSession
FindSession = Callable[[], Session | None]


def _none() -> None:
    return None


class OnDemand:
    """A session that is opened once it was wanted RUNS_BEFORE times, on a thread of its own.

    It holds the weights of its graph once more, which of most models nobody needs: few run large
    batches. Until it is open, and where it cannot be opened, whoever wants it does without.

    what: as the log names it. open_session: gives None for one that is not to be used, and raises
    what keeps it from being opened.
    """

    def __init__(self, what: str, open_session: FindSession) -> None:
        self._what = what
        self._open_session: FindSession | None = open_session
        self._session: Session | None = None
        self._wanted = 0

    def find(self) -> Session | None:
        """None until it is open. Of what two threads count at once, one may be lost."""
        if self._session is None and self._wanted <= RUNS_BEFORE:
            self._wanted += 1
            if self._wanted > RUNS_BEFORE:
                threading.Thread(target=self._open, name="open-wide", daemon=True).start()
        return self._session

    def _open(self) -> None:
        open_session, self._open_session = self._open_session, None
        if open_session is None:  # two threads wanted it at once
            return
        try:
            self._session = open_session()
        except Exception as error:  # whatever it is, runs on one thread go on
            log.warning("%s stays on one thread: %s", self._what, error)


@dataclass(frozen=True)
class SessionPair:
    """One graph on one thread, and on several where find_wide gives a session.

    A batch of a few rows is done before a second thread has woken up; a large one can be shared
    between them. Either way gives the same bits.
    """

    narrow: Session
    find_wide: FindSession = _none

    def of_width(self, is_wide: bool) -> Session:
        """The narrow one where there is no other."""
        return (is_wide and self.find_wide()) or self.narrow


class TimedPair:
    """Runs of one graph in either session of a pair, whichever is faster now."""

    def __init__(self, pair: SessionPair, look_every: int) -> None:
        self._pair = pair
        self._look_every = look_every
        self._widths: dict[int, Width] = {}  # by powers of two of rows

    def run(
        self,
        rows: int,
        length: int,
        outputs: Sequence[str],
        feed: Mapping[str, Any],
        may_be_wide: bool = True,
    ) -> Any:
        """As InferenceSession.run, of so many rows of ``length`` tokens."""
        narrow, wide = self._pair.narrow, self._pair.find_wide() if may_be_wide else None
        if wide is None:
            return narrow.run(outputs, feed)
        width = self._widths.get(rows.bit_length())
        if width is None:
            width = self._widths[rows.bit_length()] = Width(self._look_every)
        is_wide = width.is_wide()
        started = time.perf_counter()
        found = (wide if is_wide else narrow).run(outputs, feed)
        width.ran(is_wide, (time.perf_counter() - started) / (rows * length))
        return found
