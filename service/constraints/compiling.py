"""From a pattern to an automaton, by a process that is ended where it takes too much.

A regular expression of a line can have more states than memory has bytes, and compiling one cannot
be interrupted. So each is compiled by a process of its own, under limits of the kernel.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.constraints.lexicon import Lexicon
from service.constraints.patterns import regex_of
from service.engine.automaton import CHOICES, ConstraintSpec, TokenAutomaton
from service.engine.errors import ConstraintFailed, Overloaded, WrongInput

_CHILD = Path(__file__).with_name("child.py")
_RETRY_SECONDS = 5.0
_SHOWN_SYMBOLS = 10


@dataclass(frozen=True)
class CompileLimits:
    """Of one pattern. seconds: of processor time. size: of the process's memory in bytes.
    transitions: of the automaton, one for each state too. patience: seconds on the clock, as a
    multiple of those of processor time: the process waits for them behind everything else."""

    seconds: int = 3
    size: int = 128 << 20
    transitions: int = 2_000_000
    patience: float = 10


class Compiler:
    """Used from several threads; each compiles one pattern at a time."""

    def __init__(self, limits: CompileLimits) -> None:
        self._limits = limits
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def compile(
        self, spec: ConstraintSpec, lexicon: Lexicon, excluded: Collection[int] = ()
    ) -> TokenAutomaton:
        """excluded: tokens that may not be made.

        Takes up to seconds. Raises WrongInput for a pattern that is none, is too large, or that
        this vocabulary cannot spell; Overloaded where it gets no processor; ConstraintFailed.
        """
        limits = self._limits
        first, later = lexicon.without(excluded)
        request = {
            "regex": regex_of(spec),
            "first": first,
            "later": later,
            "seconds": limits.seconds,
            "bytes": limits.size,
            "transitions": limits.transitions,
        }
        _check_ends(spec, lexicon)
        line, _, arrays = self._run(json.dumps(request).encode()).partition(b"\n")
        head = json.loads(line)
        if "refused" in head:
            raise WrongInput(_problem(head, spec, lexicon, bool(excluded)))
        return _restored(head, arrays, lexicon)

    def close(self) -> None:
        """End what is being compiled."""
        self._is_closed = True
        for process in tuple(self._running):
            process.kill()

    def _run(self, request: bytes) -> bytes:
        pipe, limits = subprocess.PIPE, self._limits
        with subprocess.Popen(
            [sys.executable, "-I", str(_CHILD)], stdin=pipe, stdout=pipe, stderr=pipe
        ) as process:
            self._running.add(process)
            try:
                if self._is_closed:
                    process.kill()
                out, err = process.communicate(request, limits.seconds * limits.patience)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Overloaded(
                    "other work leaves no time to compile the constraint; try again", _RETRY_SECONDS
                ) from None
            finally:
                self._running.discard(process)
        if process.returncode < 0:  # the kernel ended it, or it could get no memory
            raise WrongInput(_TOO_LARGE)
        if process.returncode:
            lines = err.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise ConstraintFailed(f"the constraint cannot be compiled here: {lines[-1]}")
        return out


_TOO_LARGE = (
    "the constraint has too many states over this vocabulary to be compiled; repeat less, or count "
    "lower"
)


def _problem(
    head: dict[str, Any], spec: ConstraintSpec, lexicon: Lexicon, has_excluded: bool
) -> str:
    what, kind = f"constraint.{spec.kind}", head["refused"]
    if kind == "large":
        return _TOO_LARGE
    if kind == "invalid":
        reason = " ".join(str(head["reason"]).split())[:300]
        return (
            f"{what} cannot be compiled ({reason}); write it in the syntax of Rust's crate regex, "
            "which has no looking around, backreferences and Unicode word boundaries"
        )
    if kind == "empty":
        return f"{what} lets no text through but the empty one; let it have a symbol"
    lacks = head["lacks"]
    if not lacks:
        return f"{what} can never be satisfied: no text ends where it asks for one"
    symbols = list(dict.fromkeys("".join(lacks))) if lexicon.is_characters else lacks
    shown = ", ".join(repr(symbol) for symbol in symbols[:_SHOWN_SYMBOLS])
    more = f" and {len(symbols) - _SHOWN_SYMBOLS} more" if len(symbols) > _SHOWN_SYMBOLS else ""
    less = ", less what the request bans," if has_excluded else ""
    return (
        f"the model's vocabulary{less} cannot spell {what}: it lacks {shown}{more}; GetModel "
        "with_vocabulary lists what it has"
    )


def _restored(head: dict[str, Any], arrays: bytes, lexicon: Lexicon) -> TokenAutomaton:
    states, transitions = head["states"], head["transitions"]
    place = 0

    def take(dtype: str, count: int) -> Any:
        nonlocal place
        begin, place = place, place + count * np.dtype(dtype).itemsize
        return np.frombuffer(arrays, dtype, count, begin)

    return TokenAutomaton(
        starts=take("i8", states + 1),
        tokens=take("i4", transitions),
        targets=take("i4", transitions),
        longest=take("i4", states),
        accepting=take("?", states),
        vocabulary=lexicon.size,
        end_id=lexicon.end_id,
        digest=hashlib.sha256(arrays).hexdigest()[:16],
    )


def _check_ends(spec: ConstraintSpec, lexicon: Lexicon) -> None:
    """Without an end symbol nothing but the text itself says where it ends."""
    if spec.kind != CHOICES or lexicon.end_id is not None:
        return
    for choice in spec.texts:
        for other in spec.texts:
            if other != choice and other.startswith(choice):
                raise WrongInput(
                    f"the choice {choice!r} begins the choice {other!r}, and this model has no "
                    "symbol that ends a text to tell them apart; leave one"
                )
