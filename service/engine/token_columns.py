"""Columns: what steps made of each row, until somebody looks at the row.

A step costs what its batch does, not what its streams do: its tokens become one list, and a row
is looked at when it is due.
"""

from __future__ import annotations

from collections.abc import Sequence

# Steps that are kept; then every row is looked at, whatever it waits for.
MOST_STEPS = 64


class TokenColumns:
    """The tokens of rows 0 … n-1 that were not taken yet, with their log-probabilities.

    end_id: a row that made it is due; None for none. What is kept of a row begins with the step
    after the one in which it was last taken.
    """

    def __init__(self, end_id: int | None) -> None:
        self._end_id = -1 if end_id is None else end_id
        # Of each step that is kept, by row.
        self._tokens: list[list[int]] = []
        self._log_probabilities: list[list[float]] = []
        self._steps = 0  # so far
        self._start = 0  # before those that are kept
        # Of each row: steps until it was last taken, and until it is due.
        self._taken: list[int] = []
        self._due: list[int] = []
        self._next_due = 0

    def admit(self) -> None:
        """A row joins behind the others; it is due after the next step."""
        self._taken.append(self._steps)
        self._due.append(0)
        self._next_due = 0

    def give(self, row: int, last: int) -> None:
        """``row`` leaves; the last row takes its place."""
        if row != last:
            for step in range(self._taken[last] - self._start, len(self._tokens)):
                self._tokens[step][row] = self._tokens[step][last]
                self._log_probabilities[step][row] = self._log_probabilities[step][last]
            self._taken[row], self._due[row] = self._taken[last], self._due[last]
        self._taken.pop()
        self._due.pop()

    def add(self, tokens: list[int], log_probabilities: list[float]) -> Sequence[int]:
        """A step made these, one a row; returns the rows that are due. take() of each of them
        follows, then settle()."""
        if len(self._tokens) == MOST_STEPS:  # all were taken after the last one
            self._start = self._steps
            self._tokens.clear()
            self._log_probabilities.clear()
        self._tokens.append(tokens)
        self._log_probabilities.append(log_probabilities)
        self._steps = steps = self._steps + 1
        if steps - self._start == MOST_STEPS:
            return range(len(tokens))
        end_id = self._end_id
        if self._next_due <= steps:
            rows = enumerate(self._due)
            if end_id not in tokens:
                return [row for row, until in rows if until <= steps]
            return [row for row, until in rows if until <= steps or tokens[row] == end_id]
        if end_id in tokens:
            return [row for row, token in enumerate(tokens) if token == end_id]
        return ()

    def count(self, row: int) -> int:
        """Tokens of the row that were not taken."""
        return self._steps - self._taken[row]

    def read(self, row: int) -> tuple[list[int], list[float]]:
        """Those, with their log-probabilities."""
        first = self._taken[row] - self._start
        return (
            [step[row] for step in self._tokens[first:]],
            [step[row] for step in self._log_probabilities[first:]],
        )

    def take(self, row: int, tokens: int = 1) -> None:
        """Nothing of the row is kept any more; it is due once it has so many more, and after the
        next step at the earliest."""
        self._taken[row] = self._steps
        self._due[row] = self._steps + tokens

    def settle(self) -> None:
        """All that was due is taken."""
        self._next_due = min(self._due, default=0)
