"""Stop strings: found across tokens; text that may become one is held back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.engine.requests import TokenMade


class StopMatcher:
    """Feed it each token; it releases those that can no longer be part of a stop text.

    held: tokens that an earlier matcher of the same stops held back.
    """

    def __init__(self, stops: Sequence[str], held: Iterable[TokenMade] = ()) -> None:
        self.stops = stops
        self._held = list(held)
        self._longest = max(map(len, stops), default=1) - 1

    @property
    def held(self) -> tuple[TokenMade, ...]:
        return tuple(self._held)

    def feed(self, token: TokenMade) -> tuple[list[TokenMade], bool]:
        """The tokens to deliver now, and whether a stop text was completed.

        Of a token that only ends in a stop text, the part before it is delivered.
        """
        if not self.stops:
            return [token], False
        self._held.append(token)
        text = "".join(held.text for held in self._held)
        found = [start for start in map(text.find, self.stops) if start >= 0]
        if found:
            return self._release(min(found), cut=True), True
        return self._release(len(text) - self._possible_start(text), cut=False), False

    def flush(self) -> list[TokenMade]:
        """What is still held back when the stream ends without a stop text."""
        held, self._held = self._held, []
        return held

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop text."""
        for length in range(min(self._longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stops):
                return length
        return 0

    def _release(self, length: int, cut: bool) -> list[TokenMade]:
        """Tokens whose text lies within the first ``length`` characters of what is held.

        A cut ends the stream, and nothing is held any more.
        """
        released: list[TokenMade] = []
        while self._held and len(self._held[0].text) <= length:
            token = self._held.pop(0)
            length -= len(token.text)
            released.append(token)
        if cut:
            if self._held and length:
                released.append(replace(self._held[0], text=self._held[0].text[:length]))
            self._held = []
        return released
