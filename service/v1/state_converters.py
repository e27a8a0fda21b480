"""Messages about the state of streams to values."""

from __future__ import annotations

from collections.abc import Iterable

from service.serving.state_access import StateChange, WatchParams
from unroll.v1 import unroll_pb2 as pb


def to_watch(
    request: pb.GenerateRequest | pb.StreamTagStart | pb.StreamStepStart,
) -> WatchParams | None:
    if not request.HasField("watch"):
        return None
    return WatchParams(tuple(request.watch.tensors), tuple(request.watch.units))


def to_changes(changes: Iterable[pb.StateChange]) -> tuple[StateChange, ...]:
    return tuple(
        StateChange(change.tensor, tuple(change.units), tuple(change.values)) for change in changes
    )
