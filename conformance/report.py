"""What a run found: for people, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from conformance.cases import ANY_MODEL, PARTS, SEQUENCE, SERVER, STREAM, UNARY, Case
from conformance.runner import FAILED, NOT_OFFERED, PASSED, Outcome, Result
from conformance.selection import Chosen

STATUSES = ("passed", "failed", "not applicable", "not offered")


def list_of(cases: Iterable[Case]) -> str:
    """A table in Markdown: a case a line."""
    rows = [
        f"| `{case.id}` | {case.title} | {case.level} | {case.section} | `{case.field}` |"
        for case in cases
    ]
    head = "| case | promise | level | section | field |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def heading(target: str, server: Any, chosen: Chosen) -> str:
    """server: its ServerMetadataResponse, or None."""
    name = f"{server.name} {server.version}".strip() if server else "no ServerMetadata"
    lines = [f"{target}: {name}"]
    for kind in (UNARY, STREAM, SEQUENCE):
        lines.append(f"  {kind} models: {', '.join(chosen.names(kind)) or 'none'}")
    lines += [f"  left out: {name}: {why}" for name, why in chosen.left_out.items()]
    return "\n".join(lines)


def lines_of(results: Iterable[Result]) -> Iterator[str]:
    """Of results as they come. What is not offered takes a line for each reason."""
    for (is_missing, _), group in groupby(results, key=_reason):
        if is_missing:
            yield _missing(list(group))
        else:
            yield from map(line_of, group)


def _reason(result: Result) -> tuple[bool, str]:
    is_missing = result.status == NOT_OFFERED
    return is_missing, f"{result.case.part}: {_notes(result)}" if is_missing else ""


def _missing(results: Sequence[Result]) -> str:
    first, last = results[0], results[-1]
    ids = first.case.id if first is last else f"{first.case.id} to {last.case.id}"
    return f"{'NOT OFFERED':<15}{ids}: {_notes(first)}"


def line_of(result: Result) -> str:
    """A line a case; under a failed one, what was expected and found on each model."""
    case = result.case
    where = [outcome.model for outcome in result.outcomes if outcome.status == result.status]
    on = "" if case.on == SERVER or not any(where) else f"  [{', '.join(where)}]"
    note = "" if result.status in (PASSED, FAILED) else f": {_notes(result)}"
    lines = [f"{result.status.upper():<15}{case.id:<18}{case.title}{on}{note}"]
    if result.status == FAILED:
        lines.append(f"{'':<15}{case.level}; {case.section}, {case.field}")
        lines += [_failure(one) for one in result.outcomes if one.status == FAILED]
    return "\n".join(lines)


def _notes(result: Result) -> str:
    return "; ".join(dict.fromkeys(outcome.note for outcome in result.outcomes))


def _failure(outcome: Outcome) -> str:
    where = f"{outcome.model}: " if outcome.model else ""
    return f"{'':<15}{where}expected {outcome.expected}; found {outcome.found}"


def summary(results: Sequence[Result]) -> str:
    """A line a part, then the verdict."""
    lines = []
    for part in PARTS:
        counts = Counter(result.status for result in results if result.case.part == part)
        if set(counts) == {NOT_OFFERED}:
            lines.append(f"{part:<12}not offered")
        elif counts:
            found = (f"{counts[status]} {status}" for status in STATUSES if counts[status])
            lines.append(f"{part:<12}{', '.join(found)}")
    verdict = "conforms" if conforms(results) else "does not conform"
    return "\n".join([*lines, verdict])


def conforms(results: Sequence[Result]) -> bool:
    """Whether none failed and some passed."""
    statuses = {result.status for result in results}
    return FAILED not in statuses and PASSED in statuses


def as_json(target: str, server: Any, chosen: Chosen, results: Sequence[Result]) -> dict[str, Any]:
    """What json.dump takes."""
    return {
        "target": target,
        "server": {
            "name": server.name if server else "",
            "version": server.version if server else "",
            "extensions": list(server.extensions) if server else [],
        },
        "models": {kind: chosen.names(kind) for kind in (ANY_MODEL, UNARY, STREAM, SEQUENCE)},
        "left_out": chosen.left_out,
        "conforms": conforms(results),
        "cases": [_case_as_json(result) for result in results],
    }


def _case_as_json(result: Result) -> dict[str, Any]:
    case = result.case
    names = ("id", "title", "part", "level", "section", "field")
    return {name: getattr(case, name) for name in names} | {
        "status": result.status,
        "outcomes": [vars(outcome) for outcome in result.outcomes],
    }
