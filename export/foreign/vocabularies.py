"""Vocabularies and labels of models from elsewhere, in their own order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import VocabularyInvalid
from bundle.store import MOST_JSON_BYTES
from bundle.tokenizer import KINDS, Tokenizer
from bundle.vocabulary import ROLES, ListedVocabulary
from export.foreign.errors import ImportRefused

# As they are written in a file of lines, where a symbol is one of these.
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\", "\\s": " "}


def read_symbols(path: Path) -> list[str]:
    """One symbol a line, in the order of the ids; or JSON: a list, or an object of ids by symbol.

    A line ``\\n``, ``\\t``, ``\\r``, ``\\s`` or ``\\\\`` is a line end, a tab, a return, a space
    or a backslash. Raises ImportRefused.
    """
    text = _text(path)
    symbols = _of_json(path, text) if path.suffix == ".json" else text.split("\n")
    if path.suffix != ".json":
        symbols = [_ESCAPES.get(line, line) for line in map(_without_return, symbols)]
        if symbols and not symbols[-1]:
            symbols.pop()
    if not symbols or not all(symbols):
        raise ImportRefused(f"{path} holds an empty symbol, or none")
    return symbols


def _without_return(line: str) -> str:
    return line.removesuffix("\r")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ImportRefused(f"{path} has more than {MOST_JSON_BYTES // 1024**2} MiB")
        return path.read_bytes().decode("utf8")
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ImportRefused(f"{path} is not UTF-8 ({error.reason} at {error.start})") from error


def _of_json(path: Path, text: str) -> list[str]:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{path} is not JSON ({error})") from error
    if isinstance(content, dict):
        places = list(content.values())
        if sorted(map(str, places)) != sorted(map(str, range(len(places)))):
            raise ImportRefused(f"{path}: its ids are not 0 to {len(places) - 1}")
        content = sorted(content, key=lambda symbol: int(content[symbol]))
    if not isinstance(content, list) or not all(isinstance(part, str) for part in content):
        raise ImportRefused(f"{path} is neither a list of symbols nor an object of ids")
    return content


def tokenizer_of(
    symbols: list[str], special: Mapping[str, str], kind: str, lowercase: bool = False
) -> Tokenizer:
    """special: role → the symbol. kind: of ``bundle.tokenizer.KINDS``; empty for ``characters``
    where every symbol that stands for text is one, else ``words``. Raises ImportRefused.
    """
    places = []
    for role, symbol in special.items():
        if role not in ROLES:
            raise ImportRefused(f"special symbol {role!r} is not one of {', '.join(ROLES)}")
        if symbol not in symbols:
            raise ImportRefused(f"the symbol {symbol!r} for {role!r} is not in the vocabulary")
        places.append((role, symbols.index(symbol)))
    plain = [symbol for symbol in symbols if symbol not in special.values()]
    chosen = kind or ("characters" if all(len(symbol) == 1 for symbol in plain) else "words")
    if chosen not in KINDS:
        raise ImportRefused(f"kind {chosen!r} is not one of {', '.join(KINDS)}")
    try:
        vocabulary = ListedVocabulary(tuple(symbols), special=tuple(places))
    except VocabularyInvalid as error:
        raise ImportRefused(str(error)) from error
    return Tokenizer(chosen, vocabulary, lowercase)
