import io
import struct
import tarfile
import zlib

import pytest

from tests.training.real import real
from training.data.debian import ar_members
from training.data.verses import (
    Pair,
    load_pairs,
    pair_up,
    parse_verses,
    plain_text,
    read_testament,
    split_pairs,
    without_capitals,
)

ENTRIES = (
    "",
    "<milestone/>",
    '<div osisID="Gen" type="book"/>',
    '<chapter n="1" osisID="Gen.1" sID="Gen.1"/>',
    "<w>The first</w> verse.",
    "",
    '<w>The third</w> verse. <chapter eID="Gen.1" osisID="Gen.1"/>',
    '<chapter n="2" osisID="Gen.2" sID="Gen.2"/><title>A title</title>',
    "<w>Another</w> chapter.",
)


def test_verses_are_numbered_by_their_place_after_a_chapter_s_mark():
    """A verse that is not there takes its number with it; what precedes a book is none."""
    assert parse_verses(ENTRIES) == {
        ("Gen", 1, 1): "The first verse.",
        ("Gen", 1, 2): "",
        ("Gen", 1, 3): "The third verse.",
        ("Gen", 2, 1): "Another chapter.",
    }


def test_a_verse_is_read_without_footnotes_and_markup():
    entry = (
        '<w>Then</w> <w>said</w> Ann,<note place="foot"><reference>1:1 </reference>or Anna'
        "</note><w>who</w> <w>came</w> <transChange>early</transChange><w>in</w>:<lb/>“<l>Go"
        "</l><l>home</l>.” <title>Of homes</title>"
    )
    assert plain_text(entry) == "Then said Ann, who came early in: “Go home.”"


def test_a_chapter_s_first_words_lose_their_capitals():
    """Written as elsewhere in the text; the first letter of a verse stays a capital."""
    verses = {
        ("Gen", 1, 1): "EN la casa de Ana.",
        ("Gen", 1, 2): "Y ANA vivía en la casa.",
        ("Gen", 1, 3): "Y LA casa era de Ana.",
        ("Gen", 1, 4): "Ya dijo: YO SOY.",
    }
    assert list(without_capitals(verses).values()) == [
        "En la casa de Ana.",
        "Y Ana vivía en la casa.",
        "Y la casa era de Ana.",
        "Ya dijo: YO SOY.",
    ]


def test_a_pair_needs_both_languages():
    english = {("Gen", 1, 1): "One.", ("Gen", 1, 2): "", ("Gen", 1, 4): "Four."}
    spanish = {("Gen", 1, 1): "Uno.", ("Gen", 1, 2): "Dos.", ("Gen", 1, 3): "Tres."}
    assert pair_up(english, spanish) == [Pair("One.", "Uno.")]


def test_every_tenth_short_verse_is_held_out():
    """Long ones train, and are not counted."""
    short = [Pair(f"verse {number}", "v") for number in range(100)]
    long = [Pair(" ".join(["word"] * 21), "v")] * 3
    splits = split_pairs([*long, *short])
    assert splits["held-out"] == short[::10]
    assert splits["validation"] == short[5::20]
    assert len(splits["train"]) == 85 + 3
    assert not set(splits["train"]) & {*splits["held-out"], *splits["validation"]}


def test_a_testament_is_read_from_its_three_files():
    books = [b"first verse second verse", "año".encode()]
    packed = [zlib.compress(book) for book in books]
    offsets = struct.pack(
        "<6I", 0, len(packed[0]), len(books[0]), len(packed[0]), len(packed[1]), 4
    )
    places = b"".join(
        struct.pack("<IIH", *place) for place in ((0, 0, 11), (0, 12, 12), (1, 0, 0), (1, 0, 4))
    )
    assert read_testament(offsets, places, b"".join(packed)) == [
        "first verse", "second verse", "", "año",
    ]  # fmt: skip


def test_members_of_an_archive_begin_at_even_offsets():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as files:
        files.addfile(tarfile.TarInfo("empty"))
    contents = [("debian-binary", b"2.0"), ("data.tar", buffer.getvalue())]
    archive = b"!<arch>\n"
    for name, content in contents:
        archive += f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        archive += content + b"\n" * (len(content) % 2)
    assert list(ar_members(archive)) == contents


@pytest.mark.real_data
def test_the_real_verses_have_the_known_number():
    pairs = real(load_pairs)
    splits = split_pairs(pairs)
    assert len(pairs) == 31_077
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 29_067, "validation": 670, "held-out": 1_340,
    }  # fmt: skip
    assert pairs[0] == Pair(
        "In the beginning, God created the heavens and the earth.",
        "En el principio crió Dios los cielos y la tierra.",
    )
