"""A radix tree of token ids, with the state after them at some of its places.

A path is the ids as bytes, ID_BYTES each, so that a shared stretch is compared in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.requests import State

ID_BYTES = 4
# Of a place beside its label: the object, its dictionary, and its part of its parent's.
_PLACE_BYTES = 400


def path_of(tokens: Sequence[Any] | NDArray[Any]) -> bytes:
    """The ids of ``tokens`` as a path."""
    return np.array(tokens, "<i4").tobytes()


class Place:
    """label: the ids from its parent's place to it. depth: ids from the root to it. state: after
    them; None where it is not kept."""

    __slots__ = ("depth", "label", "parent", "places", "state")

    def __init__(self, label: bytes, depth: int, parent: Place | None) -> None:
        self.label = label
        self.depth = depth
        self.parent = parent
        self.places: dict[bytes, Place] = {}  # by the first id of their labels
        self.state: State | None = None


class PrefixTree:
    """size: bytes of its places, the states not counted."""

    def __init__(self) -> None:
        self.root = Place(b"", 0, None)
        self.size = 0

    def find(self, path: bytes) -> tuple[Place | None, int]:
        """The deepest place on ``path`` whose state is kept, and so many of the ids as any path
        of the tree begins with."""
        place, found, at = self.root, None, 0
        while True:
            if place.state is not None:
                found = place
            following = place.places.get(path[at : at + ID_BYTES])
            if following is None:
                return found, at // ID_BYTES
            if not path.startswith(following.label, at):
                return found, at // ID_BYTES + _common(following.label, path, at)
            place, at = following, at + len(following.label)

    def place(self, path: bytes) -> Place:
        """That of the whole path, made where there is none."""
        place, at = self.root, 0
        while at < len(path):
            following = place.places.get(path[at : at + ID_BYTES])
            if following is None:
                return self._add(place, path[at:])
            if not path.startswith(following.label, at):
                following = self._split(following, _common(following.label, path, at))
            place, at = following, at + len(following.label)
        return place

    def drop(self, place: Place) -> None:
        """Keep its state no more, nor what only led to it."""
        place.state = None
        while place.parent is not None and place.state is None and len(place.places) < 2:
            parent = place.parent
            if place.places:
                self._join(place)
                return
            del parent.places[place.label[:ID_BYTES]]
            self.size -= _PLACE_BYTES + len(place.label)
            place = parent

    def _add(self, parent: Place, label: bytes) -> Place:
        place = Place(label, parent.depth + len(label) // ID_BYTES, parent)
        parent.places[label[:ID_BYTES]] = place
        self.size += _PLACE_BYTES + len(label)
        return place

    def _split(self, place: Place, ids: int) -> Place:
        """A new place so many ids after the parent's, from which ``place`` goes on."""
        parent, label, end = place.parent, place.label, ids * ID_BYTES
        assert parent is not None, "the root has no label"
        between = Place(label[:end], parent.depth + ids, parent)
        parent.places[label[:ID_BYTES]] = between
        place.label, place.parent = label[end:], between
        between.places[place.label[:ID_BYTES]] = place
        self.size += _PLACE_BYTES
        return between

    def _join(self, place: Place) -> None:
        """Its only follower takes its label over."""
        parent = place.parent
        assert parent is not None, "the root has no label"
        (following,) = place.places.values()
        following.label = place.label + following.label
        following.parent = parent
        parent.places[following.label[:ID_BYTES]] = following
        self.size -= _PLACE_BYTES


def _common(label: bytes, path: bytes, at: int) -> int:
    """So many ids are equal in ``label`` and in ``path`` from ``at`` on."""
    count = min(len(label), len(path) - at) // ID_BYTES
    differ = np.frombuffer(label, "<i4", count) != np.frombuffer(path, "<i4", count, at)
    return int(differ.argmax()) if differ.any() else count
