"""The prefix cache: states after the beginnings of prompts, and encoded sources, of all models."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.engine.prefix_tree import ID_BYTES, Place, PrefixTree
from service.engine.prefixes import Found
from service.engine.requests import State
from service.serving.model_info import ModelCard

# Of a state beside the numbers of its tensors: the array objects, and its place in the order.
_STATE_BYTES, _TENSOR_BYTES = 300, 120

# What a state is good for: (bundle digest, precision, fingerprint), and for whom.
Owner = tuple[str, str, str, str]


def _nothing() -> None:
    """Nobody counts."""


@dataclass(slots=True)
class _Kept:
    owner: Owner
    tree: PrefixTree
    size: int


class PrefixCache:
    """limit: bytes of states and of the tree that finds them; 0 keeps none. Least recently used
    ones go first. on_eviction: called for each state that has to go. On any thread.
    """

    def __init__(self, limit: int, on_eviction: Callable[[], None] = _nothing) -> None:
        self.limit = limit
        self.used = 0
        self._on_eviction = on_eviction
        self._lock = threading.Lock()
        self._trees: dict[Owner, PrefixTree] = {}
        self._recent: OrderedDict[Place, _Kept] = OrderedDict()

    @property
    def states(self) -> int:
        return len(self._recent)

    def find(self, owner: Owner, path: bytes, whole: bool) -> Found:
        """As Prefixes."""
        with self._lock:
            tree = self._trees.get(owner)
            if tree is None:
                return _NOTHING
            place, shared = tree.find(path)
            if place is None or (whole and place.depth < len(path) // ID_BYTES):
                return Found(0, None, shared)
            self._recent.move_to_end(place)
            return Found(place.depth, place.state, shared)

    def keep(self, owner: Owner, path: bytes, state: State) -> None:
        """As Prefixes."""
        size = _STATE_BYTES + sum(_TENSOR_BYTES + array.nbytes for array in state.values())
        if size + len(path) > self.limit:
            return
        for array in state.values():
            array.setflags(write=False)  # whoever goes on from it copies it
        with self._lock:
            tree = self._trees.get(owner)
            if tree is None:
                tree = self._trees[owner] = PrefixTree()
            before = tree.size
            place = tree.place(path)
            self.used += tree.size - before
            if place.state is None:
                place.state = state
                self._recent[place] = _Kept(owner, tree, size)
                self.used += size
            self._recent.move_to_end(place)
            self._evict(self.limit)

    def shrink(self, limit: int) -> None:
        """Keep at most so many bytes now; there may be more again."""
        with self._lock:
            self._evict(max(0, limit))

    def _evict(self, limit: int) -> None:
        while self.used > limit and self._recent:
            place, kept = self._recent.popitem(last=False)
            before = kept.tree.size
            kept.tree.drop(place)
            self.used -= kept.size + before - kept.tree.size
            self._on_eviction()
            if not kept.tree.root.places:
                del self._trees[kept.owner]


_NOTHING = Found(0, None, 0)


class ModelPrefixes:
    """Those of one model, in the cache of all. per_caller: whether callers find only their own."""

    def __init__(self, cache: PrefixCache, card: ModelCard, per_caller: bool) -> None:
        self._cache = cache
        self._bundle = (card.digest, card.precision, card.fingerprint)
        self._per_caller = per_caller

    def find(self, caller: str, path: bytes, whole: bool) -> Found:
        return self._cache.find(self._owner(caller), path, whole)

    def keep(self, caller: str, path: bytes, state: State) -> None:
        self._cache.keep(self._owner(caller), path, state)

    def _owner(self, caller: str) -> Owner:
        return (*self._bundle, caller if self._per_caller else "")
