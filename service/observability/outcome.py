"""The outcome of a request, for logs and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.access.codes import Code
from service.observability.logs import Ids
from service.serving.request_timing import Timeline


@dataclass(frozen=True, slots=True)
class Outcome:
    """model: its label. error: the kind of what it failed with, or empty. protocol, service: as
    CallContext has them.

    began, ended: on the clock of ``timeline``. began_ns: in nanoseconds since 1970.
    """

    ids: Ids
    protocol: str
    service: str
    method: str
    model: str
    code: Code
    error: str
    caller: str
    began: float
    began_ns: int
    ended: float
    timeline: Timeline

    def nanoseconds(self, moment: float) -> int:
        """``moment`` since 1970."""
        return self.began_ns + int((moment - self.began) * 1e9)

    @property
    def figures(self) -> dict[str, Any]:
        """What is known of how it went, by name."""
        timeline = self.timeline
        known = {
            "queue_seconds": _between(timeline.queued, timeline.started),
            "first_token_seconds": _between(timeline.queued, timeline.first_token),
            "input_tokens": timeline.input_tokens,
            "output_tokens": timeline.output_tokens,
            "finish_reason": timeline.reason.value if timeline.reason else None,
        }
        return {name: value for name, value in known.items() if value is not None}


def _between(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(second - first, 6)
