"""Requests of a few texts that come raw are answered without arrays, once one such was read: as
they are otherwise, byte for byte."""

import numpy as np
import pytest

from service.engine.errors import WrongInput
from service.oip.tensors import (
    DATATYPES,
    bytes_array,
    raw_of,
    raw_text,
    read_raw,
    texts_of,
    texts_of_raw,
)
from tests.service.oip.calls import ask, read

TEXTS = ["a good film", "bad", "ungut £ 😀", "good good bad"]


def asked(texts, outputs, **more):
    column = [[text] for text in texts]
    return ask("mood", {"text": column}, raw=True, outputs=outputs, **more)


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize(
    "outputs", [(), ("probabilities", "label"), ("probability",), ("label", "probability")]
)
def test_the_first_answer_of_its_kind_is_like_all_that_follow(inference, count, outputs):
    request = asked(TEXTS[:count], outputs, id="9")
    answers = [inference.stub.ModelInfer(request, timeout=20) for _ in range(4)]
    first = answers[0].SerializeToString(deterministic=True)
    assert [a.SerializeToString(deterministic=True) for a in answers[1:]] == [first] * 3
    assert answers[0].parameters["unknown_symbols"].int64_param == {1: 2, 3: 5, 4: 5}[count]


def test_other_texts_get_their_own_answers(inference):
    def answer(texts, **more):
        return read(inference.stub.ModelInfer(ask("mood", {"text": texts}, **more)))

    for text in TEXTS * 2:
        raw, typed = answer([text], raw=True), answer([text])
        assert raw.keys() == typed.keys()
        assert all(np.array_equal(raw[name], typed[name]) for name in raw)


def test_what_cannot_be_read_is_refused_as_before(inference, refused):
    request = asked(["good"], ())
    for _ in range(3):
        inference.stub.ModelInfer(request, timeout=20)
    for content, says in (
        (b"\x05\0\0\0good", "input 'text': element 0 has 5 bytes by its length, and 4 are left"),
        (b"\x04\0\0\0good!", "input 'text': 1 raw bytes follow its 1 elements"),
        (b"\x01\0", "too few for the lengths of 1 elements of BYTES"),
        (b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
        (b"\0\0\0\0", "input 'text': texts[0] is empty"),
    ):
        request.raw_input_contents[0] = content
        assert says in refused(request)


def test_raw_texts_are_read_as_arrays_are():
    def slowly(raw, count):
        try:
            return texts_of(read_raw(raw, DATATYPES["BYTES"], count, "it"), "it")
        except WrongInput:
            return None

    whole = raw_of(bytes_array(TEXTS))
    assert whole == b"".join(map(raw_text, TEXTS))
    cases = [whole, whole[:-1], whole + b"\0", b"", b"\xff" * 9, raw_text("\ud800")]
    for raw in cases:
        for count in (1, 4, 5):
            assert texts_of_raw(raw, count) == slowly(raw, count)
    assert texts_of_raw(whole, 4) == TEXTS
