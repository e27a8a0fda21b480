"""Constrained text: an automaton over tokens, and where a stream is in it.

The masks are rows of bias: 0 for a token that may come next, -inf for any other one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Of ``longest``: as many tokens as one likes may follow.
UNBOUNDED = np.iinfo(np.int32).max
# Rows of one automaton that are kept: states that a text goes through again and again.
_KEPT_BYTES = 4 << 20

CHOICES, REGEX, JSON_SCHEMA = "choices", "regex", "json_schema"


@dataclass(frozen=True)
class ConstraintSpec:
    """What a request asks for. kind: CHOICES, REGEX or JSON_SCHEMA. texts: the choices; the pattern
    or the schema alone."""

    kind: str
    texts: tuple[str, ...]


class TokenAutomaton:
    """Which tokens may follow in each state of a text; state 0 is the beginning.

    starts: (states + 1,) where the transitions of a state begin. tokens, targets: (transitions,)
    int32, by token within a state. accepting: (states,) whether the text may end there. longest:
    (states,) int32, tokens that can follow at most, or UNBOUNDED. From each state one that accepts
    can be reached. end_id: the token that ends a text, None for none; it has no transitions.
    digest: of all that.
    """

    def __init__(
        self,
        starts: Array,
        tokens: Array,
        targets: Array,
        accepting: Array,
        longest: Array,
        vocabulary: int,
        end_id: int | None,
        digest: str,
    ) -> None:
        self.vocabulary, self.end_id, self.digest = vocabulary, end_id, digest
        self.longest = longest
        self._array = tokens, targets
        self._starts: list[int] = starts.tolist()
        self._accepting: list[bool] = accepting.astype(bool).tolist()
        # Their numbers are read one at a time, which costs least through a view of memory.
        self._tokens, self._targets = tokens.data, targets.data
        self._rows: dict[int, Array] = {}
        self._most_rows = max(1, _KEPT_BYTES // (4 * vocabulary))

    @classmethod
    def of_one(cls, tokens: Sequence[int], vocabulary: int) -> TokenAutomaton:
        """Of a single text: these tokens, of which there is at least one."""
        states = len(tokens) + 1
        return cls(
            np.minimum(np.arange(states + 1), states - 1),
            np.asarray(tokens, np.int32),
            np.arange(1, states, dtype=np.int32),
            np.arange(states) == states - 1,
            np.arange(states - 1, -1, -1, dtype=np.int32),
            vocabulary,
            None,
            "",
        )

    @property
    def states(self) -> int:
        return len(self._accepting)

    @property
    def nbytes(self) -> int:
        """Held at most, with the masks that are kept."""
        tokens, targets = self._array
        rows = 4 * self.vocabulary * min(self.states, self._most_rows)
        return tokens.nbytes + targets.nbytes + self.longest.nbytes + 48 * self.states + rows

    def accepts(self, state: int) -> bool:
        """Whether the text may end there."""
        return self._accepting[state]

    def is_complete(self, state: int) -> bool:
        """Whether it must: nothing can follow."""
        return self._starts[state] == self._starts[state + 1]

    def next(self, state: int, token: int) -> int:
        """The state after ``token``, which must be one that may follow."""
        last = self._starts[state + 1]
        place = bisect_left(self._tokens, token, self._starts[state], last)
        assert place < last, "its mask let nothing else through"
        assert self._tokens[place] == token, "its mask let nothing else through"
        return self._targets[place]

    def following(self, state: int) -> tuple[Array, Array]:
        """The tokens that may follow, and the states after them; (count,) each."""
        tokens, targets = self._array
        span = slice(self._starts[state], self._starts[state + 1])
        return tokens[span], targets[span]

    def mask(self, state: int) -> Array:
        """(vocabulary,) float32, not to be written to."""
        row = self._rows.get(state)
        if row is None:
            row = np.full(self.vocabulary, -np.inf, np.float32)
            row[self.following(state)[0]] = 0
            if self.end_id is not None and self.accepts(state):
                row[self.end_id] = 0
            row.flags.writeable = False
            if len(self._rows) >= self._most_rows:
                self._rows.clear()
            self._rows[state] = row
        return row


class Constraint:
    """Of one request: what it asked for, as its vocabulary spells it."""

    def __init__(self, spec: ConstraintSpec, automaton: TokenAutomaton) -> None:
        self.spec, self.automaton = spec, automaton

    def release(self) -> None:
        """No stream of the request is left. What is kept of one may be kept for long, and an
        automaton takes megabytes."""
        vars(self).pop("automaton", None)


@dataclass(frozen=True)
class ConstraintPlace:
    """Where a stream is, as a resume token has it. digest: of the automaton of that state."""

    spec: ConstraintSpec
    state: int
    digest: str


class ConstrainedText:
    """A text under way. min_tokens: before which it does not end."""

    __slots__ = ("_constraint", "_min_tokens", "state")

    def __init__(self, constraint: Constraint, min_tokens: int = 0, state: int = 0) -> None:
        self._constraint, self._min_tokens, self.state = constraint, min_tokens, state

    @property
    def place(self) -> ConstraintPlace:
        constraint = self._constraint
        return ConstraintPlace(constraint.spec, self.state, constraint.automaton.digest)

    @property
    def may_end(self) -> bool:
        return self._constraint.automaton.accepts(self.state)

    @property
    def is_complete(self) -> bool:
        return self._constraint.automaton.is_complete(self.state)

    def after(self, token: int) -> ConstrainedText:
        """The text with ``token`` at its end."""
        state = self._constraint.automaton.next(self.state, token)
        return ConstrainedText(self._constraint, self._min_tokens, state)

    def fill(self, bias: Array, made: int) -> None:
        """Write the row, (vocabulary,), of a text that has ``made`` tokens.

        Some token always may follow, unless the text is complete: before min_tokens those may
        that leave enough to come.
        """
        automaton = self._constraint.automaton
        bias[:] = automaton.mask(self.state)
        if made < self._min_tokens:
            if automaton.end_id is not None:
                bias[automaton.end_id] = -np.inf
            tokens, targets = automaton.following(self.state)
            bias[tokens[automaton.longest[targets] < self._min_tokens - made - 1]] = -np.inf
