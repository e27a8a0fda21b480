"""Reads whole texts, many side by side, for the state that each one leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from service.runtime.runners import PromptReader, Sequenced, State

# Tokens, padding counted, of one piece: what a cancelled call may still cost.
_PIECE = 4096


class StateRunner:
    """A BatchRunner. reader: reads the texts. names: of the tensors that are answered.

    whole: whether a text is read in one piece, as by a model that begins its answer after it.
    """

    def __init__(self, reader: PromptReader, names: Sequence[str], whole: bool) -> None:
        self.reader = reader
        self.names = tuple(names)
        self.whole = whole

    def run(self, items: Sequence[Sequenced]) -> Iterator[list[State | None] | None]:
        """The state after each item's tokens; yields None between pieces, then all of them, and
        None for an item whose state is not finite."""
        states: list[State | None] = [None] * len(items)
        running = list(range(len(items)))
        longest = max(len(item.tokens) for item in items)
        start = 0
        while running:
            count = longest if self.whole else max(1, _PIECE // len(running))
            tokens = [items[i].tokens[start : start + count] for i in running]
            after = self.reader.prefill(tokens, [states[i] for i in running])
            for i, state in zip(running, after, strict=True):
                states[i] = state
            start += count
            running = [i for i in running if len(items[i].tokens) > start]
            yield None if running else [self._answer(state) for state in states]

    def _answer(self, state: State | None) -> State | None:
        assert state is not None, "every item has a token"
        chosen = {name: state[name] for name in self.names}
        return chosen if all(np.isfinite(part).all() for part in chosen.values()) else None
