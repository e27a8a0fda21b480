"""Strings of JSON as regular expressions: patterns over what a string says, read as expressions of
how JSON writes it."""

from __future__ import annotations

import re
from typing import Any

# Whatever stands for itself between quotes, and what is written with a backslash.
_PLAIN = r"""[^"\\\x00-\x1f]"""
STRING_CHARACTER = rf"""({_PLAIN}|\\["\\/bfnrt])"""

_YEAR_MONTH_DAY = (
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_HOUR_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = rf"{_HOUR_MINUTE}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+\-]{_HOUR_MINUTE})"
FORMATS = {
    "date": _YEAR_MONTH_DAY,
    "time": _HOURS,
    "date-time": f"{_YEAR_MONTH_DAY}T{_HOURS}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}

_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
# What JSON writes with a backslash and a letter.
_CONTROLS = {"n": "n", "t": "t", "r": "r", "f": "f"}
_MARKS = set('.+*?()|[]{}^$#&~-/\\"')
_QUANTIFIER = re.compile(r"([*+?]|\{\d+(,\d*)?\})\??")


class PatternInvalid(ValueError):
    """The message says what of it cannot be read, after the place of the pattern."""


def regex_of_pattern(pattern: Any) -> str:
    """The strings that ``pattern`` finds something in, as JSON writes them, without the quotes.

    Of ECMA-262's expressions: characters, classes, groups, alternatives and quantifiers, and
    anchors around the whole. Raises PatternInvalid.
    """
    if not isinstance(pattern, str):
        raise PatternInvalid("is no string")
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not _is_escaped(pattern)
    inner = pattern[begins : len(pattern) - ends]
    regex, has_ways = _translated(inner)
    if has_ways and begins != ends:
        raise PatternInvalid("has alternatives beside one anchor; put them into a group")
    if has_ways and begins:
        raise PatternInvalid("has alternatives between anchors; put them into a group")
    any_text = f"{STRING_CHARACTER}*"
    return f"{'' if begins else any_text}({regex}){'' if ends else any_text}"


def _is_escaped(pattern: str) -> bool:
    """Whether the last character is: by an odd number of backslashes."""
    before = pattern[:-1]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _translated(pattern: str) -> tuple[str, bool]:
    """The expression, and whether it has alternatives outside of groups."""
    parts: list[str] = []
    depth, place, has_ways = 0, 0, False
    while place < len(pattern):
        character = pattern[place]
        if found := _QUANTIFIER.match(pattern, place):
            parts.append(found.group())
            place = found.end()
            continue
        if character == "(":
            depth += 1
            place += _group_length(pattern, place)
            parts.append("(")
            continue
        if character == "[":
            part, place = _class(pattern, place)
            parts.append(part)
            continue
        if character == "\\":
            parts.append(_escape(pattern[place + 1 : place + 2]))
            place += 2
            continue
        if character in "^$":
            raise PatternInvalid("has an anchor within; anchors stand at its ends")
        depth -= character == ")"
        has_ways |= character == "|" and depth == 0
        parts.append(_PLAIN if character == "." else _character(character))
        place += 1
    return "".join(parts), has_ways


def _group_length(pattern: str, place: int) -> int:
    """Of what opens a group."""
    if pattern.startswith("(?:", place):
        return 3
    if pattern.startswith("(?", place):
        raise PatternInvalid("looks around, or names a group; neither can be compiled")
    return 1


def _character(character: str) -> str:
    if character in ")|":
        return character
    return _escape(character) if character in _MARKS else _checked(character)


def _checked(character: str) -> str:
    if character < " ":
        raise PatternInvalid("has a control character; write it with a backslash")
    return character


def _escape(character: str) -> str:
    """What is behind a backslash."""
    if character in _CONTROLS:
        return rf"\\{_CONTROLS[character]}"
    if character.lower() in _CLASSES:
        inside = _CLASSES[character.lower()]
        return f"[{inside}]" if character.islower() else rf"""[^{inside}"\\\x00-\x1f]"""
    if character in ('"', "\\"):
        return rf"\\\{character}" if character == "\\" else r"\\" + '"'
    if character in _MARKS and character:
        return character if character == "/" else rf"\{character}"
    raise PatternInvalid(f"has \\{character}, which is not read here")


def _class(pattern: str, place: int) -> tuple[str, int]:
    """A class in brackets, and the place behind it."""
    place += 1
    is_negated = pattern.startswith("^", place)
    place += is_negated
    parts: list[str] = []
    while place < len(pattern) and pattern[place] != "]":
        character = pattern[place]
        place += 1
        if character == "\\":
            character = pattern[place : place + 1]
            place += 1
            if character in _CLASSES:
                parts.append(_CLASSES[character])
                continue
            if not character or character.isalnum():
                raise PatternInvalid(f"has \\{character} in brackets, which is not read here")
        elif character == "-" and parts and pattern[place : place + 1] not in ("", "]"):
            parts.append("-")
            continue
        if character in '"\\' and not is_negated:
            raise PatternInvalid(f"has {character} in brackets; write it as an alternative")
        _checked(character)
        parts.append(rf"\{character}" if character in _MARKS - {"/", '"'} else character)
    if place >= len(pattern):
        raise PatternInvalid("has a bracket that is not closed")
    if not parts:
        raise PatternInvalid("has empty brackets")
    inside = "".join(parts)
    if is_negated:
        return rf"""[^{inside}"\\\x00-\x1f]""", place + 1
    # A range may span what JSON writes with a backslash.
    return rf"""[{inside}&&{_PLAIN}]""", place + 1
