import asyncio
import threading
from types import SimpleNamespace

import pytest

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import ListedVocabulary
from service.engine.errors import WrongInput
from service.serving.inputs import (
    MAX_TEXTS,
    ReadingModel,
    checked_size,
    checked_vector,
    off_loop,
)

FIELDS = ("Water (g)", "Energy (kcal)")


def test_little_is_read_here_and_much_elsewhere():
    async def where(size):
        return await off_loop(size, threading.get_ident)

    assert asyncio.run(where(10)) == threading.get_ident()
    assert asyncio.run(where(100_000)) != threading.get_ident()


def test_what_comes_together_is_read_in_turns_of_the_loop():
    """Streams' messages leave between two of them."""
    turns, read = 0, []

    async def count():
        nonlocal turns
        while len(read) < 20:
            turns += 1
            await asyncio.sleep(0)

    async def run():
        reading = (off_loop(8_000, lambda n=n: read.append((n, turns))) for n in range(20))
        await asyncio.gather(count(), *reading)

    asyncio.run(run())
    assert [number for number, _ in read] == list(range(20))
    assert len({turn for _, turn in read}) == 20


def test_a_request_holds_so_many_texts_and_so_much_of_them():
    assert checked_size("texts", [3, 4]) == 7
    with pytest.raises(WrongInput, match=f"texts holds 0 entries; send 1 to {MAX_TEXTS}"):
        checked_size("texts", [])
    with pytest.raises(WrongInput, match="items holds 1025 entries"):
        checked_size("items", [1] * (MAX_TEXTS + 1))
    with pytest.raises(WrongInput, match="hold 131073 characters together"):
        checked_size("items", [131_072, 1])


def test_a_vector_is_taken_as_it_is():
    assert checked_vector([0.0, 1e9], FIELDS, "vector") == (0.0, 1e9)
    assert checked_vector([-1e9, -0.5], FIELDS, "vector", -1e9) == (-1e9, -0.5)
    with pytest.raises(WrongInput, match=r"is -1.1e\+09; .* a number from -1e\+09 to 1e\+09"):
        checked_vector([-1.1e9, 1.0], FIELDS, "vector", -1e9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "vector has 1 values, the model takes 2"),
        ([1.0, 2.0, 3.0], "vector has 3 values"),
        ([float("nan"), 1.0], r"vector.values\[0\] is nan; vector_fields\[0\], 'Water \(g\)'"),
        ([1.0, float("-inf")], r"vector.values\[1\] is -inf; vector_fields\[1\]"),
        ([1.0, -1e-9], r"vector.values\[1\] is -1e-09"),
        ([1.0, 3e38], r"vector.values\[1\] is 3e\+38.* from 0 to 1e\+09"),
    ],
)
def test_a_vector_that_cannot_prefill_is_refused(values, message):
    with pytest.raises(WrongInput, match=message):
        checked_vector(values, FIELDS, "vector")


def test_a_symbol_without_an_id_is_refused_by_name():
    """A vocabulary from elsewhere may have nothing for the unknown."""
    model = ReadingModel(SimpleNamespace(name="m", limits={"input_tokens": 10}))
    reader = Tokenizer("characters", ListedVocabulary(("a", "b")))
    assert model.read(reader, "ab", "prompt").ids == [0, 1]
    with pytest.raises(WrongInput, match="prompt: 'c' is not in the vocabulary"):
        model.read(reader, "abc", "prompt")
