"""What trains, what validates and what is held out of a user's rows.

A row's part is a hash of what it is about, so it depends on no order and on no other row, and rows
that say the same are in one part. Files of their own (``--validation``, ``--held-out``) take the
place of a part; what they hold is then left out of the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from training.readers import DataInvalid

LEAST_KEYS = 10  # different rows, for something to be held out

Example = TypeVar("Example")


@dataclass(frozen=True)
class Splits(Generic[Example]):
    """notes: how it was split, printed before anything is trained. name: of what is held out."""

    train: Sequence[Example]
    validation: Sequence[Example]
    held_out: Sequence[Example]
    notes: tuple[str, ...] = ()
    name: str = "held-out rows"

    @property
    def every(self) -> list[Example]:
        return [*self.train, *self.validation, *self.held_out]


def splits_of(parts: Mapping[str, Sequence[Example]], name: str) -> Splits[Example]:
    """Of a data set that splits itself, into ``train``, ``validation`` and ``held-out``. name: of
    what is held out."""
    return Splits(parts["train"], parts["validation"], parts["held-out"], name=name)


@dataclass(frozen=True)
class Shares:
    """Of the different rows, those that validate and those that are held out."""

    validation: float = 0.1
    held_out: float = 0.1


def place_of(key: str) -> float:
    """0 … 1 of a key, whatever its case and its spaces."""
    plain = " ".join(key.casefold().split())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8]) / 2**64


def split_rows(
    rows: Sequence[Example],
    key: Callable[[Example], str],
    shares: Shares,
    validation: Sequence[Example] | None = None,
    held_out: Sequence[Example] | None = None,
) -> Splits[Example]:
    """validation, held_out: of files of their own, None where they are taken from ``rows``.

    Raises DataInvalid for too few different rows.
    """
    places = [place_of(key(row)) for row in rows]
    apart = {place_of(key(row)) for part in (validation, held_out) for row in part or ()}
    kept = [place for place in places if place not in apart]
    different = sorted(set(kept))
    if len(different) < LEAST_KEYS:
        raise DataInvalid(
            f"{len(different)} different rows to train on; give at least {LEAST_KEYS}"
            + (", apart from those of --validation and --held-out" if apart else "")
        )
    held = 0.0 if held_out is not None else shares.held_out
    validating = 0.0 if validation is not None else shares.validation
    first, second = _edge(different, held), 0.0
    second = _edge([place for place in different if place > first], validating, first)
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "held-out": []}
    for row, place in zip(rows, places, strict=True):
        if place not in apart:
            part = "held-out" if place <= first else "validation" if place <= second else "train"
            parts[part].append(row)
    found = Splits(
        parts["train"],
        parts["validation"] if validation is None else validation,
        parts["held-out"] if held_out is None else held_out,
    )
    twice = len(kept) - len(different)
    left_out = len(places) - len(kept)
    return Splits(
        found.train, found.validation, found.held_out, _notes(found, twice, left_out, held_out)
    )


def _edge(places: Sequence[float], share: float, begin: float = -1.0) -> float:
    """The last place of a part that begins after ``begin``: one row at least, where it has any."""
    if not share:
        return begin
    edge = max(begin, 0.0) + share
    return max(edge, places[0])


def _notes(
    found: Splits[Example], twice: int, left_out: int, held_out: Sequence[Example] | None
) -> tuple[str, ...]:
    how = "by a hash of each row" if held_out is None else "held out: a file of its own"
    notes = [
        f"{len(found.train):,} train, {len(found.validation):,} validate, "
        f"{len(found.held_out):,} are held out, {how}"
    ]
    if twice:
        notes.append(f"{twice:,} rows say what others say: each is in the same part as those")
    if left_out:
        notes.append(f"{left_out:,} rows that validate or are held out are left out of training")
    return tuple(notes)


def hidden_size(tokens: int) -> int:
    """Of a recurrent layer for a training text of so many tokens: more of them teach more units."""
    for least, size in ((3_000_000, 384), (1_000_000, 256), (200_000, 192), (30_000, 128)):
        if tokens >= least:
            return size
    return 96 if tokens >= 8_000 else 64


def epochs_of(batches: int) -> int:
    """Readings of so many batches: some 3,000 steps, five readings at least and 60 at most."""
    return min(60, max(5, round(3_000 / max(1, batches))))


__all__ = ["Shares", "Splits", "epochs_of", "hidden_size", "place_of", "split_rows", "splits_of"]
