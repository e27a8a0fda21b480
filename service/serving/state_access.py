"""What callers may read of a stream's state, and change when they go on with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from bundle.manifest import ATTENTION
from service.engine.errors import WrongInput
from service.engine.requests import Snapshot, State, TagSnapshot, Watch
from service.serving.model_info import ModelCard

HIDDEN = "hidden_"

AnySnapshot = TypeVar("AnySnapshot", bound=Snapshot | TagSnapshot)


@dataclass(frozen=True)
class WatchParams:
    """tensors: none for the hidden state of each layer, or for all of a model whose tensors are not
    named so. units: of each, none for all."""

    tensors: tuple[str, ...] = ()
    units: tuple[int, ...] = ()


@dataclass(frozen=True)
class StateChange:
    """One value for each unit of a tensor."""

    tensor: str
    units: tuple[int, ...]
    values: tuple[float, ...]


def watchable(card: ModelCard) -> dict[str, int]:
    """The carried tensors of real numbers, and how many units each has: several axes are read as
    one row, the last one first."""
    return {
        spec.name: math.prod(spec.shape)
        for spec in card.state
        if spec.carried and spec.shape and np.issubdtype(spec.dtype, np.floating)
    }


def state_bytes(card: ModelCard) -> int:
    """Of a whole state, with what is read and never changed."""
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in card.state)


def watch_of(params: WatchParams | None, card: ModelCard) -> Watch | None:
    """Raises WrongInput for a tensor or a unit that there is not."""
    if params is None:
        return None
    sizes = watchable(card)
    hidden = tuple(name for name in sizes if name.startswith(HIDDEN))
    tensors = params.tensors or hidden or tuple(sizes)
    if not tensors:
        raise WrongInput(f"model {card.name!r} has no state to watch; leave watch")
    sizes = _beside_tokens(card)
    tensors = checked_tensors("watch.tensors", tensors, sizes, card.name)
    _check_units("watch.units", params.units, min(sizes[name] for name in tensors))
    units = np.array(params.units, np.int64) if params.units else slice(None)
    return Watch(tensors, units)


def _beside_tokens(card: ModelCard) -> dict[str, int]:
    """What can be watched, and how many units each has: the state, and attention where there is."""
    attention = {ATTENTION: card.attended} if card.attended else {}
    return watchable(card) | attention


def checked_tensors(
    where: str, tensors: Sequence[str], sizes: Mapping[str, int], model: str
) -> tuple[str, ...]:
    """sizes: units of each that there is. Raises WrongInput for one that there is not, and for one
    that comes twice."""
    if len(set(tensors)) < len(tensors):
        raise WrongInput(f"{where} has a name twice; send each once")
    for name in tensors:
        _size(sizes, name, model)
    return tuple(tensors)


def watch_bytes(watch: Watch | None, card: ModelCard) -> int:
    """Of what comes beside a token."""
    if watch is None:
        return 0
    sizes = _beside_tokens(card)
    units = watch.units
    return 2 * sum(
        sizes[name] if isinstance(units, slice) else len(units) for name in watch.tensors
    )


def check_resumes(changes: Sequence[StateChange], is_resumed: bool) -> None:
    """Raises WrongInput for changes without a state to change."""
    if changes and not is_resumed:
        raise WrongInput("set_state changes what a resume token holds; send one, or leave it")


def with_changes(
    snapshot: AnySnapshot, changes: Sequence[StateChange], card: ModelCard
) -> AnySnapshot:
    """``snapshot`` with other values in its state, and with the digest of what it is now.

    The digest follows from the one before, the place in the stream and the changes, whatever their
    order. Raises WrongInput.
    """
    if not changes:
        return snapshot
    values = _checked(changes, card)
    state: State = {
        name: array.copy() if name in values else array for name, array in snapshot.state.items()
    }
    digest = hashlib.sha256(f"{snapshot.changed} {snapshot.made}".encode())
    for name in sorted(values):
        for unit, value in sorted(values[name].items()):
            state[name].reshape(-1)[unit] = value
            digest.update(f" {name} {unit} ".encode() + np.float32(value).tobytes())
    return replace(snapshot, state=state, changed=digest.hexdigest())


def _checked(changes: Sequence[StateChange], card: ModelCard) -> Mapping[str, Mapping[int, float]]:
    """Raises WrongInput."""
    sizes = watchable(card)
    values: dict[str, dict[int, float]] = {}
    for number, change in enumerate(changes):
        where = f"set_state[{number}]"
        size = _size(sizes, change.tensor, card.name)
        if not change.units or len(change.units) != len(change.values):
            raise WrongInput(
                f"{where} has {len(change.units)} units and {len(change.values)} values; send one "
                "value for each unit"
            )
        _check_units(f"{where}.units", change.units, size)
        if not np.isfinite(change.values).all():
            raise WrongInput(f"{where}.values has one that is not finite; send numbers")
        known = values.setdefault(change.tensor, {})
        if known.keys() & set(change.units):
            raise WrongInput(f"{where} sets a unit that was set before; send each once")
        known.update(zip(change.units, change.values, strict=True))
    return values


def _size(sizes: Mapping[str, int], name: str, model: str) -> int:
    if name not in sizes:
        known = ", ".join(sizes) or "none"
        raise WrongInput(f"model {model!r} has no state {name[:64]!r}; it has {known}")
    return sizes[name]


def _check_units(where: str, units: Sequence[int], size: int) -> None:
    if len(set(units)) < len(units):
        raise WrongInput(f"{where} has a unit twice; send each once")
    if units and max(units) >= size:
        raise WrongInput(f"{where} has {max(units)}; choose 0 to {size - 1}")
