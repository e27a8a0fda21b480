"""Whether a history is one that the service's promises allow: a model of it, without its code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from tests.robustness.history import (
    CLASSIFY,
    GENERATE,
    HANDED_OVER,
    LEFT,
    LOAD,
    OK,
    SEQUENCE,
    TAGS,
    UNLOAD,
    Call,
    History,
)

# What a caller may be answered when a fault, another caller or an operator came in between.
REFUSALS = {
    OK, LEFT, HANDED_OVER, "INTERNAL", "UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED",
    "INVALID_ARGUMENT",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What a service left in peace gives.

    generated, tagged: the tokens of each request, by its name. classified: by version and name.
    after: what the last part of a sequence of these parts is answered.
    operated: the model that is loaded and unloaded meanwhile; served: its versions at the start.
    """

    generated: Mapping[str, Sequence[Any]]
    tagged: Mapping[str, Sequence[Any]]
    classified: Mapping[tuple[str, str], Any]
    after: Callable[[Sequence[str]], Any]
    operated: str
    served: frozenset[str]


def violations(history: History, model: Model, while_stopping: bool = False) -> list[str]:
    """What the history holds and the promises do not allow, a line each.

    while_stopping: a service that stops cancels what it has no time to end.
    """
    refusals = REFUSALS | {"CANCELLED"} if while_stopping else REFUSALS
    return [
        *_endings(history, refusals),
        *_streams(history.of(GENERATE), model.generated),
        *_streams(history.of(TAGS), model.tagged),
        *_sequences(history.of(SEQUENCE), model.after),
        *_answers_of_versions(history, model),
    ]


def _endings(history: History, refusals: Set[str]) -> Iterator[str]:
    """Each call ends, once, with a status that says something."""
    for call in history.calls:
        if call.ended is None or call.status not in refusals:
            yield f"{_name(call)} ended with {call.status or 'nothing'}: {call.detail}"
        if call.kind in (GENERATE, TAGS) and call.finishes != (call.status in (OK, HANDED_OVER)):
            yield f"{_name(call)} was finished {call.finishes} times, and its status {call.status}"


def _streams(calls: Sequence[Call], references: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """What was read are the reference's tokens from the start on: all of them at a regular end."""
    for call in calls:
        whole = references[call.about][call.start :]
        read = call.answer or []
        if read != whole[: len(read)]:
            place = next((n for n, (a, b) in enumerate(zip(read, whole, strict=False)) if a != b),
                         len(whole))  # fmt: skip
            yield f"{_name(call)} differs from token {call.start + place} on"
        elif call.status == OK and len(read) != len(whole):
            yield f"{_name(call)} ended after {len(read)} of {len(whole)} tokens"


def _sequences(calls: Sequence[Call], after: Callable[[Sequence[str]], Any]) -> Iterator[str]:
    """The answers are those of some order that the times allow; what failed changed nothing."""
    groups: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.status == OK:
            groups[call.group].append(call)
    for group in groups.values():
        if not _has_order(group, None, after):
            named = ", ".join(repr(call.about) for call in group)
            yield f"sequence {group[0].group}: no order of its requests gives its answers: {named}"


def _has_order(
    left: list[Call], before: tuple[str, ...] | None, after: Callable[[Sequence[str]], Any]
) -> bool:
    """before: the parts until here; None while no sequence is under way."""
    if not left:
        return True
    for call in left:
        part, is_first, is_last = call.about
        if any(other.ended < call.began for other in left if other is not call):
            continue  # that one came earlier
        so_far = () if is_first else before
        if so_far is None or after((*so_far, part)) != call.answer:
            continue
        rest = [other for other in left if other is not call]
        if _has_order(rest, None if is_last else (*so_far, part), after):
            return True
    return False


def _answers_of_versions(history: History, model: Model) -> Iterator[str]:
    """What is classified is so by a version that was served meanwhile: a load is there or not."""
    served = _served_over_time(history, model)
    for call in history.of(CLASSIFY):
        meanwhile = [
            versions
            for versions, begins, ends in served
            if begins <= (call.ended or call.began) and ends >= call.began
        ]
        if call.status == OK:
            possible = {max(versions) for versions in meanwhile if versions}
            if not any(call.answer == model.classified[v, call.about] for v in possible):
                yield f"{_name(call)} is answered as by none of {sorted(possible)}"
        elif call.status == "NOT_FOUND" and all(meanwhile):
            yield f"{_name(call)} found no model, and one was served throughout"


def _served_over_time(history: History, model: Model) -> list[tuple[frozenset[str], float, float]]:
    """The versions that were served, since when at the earliest, and until when at the latest.

    One caller after the other loads and unloads. An attempt that failed changed nothing.
    """
    times = [(model.served, 0.0, float("inf"))]
    for call in history.of(LOAD, UNLOAD):
        name, versions = call.about
        if name == model.operated and call.status == OK:
            before, begins, _ = times.pop()
            times += [(before, begins, call.ended), (versions, call.began, float("inf"))]
    return times


def not_released(seen: Mapping[str, Any]) -> list[str]:
    """What a service still holds without callers, a line each."""
    held = {name: seen[name] for name in ("calls", "sequences")}
    held |= {f"open work of {name}": count for name, count in seen["open_work"].items()}
    held |= {f"users of {name}": count for name, count in seen["users"].items()}
    held["versions that are not served"] = seen["versions"] - seen["served"]
    for name, rows in seen["models"].items():
        held[f"rows of {name}"] = rows["capacity"] - rows["free"]
        held[f"rows of {name} allocated and not freed"] = rows["allocated"] - rows["freed"]
        for what in ("waiting", "paused", "dirty_rows", "canaries_read", "spoilt_rows"):
            held[f"{what} of {name}"] = rows[what]
    return [f"{what}: {count}" for what, count in held.items() if count]


def _name(call: Call) -> str:
    return f"{call.kind} {call.about!r} from {call.start} (group {call.group})"
