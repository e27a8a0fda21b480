"""What a case is, how it registers itself, and how it says that it failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

CORE, STREAMING, SEQUENCES = "core", "streaming", "sequences"
EXTENSIONS, REST = "extensions", "rest"
PARTS = (CORE, STREAMING, SEQUENCES, EXTENSIONS, REST)
# The first two words of an id, in the order that cases run in.
GROUPS = (
    *("core-live", "core-ready", "core-meta", "core-infer", "core-refuse"),
    *("stream-infer", "stream-error", "stream-final"),
    *("seq-infer", "seq-refuse", "seq-life"),
    *("ext-list", "ext-config", "ext-index", "ext-stats", "ext-param"),
    *("rest-live", "rest-ready", "rest-meta", "rest-infer", "rest-binary", "rest-refuse"),
    *("rest-ext", "rest-generate"),
)
# What a case runs on: the server once, or every model of a kind.
SERVER, ANY_MODEL, UNARY, STREAM, SEQUENCE = "server", "any model", "unary", "stream", "sequence"
# MUST is what the specification's text says; SHOULD is what its clients need beside that.
MUST, SHOULD = "must", "should"

Check = TypeVar("Check", bound=Callable[..., None])


class Failure(Exception):
    """A promise that the endpoint did not keep."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected, self.found = expected, found


class NotApplicable(Exception):
    """The model cannot show what the case is about; says why."""


@dataclass(frozen=True)
class Case:
    """One promise.

    id: for good; a number is never used for another case. section: an RPC of the specification,
    or one of Triton's extensions. field: the message field that is looked at. on, level, needs:
    see above and Section.
    """

    id: str
    title: str
    part: str
    level: str
    section: str
    field: str
    on: str
    needs: str
    check: Callable[..., None]


_CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Section:
    """A section of the specification: called, it registers a check of what it says.

    needs: the optional RPC, or the extension, without which there is nothing to check.
    """

    part: str
    title: str
    needs: str = ""

    def __call__(self, id: str, on: str, field: str, level: str = MUST) -> Callable[[Check], Check]:
        """For a function of the endpoint (on SERVER) or a Subject; its docstring is the title."""

        def register(check: Check) -> Check:
            if id in _CASES:
                raise ValueError(f"two cases have the id {id}; ids are for good, take a new one")
            title = (check.__doc__ or "").strip().splitlines()[0].rstrip(".")
            _CASES[id] = Case(id, title, self.part, level, self.title, field, on, self.needs, check)
            return check

        return register


def registered() -> list[Case]:
    """By group, then by number."""
    return sorted(
        _CASES.values(), key=lambda one: (GROUPS.index(one.id.rpartition("-")[0]), one.id)
    )


def expect(holds: bool, expected: str, found: Any) -> None:
    """Raises Failure where it does not hold."""
    if not holds:
        raise Failure(expected, str(found))


def brief(message: Any) -> str:
    """A message in a line of at most 200 characters."""
    text = re.sub(r"\s+", " ", str(message)).strip()
    return (text if len(text) <= 200 else f"{text[:199]}…") or "an empty message"
