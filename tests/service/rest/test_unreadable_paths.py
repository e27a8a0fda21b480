"""Paths that are not UTF-8 behind their escapes: Envoy refuses them, others pass."""

import random
import re
from urllib.parse import quote, unquote_to_bytes

import pytest

from service.envoy.bootstrap import _READABLE_PATH

PIECES = ("é", "€", "😀", "a", "/", "%", "\x7f", "\ud7ff", "\U0010ffff")


def is_utf8(data):
    try:
        data.decode("utf8")
    except UnicodeDecodeError:
        return False
    return True


def test_a_path_is_readable_where_python_can_decode_it():
    """Texts in whole, and bytes at random, most of which begin like UTF-8."""
    draw = random.Random(1)
    texts = ("".join(draw.choices(PIECES, k=draw.randint(0, 5))).encode() for _ in range(2000))
    leads = (0x41, 0x80, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xA0, 0xED, 0x9F, 0xEF, 0xF0, 0x90, 0xF4)
    odd = (
        bytes(draw.choice((draw.randrange(256), draw.choice(leads))) for _ in range(count))
        for _ in range(20_000)
        for count in (draw.randint(1, 5),)
    )
    seen = set()
    for data in (*texts, *odd):
        path = quote(data)
        assert unquote_to_bytes(path) == data
        is_readable = re.fullmatch(_READABLE_PATH, path) is not None
        assert is_readable == is_utf8(data), path
        assert (re.fullmatch(_READABLE_PATH, path.lower()) is not None) == is_readable
        seen.add(is_readable)
    assert seen == {True, False}


@pytest.mark.parametrize("path", ["/v2/%ff", "/v2/models/%ed%a0%80", "/v2/%c3", "/v2/100%", "/%zz"])
def test_a_path_that_nobody_can_read_is_refused_at_once(rest, path):
    reply = rest.get(path)
    assert reply.status == 400
    assert b"UTF-8" in reply.body


def test_names_in_any_script_are_paths(rest):
    for name in ("é", "名前", "😀", "100%"):
        reply = rest.get(f"/v2/models/{quote(name)}")
        assert reply.status == 404
        assert f"'{name}'" in reply.error
    assert rest.get("/v2/health/live?x=%ff").status == 200
