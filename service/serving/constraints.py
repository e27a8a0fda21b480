"""Constraints of texts, compiled off the event loop and kept for the next request of theirs."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Protocol

from service.constraints.compiling import Compiler
from service.constraints.lexicon import Lexicon
from service.engine.automaton import Constraint, ConstraintSpec, TokenAutomaton
from service.engine.errors import Overloaded, QueueFull, WrongInput, without_frames
from service.engine.requests import Sampling

# Patterns that are compiled at once, so that one of the largest does not hold up all others, and
# that are so or wait.
AT_ONCE = 2
MAX_COMPILING = 32
# Of patterns that were refused, whose reasons are kept.
_REFUSALS = 256
_RETRY_SECONDS = 1.0

# What a request with a constraint found, as a label.
HIT, COMPILED, REFUSED = "hit", "compiled", "refused"


class ConstraintObserver(Protocol):
    def constraint_found(self, outcome: str) -> None: ...

    def constraint_compiled(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class _Key:
    vocabulary: str
    spec: ConstraintSpec
    excluded: frozenset[int]


class Constraints:
    """Of all models of one process; used on its event loop.

    most_bytes: of all automata together, those that streams under way hold and those that are kept
    for later. observer: of the metrics.
    """

    def __init__(self, compiler: Compiler, most_bytes: int, observer: ConstraintObserver) -> None:
        self._compiler, self._most_bytes, self._observer = compiler, most_bytes, observer
        self._threads = ThreadPoolExecutor(AT_ONCE, "constraints")
        self._kept: OrderedDict[_Key, TokenAutomaton] = OrderedDict()
        self._refused: OrderedDict[_Key, str] = OrderedDict()
        self._compiling: dict[_Key, asyncio.Task[TokenAutomaton]] = {}
        self._bytes = 0
        # Sizes of those that are gone: the last to hold one may be an engine's thread.
        self._gone: deque[int] = deque()

    @property
    def held_bytes(self) -> int:
        """Of all automata that there are."""
        while self._gone:
            self._bytes -= self._gone.popleft()
        return self._bytes

    async def automaton(
        self, spec: ConstraintSpec, lexicon: Lexicon, excluded: frozenset[int]
    ) -> TokenAutomaton:
        """Raises WrongInput, QueueFull, Overloaded or ConstraintFailed."""
        key = _Key(lexicon.digest, spec, excluded)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self._observer.constraint_found(HIT)
            return kept
        reason = self._refused.get(key)
        if reason is not None:
            self._observer.constraint_found(REFUSED)
            raise WrongInput(reason)
        task = self._compiling.get(key)
        if task is None:
            self._check_room()
            task = asyncio.ensure_future(self._compile(key, lexicon))
            # Whether anybody still waits for it or not.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self._compiling[key] = task
        # A caller that leaves takes it from nobody else.
        try:
            return await asyncio.shield(task)
        except WrongInput as error:
            raise WrongInput(str(error)) from None

    def close(self) -> None:
        self._compiler.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _check_room(self) -> None:
        if len(self._compiling) >= MAX_COMPILING:
            raise QueueFull(
                f"{MAX_COMPILING} constraints are being compiled; try again", _RETRY_SECONDS
            )
        while self._kept and self.held_bytes > self._most_bytes:
            self._kept.popitem(last=False)
        if self.held_bytes > self._most_bytes:
            raise Overloaded(
                "constraints of streams under way take all the memory that they may; try again",
                _RETRY_SECONDS,
            )

    async def _compile(self, key: _Key, lexicon: Lexicon) -> TokenAutomaton:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        compiler, spec, excluded = self._compiler, key.spec, key.excluded
        try:
            automaton = await loop.run_in_executor(
                self._threads, compiler.compile, spec, lexicon, excluded
            )
        except WrongInput as error:
            self._observer.constraint_found(REFUSED)
            self._refused[key] = str(error)
            while len(self._refused) > _REFUSALS:
                self._refused.popitem(last=False)
            raise without_frames(error) from None
        finally:
            del self._compiling[key]
            self._observer.constraint_compiled(time.monotonic() - began)
        self._observer.constraint_found(COMPILED)
        self._keep(key, automaton)
        return automaton

    def _keep(self, key: _Key, automaton: TokenAutomaton) -> None:
        self._bytes += automaton.nbytes
        weakref.finalize(automaton, self._gone.append, automaton.nbytes).atexit = False
        self._kept[key] = automaton
        while len(self._kept) > 1 and self.held_bytes > self._most_bytes:
            self._kept.popitem(last=False)


class ModelConstraints:
    """Of one model's texts. lexicon: makes that of its vocabulary, once it is asked for."""

    def __init__(self, constraints: Constraints, lexicon: Callable[[], Lexicon]) -> None:
        self._constraints, self._make = constraints, lexicon

    @cached_property
    def _lexicon(self) -> Lexicon:
        return self._make()

    async def compiled(self, spec: ConstraintSpec, sampling: Sampling) -> Constraint:
        """What ``sampling`` bans is no part of the texts. Raises as Constraints.automaton()."""
        excluded = {token for token, bias in sampling.bias if bias == -inf}
        if sampling.allowed:
            excluded |= set(range(self._lexicon.size)) - set(sampling.allowed)
        automaton = await self._constraints.automaton(spec, self._lexicon, frozenset(excluded))
        return Constraint(spec, automaton)
