"""Named states: what a model carries after reading something, kept for a caller by name.

A state is a value. Streams begin from it and leave it as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from service.access.memory_budget import STATES, MemoryBudget, Reservation
from service.engine.errors import (
    StateExists,
    StateNotFound,
    StateRefused,
    TooManyStates,
    WrongInput,
)
from service.engine.requests import State
from service.engine.rng import digest_of
from service.serving.resume_token import ServedBundle, mismatch

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Beside its numbers: the objects, and the places of its tokens.
_STATE_BYTES, _TOKEN_BYTES = 1024, 40
_RETRY_SECONDS = 60.0

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class NamedState:
    """owner: its caller's name, empty for callers without one. bundle: what it is good for.

    tokens: that led to it, as far as they are known; of a model that reads a prompt the last one is
    still to be read. digest: of what came before them, 0 for nothing. state: tensors by name.
    created, expires: seconds since 1970.
    """

    name: str
    owner: str
    bundle: ServedBundle
    tokens: tuple[Any, ...]
    digest: int
    state: State
    created: float = 0.0
    expires: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        arrays = sum(array.nbytes for array in self.state.values())
        return _STATE_BYTES + _TOKEN_BYTES * len(self.tokens) + arrays

    def check(self, served: ServedBundle, allow_inexact: bool) -> None:
        """Raises StateRefused where it is not of ``served``."""
        if why := mismatch(self.bundle, served, allow_inexact):
            raise StateRefused(f"state {self.name!r} {why}")


@dataclass(frozen=True)
class StateParams:
    """What a state is made of. One of prompt, source, resume_token, or none where there is a base.

    base: a state that the prompt is read after. subject: who asks, as far as it is known.
    """

    prompt: str | None = None
    source: str | None = None
    resume_token: bytes | None = None
    base: NamedState | None = None
    allow_inexact: bool = False
    subject: str = ""


@dataclass(frozen=True, eq=False)
class MadeState:
    """A state without a name. unknown_symbols: of what was read. All else: as NamedState has it."""

    bundle: ServedBundle
    tokens: tuple[Any, ...]
    state: State
    digest: int = 0
    unknown_symbols: int = 0


class StateMaker(Protocol):
    """A model whose streams may begin from a state."""

    async def make_state(self, params: StateParams) -> MadeState:
        """Raises WrongInput, StateRefused, and what opening a stream raises."""


class StateStore(Protocol):
    """Keeps states. Those that have expired count as gone."""

    def get(self, owner: str, name: str) -> NamedState | None: ...

    def put(self, state: NamedState, replaces: bool) -> bool:
        """Whether it is kept; not where there is one of its name that it does not replace."""

    def delete(self, owner: str, name: str) -> bool:
        """Whether there was one."""

    def all_of(self, owner: str) -> list[NamedState]: ...


class MemoryStates:
    """In memory, until the process ends. budget: of the bytes that they take, which come back when
    a state expires, whether or not anybody asks again; put() raises Overloaded. For the event loop
    alone."""

    def __init__(self, budget: MemoryBudget, clock: Callable[[], float] = time.time) -> None:
        self._budget, self._clock = budget, clock
        self._kept: dict[tuple[str, str], tuple[NamedState, Reservation]] = {}
        self._next_expiry = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, owner: str, name: str) -> NamedState | None:
        self._sweep()
        found = self._kept.get((owner, name))
        return found[0] if found else None

    def put(self, state: NamedState, replaces: bool) -> bool:
        self._sweep()
        key = (state.owner, state.name)
        if key in self._kept and not replaces:
            return False
        held = self._budget.reserve(STATES, state.size)
        self._drop(key)
        self._kept[key] = state, held
        self._next_expiry = min(self._next_expiry, state.expires)
        self._wait_for_expiry()
        return True

    def delete(self, owner: str, name: str) -> bool:
        self._sweep()
        return self._drop((owner, name))

    def all_of(self, owner: str) -> list[NamedState]:
        self._sweep()
        return [state for (whose, _), (state, _) in self._kept.items() if whose == owner]

    def _drop(self, key: tuple[str, str]) -> bool:
        found = self._kept.pop(key, None)
        if found is None:
            return False
        found[1].release()
        return True

    def _wait_for_expiry(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self._kept:
            seconds = max(0.0, self._next_expiry - self._clock())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._sweep()
        self._wait_for_expiry()

    def _sweep(self) -> None:
        now = self._clock()
        if now < self._next_expiry:
            return
        for key in [key for key, (state, _) in self._kept.items() if state.expires <= now]:
            self._drop(key)
        left = (state.expires for state, _ in self._kept.values())
        self._next_expiry = min(left, default=float("inf"))


class NamedStates:
    """The states of all callers. most: of each caller. lifetime_seconds: the longest, and the usual
    one. clock: seconds since 1970.

    store: None where none can be kept. is_slow: whether it is asked on a thread of its own, one
    question after the other.
    """

    def __init__(
        self,
        store: StateStore | None,
        most: int,
        lifetime_seconds: float,
        is_slow: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._most, self._lifetime = store, most, lifetime_seconds
        self._is_slow, self._clock = is_slow, clock
        self._turn = asyncio.Lock()

    async def get(self, owner: str, name: str) -> NamedState:
        """Raises StateNotFound or StateRefused."""
        checked_name(name)
        found = await self._ask(lambda store: store.get(owner, name))
        if found is None:
            raise StateNotFound(f"no state {name!r} of yours; ListStates has those that there are")
        return found

    async def create(
        self, owner: str, name: str, made: MadeState, ttl_seconds: float | None, replaces: bool
    ) -> NamedState:
        """Raises WrongInput, StateExists, TooManyStates, StateRefused or Overloaded."""
        lifetime = self._checked(name, ttl_seconds)
        now = self._clock()
        state = NamedState(
            name, owner, made.bundle, made.tokens, made.digest, made.state, now, now + lifetime
        )

        def put(store: StateStore) -> bool:
            self._check_room(store, owner, name)
            return store.put(state, replaces)

        if not await self._ask(put):
            raise StateExists(f"you have a state {name!r}; delete it, choose another name, or "
                              "set replace")  # fmt: skip
        return state

    async def check_new(self, owner: str, name: str, ttl_seconds: float | None) -> None:
        """Before anything is read for it. Raises WrongInput, TooManyStates or StateRefused."""
        self._checked(name, ttl_seconds)
        await self._ask(lambda store: self._check_room(store, owner, name))

    def _check_room(self, store: StateStore, owner: str, name: str) -> None:
        """Raises TooManyStates."""
        names = {kept.name for kept in store.all_of(owner)}
        if len(names - {name}) >= self._most:
            raise TooManyStates(
                f"you have {len(names)} states, and may have {self._most}; delete one",
                _RETRY_SECONDS,
            )

    async def delete(self, owner: str, name: str) -> None:
        """Raises StateNotFound or StateRefused."""
        checked_name(name)
        if not await self._ask(lambda store: store.delete(owner, name)):
            raise StateNotFound(f"no state {name!r} of yours; ListStates has those that there are")

    async def all_of(self, owner: str) -> list[NamedState]:
        """By name. Raises StateRefused."""
        found = await self._ask(lambda store: store.all_of(owner))
        return sorted(found, key=lambda state: state.name)

    def _checked(self, name: str, ttl_seconds: float | None) -> float:
        checked_name(name)
        if ttl_seconds is None:
            return self._lifetime
        if not 0 < ttl_seconds <= self._lifetime:
            raise WrongInput(
                f"ttl_seconds is {ttl_seconds:g}; choose more than 0 and up to {self._lifetime:g}"
            )
        return ttl_seconds

    def __len__(self) -> int:
        """Of those in memory."""
        return len(self._store) if isinstance(self._store, MemoryStates) else 0

    def _there(self) -> StateStore:
        if self._store is None:
            raise StateRefused(
                "this server has several processes and keeps states in a folder alone; start it "
                "with --state-store"
            )
        return self._store

    async def _ask(self, question: Callable[[StateStore], Value]) -> Value:
        store = self._there()
        if not self._is_slow:
            return question(store)
        async with self._turn:
            return await asyncio.to_thread(question, store)


def checked_name(name: str) -> None:
    """Raises WrongInput."""
    if not _NAME.fullmatch(name):
        raise WrongInput(
            f"{name[:80]!r} is no name of a state; use 1 to 64 letters, digits and . _ - , the "
            "first one a letter or a digit"
        )


def check_alone(resume_token: bytes | None) -> None:
    """Raises WrongInput where a stream is to begin from a state and from a resume token."""
    if resume_token is not None:
        raise WrongInput("the request has a state and a resume token; send one of them")


def of_known_tokens(made: MadeState, most: int) -> MadeState:
    """Of more tokens than ``most``, which a prompt may not have either, only the last one and a
    digest of the others are kept."""
    if len(made.tokens) <= most:
        return made
    before, last = made.tokens[:-1], made.tokens[-1:]
    return replace(made, tokens=last, digest=made.digest ^ digest_of(before))


def digest_of_state(state: State) -> int:
    """Of what led to a state of which nothing else is known."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(state):
        digest.update(name.encode() + state[name].tobytes())
    return int.from_bytes(digest.digest(), "little")


def known_inputs(params: StateParams) -> Sequence[str]:
    """Names of those that there are."""
    given = {
        "prompt": params.prompt, "source": params.source, "resume_token": params.resume_token,
    }  # fmt: skip
    return [name for name, value in given.items() if value is not None]
