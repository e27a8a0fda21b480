"""JSON of callers: what is read costs no more than was reserved, and nothing odd gets through."""

import json
import math
import tracemalloc

import pytest

from service.engine.errors import WrongInput
from service.rest import json_body
from service.rest.encoding import accepted
from service.rest.infer_request import read_infer
from service.rest.json_body import parsed_bytes, read_object

SIZE = 200_000


def filled(part, first=b'{"inputs": [', last=b"]}"):
    """A body of about SIZE bytes that repeats ``part``."""
    return first + b",".join([part] * (SIZE // (len(part) + 1))) + last


def tensor_of(datatype, part):
    first = b'{"inputs": [{"name": "x", "datatype": "%b", "shape": [1], "data": [' % datatype
    return filled(part, first, b"]}]}")


BODIES = {
    "lists": filled(b"[]"),
    "objects": filled(b"{}"),
    "small objects": filled(b'{"a":0}'),
    "objects of several": filled(b'{"a":0,"b":1,"c":[]}'),
    "lists of one": filled(b"[[[7777]]]"),
    "wide characters": filled(b'"%b"' % ("a" * 1000 + "\U0001f600").encode()),
    "floats": tensor_of(b"FP32", b"0.5"),
    "whole numbers": tensor_of(b"INT64", b"99999"),
    "whole numbers as floats": tensor_of(b"FP64", b"7"),
    "texts": tensor_of(b"BYTES", b'"ab"'),
    "empty texts": tensor_of(b"BYTES", b'""'),
    "nested numbers": tensor_of(b"FP32", b"[0.5]").replace(b"[1]", b"[%d, 1]" % (SIZE // 6)),
}


@pytest.mark.parametrize("kind", BODIES)
def test_reading_takes_no_more_than_is_reserved(kind):
    body = BODIES[kind]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        try:
            request, _ = read_infer("m", "", body, None)
            kept = request.ByteSize()
        except WrongInput:
            kept = 0
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - before > len(body)
    # tracemalloc does not see the message, of which there are two for a moment.
    assert most - before + 2 * kept <= parsed_bytes(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"[]", "a list"),
        (b"null", "null"),
        (b'"' + b"x" * 1000 + b'"', "xxx"),
        (b'{"a": 1, "a": 2}', '"a" comes twice'),
        (b'{"a": {"b": 1, "b": 2}}', '"b" comes twice'),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": -1e999}', "-1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "999"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": 1} {}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_what_is_no_plain_object_is_refused(body, words):
    with pytest.raises(WrongInput) as caught:
        read_object(body)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_numbers_that_are_none_are_those_of_triton():
    found = read_object(b'{"a": [NaN, Infinity, -Infinity]}')["a"]
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf]
    assert json_body.written(found) == b"[NaN,Infinity,-Infinity]"


def test_half_a_surrogate_pair_is_refused_with_its_place():
    with pytest.raises(WrongInput, match="'id' holds half"):
        read_infer("m", "", b'{"id": "\\ud800"}', None)
    body = (
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a", "\\udfff"]}]}'
    )
    with pytest.raises(WrongInput, match="element 1 holds half"):
        read_infer("m", "", body, None)
    with pytest.raises(WrongInput, match="parameter"):
        read_infer("m", "", b'{"parameters": {"a": "\\ud800"}}', None)
    with pytest.raises(WrongInput, match="parameter"):
        read_infer("m", "", b'{"parameters": {"\\ud800": 1}}', None)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (b"", ""),
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"deflate, gzip", "gzip"),
        (b"GZIP;q=0.5, deflate;q=0.8", "deflate"),
        (b"gzip;q=0, *", "deflate"),
        (b"gzip;q=0", ""),
        (b"*;q=0", ""),
        (b"br, identity", ""),
        (b"*", "gzip"),
        (b"gzip;q=many", "gzip"),
    ],
)
def test_encoding_is_the_one_that_is_preferred(header, encoding):
    assert accepted({"headers": [(b"accept-encoding", header)]}) == encoding


def test_more_lists_than_any_request_has_are_refused_before_they_are_made():
    body = b'{"inputs": [' + b",".join([b"[]"] * 140_000) + b"]}"
    with pytest.raises(WrongInput, match="140001 lists"):
        read_object(body)


def test_parts_make_one_list():
    """However many there are, and none."""
    for count in (0, 1, 4096, 4097, 10_000):
        values = list(range(count))
        assert json.loads(json_body.written_list(json_body.parts_of(values))) == values
