"""Reading and limits of inputs, for every model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from bundle.errors import SymbolUnknown
from service.engine.errors import WrongInput
from service.serving.served_model import ServedModel

if TYPE_CHECKING:  # front ends import this module, and know nothing of bundles
    from bundle.tokenizer import Encoded, Tokenizer

# Of a number that a caller gives: with larger ones a model's products leave float32, and NaN would
# look like the model's own fault. States and vectors stay far below.
MOST_NUMBER = 1e9
MAX_TEXTS = 1024
MAX_REQUEST_CHARACTERS = 131_072
# Reading or telling more than this at once would hold up every stream's messages.
_INLINE_SIZE = 8_192
# So little may be done at any time.
_FREE_SIZE = 1_024

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class PredictItem:
    """tokens: ids of one text."""

    tokens: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.tokens)


class ReadingModel(ServedModel):
    """A model that reads texts or ids, within its limits."""

    def read(self, codec: Tokenizer, text: str, what: str, limit: int | None = None) -> Encoded:
        """limit: in tokens; the model's own of its input unless said otherwise.

        Raises WrongInput for a text without tokens or above the limit, and for a symbol without
        an id.
        """
        limit = self.card.limits["input_tokens"] if limit is None else limit
        self.check_unread(codec, text, what, limit)
        try:
            encoded = codec.encode(text)
        except SymbolUnknown as error:
            raise WrongInput(f"{what}: {error}; leave it out") from error
        self.check_tokens(len(encoded.ids), what, limit)
        return encoded

    def check_unread(self, codec: Tokenizer, text: str, what: str, limit: int) -> None:
        """Raises WrongInput for a text that is too long to be worth reading."""
        if len(text) > codec.longest_text(limit):
            raise WrongInput(
                f"{what} has {len(text)} characters, model {self.card.name!r} accepts {limit} "
                "tokens; shorten it"
            )

    def items_of(self, rows: Sequence[Sequence[int]]) -> list[PredictItem]:
        """Rows of ids, each within the limit of the input. Raises WrongInput."""
        for number, ids in enumerate(rows):
            self.check_ids(ids, f"row {number}")
        return [PredictItem(tuple(ids)) for ids in rows]

    def check_ids(
        self, ids: Sequence[int], what: str, limit: int | None = None, below: int | None = None
    ) -> None:
        """Raises WrongInput for none, for more than ``limit``, and for one that is no id.

        limit, below: of the input and its ids, unless said otherwise.
        """
        below = self.card.input_ids if below is None else below
        self.check_tokens(
            len(ids), what, self.card.limits["input_tokens"] if limit is None else limit
        )
        if not 0 <= min(ids) <= max(ids) < below:
            wrong = next(number for number in ids if not 0 <= number < below)
            raise WrongInput(
                f"{what} holds the id {wrong}; model {self.card.name!r} knows 0 to {below - 1}"
            )

    def check_tokens(self, count: int, what: str, limit: int) -> None:
        """Raises WrongInput for none and for more than ``limit``."""
        if not count:
            raise WrongInput(f"{what} is empty; model {self.card.name!r} needs at least one token")
        if count > limit:
            raise WrongInput(
                f"{what} has {count} tokens, model {self.card.name!r} accepts {limit}; shorten it"
            )


def checked_size(what: str, lengths: Sequence[int]) -> int:
    """The characters of all texts of a request together."""
    if not 1 <= len(lengths) <= MAX_TEXTS:
        raise WrongInput(f"{what} holds {len(lengths)} entries; send 1 to {MAX_TEXTS} a request")
    if sum(lengths) > MAX_REQUEST_CHARACTERS:
        raise WrongInput(
            f"{what} hold {sum(lengths)} characters together; send at most "
            f"{MAX_REQUEST_CHARACTERS} a request"
        )
    return sum(lengths)


async def off_loop(size: int, work: Callable[[], Answer]) -> Answer:
    """``work`` on much, on a thread of its own; on little, here, in this turn of the event loop or
    in a later one where this one has had enough.

    size: characters to read, or parts of an answer.
    """
    if size > _INLINE_SIZE:
        return await asyncio.to_thread(work)
    if size > _FREE_SIZE:
        turn = _turn_of(asyncio.get_running_loop())
        while not turn.has_room(size):
            await asyncio.sleep(0)
    return work()


def is_free(size: int) -> bool:
    """Whether off_loop() does work of this size at once."""
    return size <= _FREE_SIZE


class _LoopTurn:
    """What one turn of an event loop has done so far: requests that come together are
    many small pieces, and streams' messages wait for all of a turn's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._used = loop, 0

    def has_room(self, size: int) -> bool:
        """Whether so much more may be done in this turn, which counts then."""
        if self._used and self._used + size > _INLINE_SIZE:
            return False
        if not self._used:
            self._loop.call_soon(self._end)
        self._used += size
        return True

    def _end(self) -> None:
        self._used = 0


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopTurn] = WeakKeyDictionary()


def _turn_of(loop: asyncio.AbstractEventLoop) -> _LoopTurn:
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = _LoopTurn(loop)
    return turn


def checked_vector(
    values: Sequence[float],
    fields: Sequence[str],
    what: str,
    least: float = 0.0,
    most_unknown: int = 0,
) -> tuple[float, ...]:
    """One value from ``least`` to MOST_NUMBER for each of ``fields``, or NaN for an unknown one, of
    which there are at most ``most_unknown``. Raises WrongInput."""
    if len(values) != len(fields):
        raise WrongInput(
            f"{what} has {len(values)} values, the model takes {len(fields)}; send one for each "
            "of vector_fields, which GetModel lists, in their order"
        )
    unknown = 0
    for number, (field, value) in enumerate(zip(fields, values, strict=True)):
        if most_unknown and math.isnan(value):
            unknown += 1
        elif not least <= value <= MOST_NUMBER:
            raise WrongInput(
                f"{what}.values[{number}] is {value:g}; vector_fields[{number}], {field!r}, is a "
                f"number from {least:g} to {MOST_NUMBER:g}"
                + (", and the model reads no unknown ones" if math.isnan(value) else "")
            )
    if unknown > most_unknown:
        raise WrongInput(
            f"{what} has {unknown} unknown values, the model reads at most {most_unknown}; send "
            "more of its values"
        )
    # NaN has many bit patterns, and equal requests get equal answers.
    return tuple(math.nan if math.isnan(value) else value for value in values)
