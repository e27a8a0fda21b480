"""Tokenizers that lose nothing of a text: of whole words, of learnt pieces, or of a tokenizer.json.

All three are of the kind ``subwords`` (bundle/tokenizer.py): a vocabulary of parts of texts, of
which the longest is read at each place. Every character of the training texts is in it, so that a
word that it lacks is spelled and a text is served as it was written.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.tokenizer import WORD_BEGIN, Tokenizer, spaced_parts
from bundle.vocabulary import Vocabulary
from training.bpe import merges_of
from training.readers import DataInvalid

# A word with the space before it, inner apostrophes and hyphens in it, or a mark.
_WORD = re.compile(rf"{WORD_BEGIN}?\w+(?:['’\-]\w+)*|{WORD_BEGIN}?[^\w\s{WORD_BEGIN}]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def learn_words(texts: Sequence[str], most: int, has_markers: bool) -> Tokenizer:
    """The most frequent words and marks, ``most`` ids at most, and every character."""
    parts = _parts_of(texts)
    words: Counter[str] = Counter()
    for part, times in parts.items():
        for word in _WORD.findall(part):
            words[word] += times
    ranked = sorted(words, key=lambda word: (-words[word], word))
    return _tokenizer(parts, ranked, most, has_markers)


def learn_subwords(texts: Sequence[str], most: int, has_markers: bool) -> Tokenizer:
    """Pieces learnt by byte pair encoding (training/bpe.py), ``most`` ids at most."""
    parts = _parts_of(texts)
    characters = {character for part in parts for character in part}
    return _tokenizer(parts, merges_of(parts, max(0, most - len(characters))), most, has_markers)


def read_tokenizer_json(path: Path, texts: Sequence[str], has_markers: bool) -> Tokenizer:
    """The pieces of a file of Hugging Face's ``tokenizers`` that the texts hold.

    Of the file its vocabulary is taken, and whether it lowercases; texts are cut by the longest
    match, whatever its model does. Raises DataInvalid for what is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        model = content["model"]
        vocabulary = model["vocab"]
        is_scored = isinstance(vocabulary, list)
        names = [str(entry[0]) for entry in vocabulary] if is_scored else list(vocabulary)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataInvalid(
            f"{path} is no tokenizer.json of Hugging Face's tokenizers: {error!r}; save one with "
            "Tokenizer.save"
        ) from error
    special = {token["content"] for token in content.get("added_tokens") or () if token["special"]}
    known = [name for name in names if name not in special and not _BYTE.fullmatch(name)]
    lowercase = _lowercases(content.get("normalizer"))
    if lowercase:
        texts = [text.lower() for text in texts]
    parts = _parts_of(texts)
    candidates = [piece for name in known for piece in _pieces_of(name, content) if piece]
    every = Vocabulary(tuple(dict.fromkeys((*candidates, *_characters(parts)))))
    most = len(every) + 4
    return _tokenizer(parts, every.symbols, most, has_markers, lowercase, only_used=True)


def _pieces_of(name: str, content: Mapping[str, Any]) -> Iterable[str]:
    """What an entry of a vocabulary is here, with WORD_BEGIN for the space before it."""
    model = content["model"]
    if _uses(content, "ByteLevel"):
        yield _of_bytes(name).replace(" ", WORD_BEGIN)
    elif model.get("type") == "WordPiece":
        prefix = model.get("continuing_subword_prefix") or "##"
        if name.startswith(prefix):
            yield name.removeprefix(prefix)
        else:
            # A word that begins a line has no space before it.
            yield from (WORD_BEGIN + name, name)
    elif _uses(content, "Metaspace") or any(WORD_BEGIN in entry for entry in (name,)):
        yield name
    else:
        yield from (WORD_BEGIN + name, name)


def _uses(content: Mapping[str, Any], kind: str) -> bool:
    """Whether a part of the file's pre-tokenizer or decoder is of a type."""
    parts = [content.get("pre_tokenizer"), content.get("decoder")]
    for part in list(parts):
        parts += (part or {}).get("pretokenizers", []) + (part or {}).get("decoders", [])
    return any(part and part.get("type") == kind for part in parts)


def _lowercases(normalizer: Mapping[str, Any] | None) -> bool:
    if not normalizer:
        return False
    if normalizer.get("type") == "Lowercase" or normalizer.get("lowercase"):
        return True
    return any(_lowercases(part) for part in normalizer.get("normalizers", ()))


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


_LETTERS = _byte_letters()


def _of_bytes(name: str) -> str:
    """The text of a byte-level entry; nothing where it is no whole character of UTF-8."""
    try:
        return bytes(_LETTERS[letter] for letter in name).decode("utf8")
    except (KeyError, UnicodeDecodeError):
        return ""


def _parts_of(texts: Sequence[str]) -> Counter[str]:
    return Counter(part for text in texts for part in spaced_parts(text))


def _characters(parts: Counter[str]) -> list[str]:
    """Every character by falling frequency, but those that occur once in a long text: these train
    the catch-all."""
    counts: Counter[str] = Counter()
    for part, times in parts.items():
        for character in part:
            counts[character] += times
    order = sorted(counts, key=lambda character: (-counts[character], character))
    return [c for c in order if counts[c] > 1] if counts.total() > 10_000 else order


def _tokenizer(
    parts: Counter[str],
    ranked: Iterable[str],
    most: int,
    has_markers: bool,
    lowercase: bool = False,
    only_used: bool = False,
) -> Tokenizer:
    """The characters and the first of ``ranked``, numbered by how often the texts hold each."""
    characters = _characters(parts)
    room = most - 2 - 2 * has_markers
    kept = list(dict.fromkeys((*characters, *ranked)))[: max(room, len(characters))]
    cut = Tokenizer("subwords", Vocabulary(tuple(kept)))
    seen = Counter(dict.fromkeys(kept, 0))
    for part, times in parts.items():
        for piece in cut.split(part.replace(WORD_BEGIN, " ")):
            if piece in seen:
                seen[piece] += times
    used = [p for p in seen if seen[p] or not only_used or p in characters]
    order = sorted(used, key=lambda piece: (-seen[piece], piece))
    return Tokenizer("subwords", Vocabulary(tuple(order), has_markers), lowercase)
