"""What prefills a generating model: a prompt, which it continues, or a source or a vector, on
which what it makes is conditioned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.serving.inputs import ReadingModel, checked_vector

if TYPE_CHECKING:
    from bundle.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncodedInput:
    """ids: of the tokens, or the values of a vector. unknown: symbols that have no id."""

    ids: Sequence[Any]
    unknown: int = 0


class GeneratorInput:
    """name: of its field in a request. is_text: whether it is read as tokens."""

    name: str
    is_text = False

    def read(self, model: ReadingModel, given: Any, what: str) -> EncodedInput:
        """``given`` as a caller of unroll.v1 sends it; ``what`` names it in a refusal.

        Raises WrongInput.
        """
        raise NotImplementedError

    def read_on(self, model: ReadingModel, given: Any, what: str) -> EncodedInput:
        """As read(), after something that was read before."""
        return self.read(model, given, what)

    def checked(self, model: ReadingModel, ids: Sequence[Any], what: str) -> tuple[Any, ...]:
        """``ids``, which came as they are. Raises WrongInput."""
        raise NotImplementedError

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token as the model reads it, where it reads a text."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextInput(GeneratorInput):
    """A text, as ``prompt`` or as ``source``.

    begin_id: what an empty one is read as, where the model knows a beginning; None elsewhere.
    adds_begin: whether every text is read after it.
    """

    name: str
    reader: Tokenizer
    begin_id: int | None = None
    adds_begin: bool = False
    is_text = True

    def read(self, model: ReadingModel, given: str, what: str) -> EncodedInput:
        if not given and self.begin_id is not None:
            return EncodedInput([self.begin_id])
        encoded = self.read_on(model, given, what)
        if self.begin_id is None or not self.adds_begin:
            return encoded
        ids = [self.begin_id, *encoded.ids]
        model.check_tokens(len(ids), what, model.card.limits["input_tokens"])
        return EncodedInput(ids, encoded.unknown)

    def read_on(self, model: ReadingModel, given: str, what: str) -> EncodedInput:
        encoded = model.read(self.reader, given, what)
        return EncodedInput(encoded.ids, encoded.unknown)

    def checked(self, model: ReadingModel, ids: Sequence[int], what: str) -> tuple[int, ...]:
        model.check_ids(ids, what)
        return tuple(ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        first = int(self.adds_begin and list(ids[:1]) == [self.begin_id])
        return [self.reader.piece(token, number <= first) for number, token in enumerate(ids)]


@dataclass(frozen=True)
class VectorInput(GeneratorInput):
    """A value of at least ``least`` for each of ``fields``; ``most_unknown`` may be NaN."""

    fields: Sequence[str]
    least: float = 0.0
    most_unknown: int = 0
    name: str = "vector"

    def read(self, model: ReadingModel, given: Sequence[float], what: str) -> EncodedInput:
        return EncodedInput(self.checked(model, given, what))

    def checked(self, model: ReadingModel, ids: Sequence[float], what: str) -> tuple[float, ...]:
        return checked_vector(ids, self.fields, what, self.least, self.most_unknown)
