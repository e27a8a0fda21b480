"""Compiles one pattern over one vocabulary, in a process that may be ended at any time.

Run as a script by ``compiling.py``, with a request as JSON on standard input; it imports nothing of
the service. Standard output gets a line of JSON and, where there is an automaton, its arrays.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from outlines_core import Index, Vocabulary

# As service/engine/automaton.py has it.
_UNBOUNDED = 2**31 - 1
_BYTES = 256
# Behind every text, so that it matches there alone: where a match may end before, outlines-core
# drops what later alternatives would go on with, and a|ab would let no b follow.
_LAST = "\U0010ffff"
# What outlines-core calls a state in which no token can follow.
_NO_TRANSITIONS = "vocabulary provided is incompatible"


class Refused(Exception):
    """The pattern cannot be compiled. kind: why, as ``compiling.py`` reads it."""

    def __init__(self, kind: str, **more: Any) -> None:
        super().__init__(kind)
        self.answer = {"refused": kind, **more}


@dataclass
class Graph:
    """States with transitions by token, both as lists; state 0 is the beginning."""

    tokens: list[array[int]] = field(default_factory=list)
    targets: list[array[int]] = field(default_factory=list)
    accepting: list[bool] = field(default_factory=list)


def main() -> None:
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["bytes"])
    try:
        graph = compiled(request)
    except Refused as refused:
        sys.stdout.write(json.dumps(refused.answer))
        return
    except MemoryError:
        sys.stdout.write(json.dumps({"refused": "large"}))
        return
    _write(graph)


def _limit(seconds: int, size: int) -> None:
    """From here on the kernel ends this process where it takes more."""
    os.nice(10)  # streams go first
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def compiled(request: dict[str, Any]) -> Graph:
    """first, later: (token, its text) at the beginning of a text, and after others; no first ones
    where those are the same. Raises Refused.
    """
    first, later, limit = request["first"], request["later"], request["transitions"]
    regex, size = request["regex"], 1 + max((token for token, _ in later), default=0)
    begin = size if first else 0
    index = _index(regex, first, later, size, is_whole=False)
    graph = _pruned(_walk(index, size, begin, limit)) if index else None
    if graph is None:
        # With every byte as a token there is no such state. Where only some ways of going on end
        # nowhere, the others are left.
        index = _index(regex, first, later, size, is_whole=True)
        graph = _pruned(_walk(index, size, begin, limit))
        if graph is None:
            whole = _walk(index, size, begin, limit, with_bytes=True)
            raise Refused("unspelt", lacks=_lacking(whole, 2 * size))
    if not graph.tokens[0]:
        raise Refused("empty")
    return graph


def _index(
    regex: str, first: Sequence[Any], later: Sequence[Any], size: int, is_whole: bool
) -> Any:
    """Every token below ``size`` by what it says later, from there on by what it says first.

    is_whole: every byte is a token from 2 * size on. None where outlines-core finds a state in
    which no token can follow. Raises Refused for what is no pattern.
    """
    ids: dict[bytes, list[int]] = {}
    for offset, pairs in ((0, later), (size, first)):
        for token, text in pairs:
            ids.setdefault(text.encode(), []).append(offset + token)
    if is_whole:
        for value in range(_BYTES):
            ids.setdefault(bytes((value,)), []).append(2 * size + value)
    ids[_LAST.encode()] = [_last(size)]
    try:
        return Index(f"(?:{regex}){_LAST}", Vocabulary(_last(size) + 1, ids))
    except ValueError as error:
        if _NO_TRANSITIONS in str(error).lower():
            if is_whole:  # not even a byte: no text can go on there
                raise Refused("unspelt", lacks=[]) from error
            return None
        raise Refused("invalid", reason=str(error)) from error


def _last(size: int) -> int:
    """The id of what is behind every text."""
    return 2 * size + _BYTES


def _walk(index: Any, size: int, begin: int, most: int, with_bytes: bool = False) -> Graph:
    """The states in the order in which tokens reach them.

    begin: offset of the tokens that begin a text. with_bytes: they may follow everywhere. Raises
    Refused for more than ``most`` transitions.
    """
    graph, left = Graph(), most
    # The beginning is a state of its own: it may come again, where later texts follow.
    numbers: dict[int, int] = {}
    waiting = deque([(index.get_initial_state(), begin)])
    while waiting:
        state, offset = waiting.popleft()
        last = offset + size
        ids = sorted(
            token
            for token in index.get_allowed_tokens(state) or ()
            if offset <= token < last or (with_bytes and 0 <= token - 2 * size < _BYTES)
        )
        left -= len(ids) + 1
        if left < 0:
            raise Refused("large")
        targets = array("i")
        for token in ids:
            target = index.get_next_state(state, token)
            number = numbers.get(target)
            if number is None:
                number = numbers[target] = len(numbers) + 1
                waiting.append((target, 0))
            targets.append(number)
        graph.tokens.append(array("i", [t - offset if t < last else t for t in ids]))
        graph.targets.append(targets)
        end = index.get_next_state(state, _last(size))
        graph.accepting.append(end is not None and index.is_final_state(end))
    return graph


def _pruned(graph: Graph) -> Graph | None:
    """Without states from which no text ends; None where the beginning is one.

    States are numbered anew, in the order in which tokens reach them.
    """
    alive = _ending(graph)
    if not alive[0]:
        return None
    numbers, order = {0: 0}, [0]
    pruned = Graph()
    for state in order:  # which grows
        pairs = zip(graph.tokens[state], graph.targets[state], strict=True)
        kept = [(token, target) for token, target in pairs if alive[target]]
        for _, target in kept:
            if target not in numbers:
                numbers[target] = len(order)
                order.append(target)
        pruned.tokens.append(array("i", [token for token, _ in kept]))
        pruned.targets.append(array("i", [numbers[target] for _, target in kept]))
        pruned.accepting.append(graph.accepting[state])
    return pruned


def _before(graph: Graph) -> list[list[int]]:
    """Of each state, those from which it can be reached by one token."""
    before: list[list[int]] = [[] for _ in graph.targets]
    for state, targets in enumerate(graph.targets):
        for target in set(targets):
            before[target].append(state)
    return before


def _ending(graph: Graph) -> list[bool]:
    """Whether a text can end in a state or after it."""
    alive, before = list(graph.accepting), _before(graph)
    waiting = [state for state, is_alive in enumerate(alive) if is_alive]
    while waiting:
        for state in before[waiting.pop()]:
            if not alive[state]:
                alive[state] = True
                waiting.append(state)
    return alive


def longest(graph: Graph) -> array[int]:
    """Tokens that can follow each state at most."""
    before = _before(graph)
    open_edges = [len(set(targets)) for targets in graph.targets]
    lengths = array("i", [_UNBOUNDED] * len(open_edges))
    waiting = [state for state, count in enumerate(open_edges) if not count]
    for state in waiting:  # which grows
        lengths[state] = max((lengths[t] + 1 for t in set(graph.targets[state])), default=0)
        for earlier in before[state]:
            open_edges[earlier] -= 1
            if not open_edges[earlier]:
                waiting.append(earlier)
    return lengths


def _lacking(graph: Graph, first_byte: int) -> list[str]:
    """What the vocabulary cannot spell of the text that takes the fewest bytes beside it."""
    came: dict[int, tuple[int, int]] = {}
    costs = {0: (0, 0)}
    waiting = [(0, 0, 0)]
    while waiting:
        lacked, length, state = heappop(waiting)
        if graph.accepting[state]:
            return _runs(came, state, first_byte)
        if costs[state] < (lacked, length):
            continue
        for token, target in zip(graph.tokens[state], graph.targets[state], strict=True):
            cost = (lacked + (token >= first_byte), length + 1)
            if target not in costs or cost < costs[target]:
                costs[target], came[target] = cost, (state, token)
                heappush(waiting, (*cost, target))
    return []  # no text at all satisfies the pattern


def _runs(came: dict[int, tuple[int, int]], state: int, first_byte: int) -> list[str]:
    """Bytes in a row on the way to ``state``, as texts; each once, in their order."""
    runs, run = [], b""
    while state:
        state, token = came[state]
        if token >= first_byte:
            run = bytes((token - first_byte,)) + run
        if run and (token < first_byte or not state):
            runs.append(run.decode(errors="replace"))
            run = b""
    return list(dict.fromkeys(reversed(runs)))


def _write(graph: Graph) -> None:
    starts = array("q", [0])
    for tokens in graph.tokens:
        starts.append(starts[-1] + len(tokens))
    head = {"states": len(graph.tokens), "transitions": starts[-1]}
    out = sys.stdout.buffer
    out.write(json.dumps(head).encode() + b"\n")
    out.write(starts.tobytes())
    for each in (*graph.tokens, *graph.targets, longest(graph)):
        out.write(each.tobytes())
    out.write(bytes(graph.accepting))


if __name__ == "__main__":
    main()
