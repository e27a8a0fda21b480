"""Messages about the state of streams to values."""

from __future__ import annotations

from collections.abc import Iterable

from service.serving.named_states import NamedState, StateParams
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


def to_state_params(
    request: pb.CreateStateRequest, subject: str, base: NamedState | None
) -> StateParams:
    kind = request.WhichOneof("input")
    return StateParams(
        prompt=request.prompt if kind == "prompt" else None,
        source=request.source if kind == "source" else None,
        resume_token=request.resume_token if kind == "resume_token" else None,
        base=base,
        allow_inexact=request.allow_inexact,
        subject=subject,
    )


def from_state(state: NamedState, reason: str = "") -> pb.NamedState:
    """reason: why it cannot be used now."""
    return pb.NamedState(
        name=state.name,
        model=state.bundle.name,
        digest=state.bundle.digest,
        precision=state.bundle.precision,
        fingerprint=state.bundle.fingerprint,
        method=state.bundle.method,
        input_tokens=len(state.tokens),
        bytes=state.size,
        created=state.created,
        expires=state.expires,
        reason=reason,
    )
