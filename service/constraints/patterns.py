"""What a constraint asks for, as a regular expression in the syntax of Rust's crate ``regex``."""

from __future__ import annotations

from service.constraints.escaping import escape
from service.constraints.json_schema import SchemaInvalid, regex_of_schema
from service.engine.automaton import CHOICES, JSON_SCHEMA, REGEX, ConstraintSpec
from service.engine.errors import WrongInput

MAX_CHOICES = 1000
MAX_REGEX_CHARACTERS = 16_384
# Of a schema, and of all choices together.
MAX_CHARACTERS = 65_536


def check(spec: ConstraintSpec) -> None:
    """Raises WrongInput for more than is compiled, before anything is."""
    size = sum(map(len, spec.texts))
    if spec.kind == CHOICES:
        if not 1 <= len(spec.texts) <= MAX_CHOICES:
            raise WrongInput(
                f"constraint.choices holds {len(spec.texts)} texts; send 1 to {MAX_CHOICES}"
            )
        if not all(spec.texts):
            raise WrongInput("constraint.choices holds an empty text; leave it out")
    elif not size:
        raise WrongInput(f"constraint.{spec.kind} is empty; write one, or leave the constraint")
    most = MAX_REGEX_CHARACTERS if spec.kind == REGEX else MAX_CHARACTERS
    if size > most:
        raise WrongInput(f"constraint.{spec.kind} has {size} characters; send at most {most}")


def regex_of(spec: ConstraintSpec) -> str:
    """Raises WrongInput for a schema that asks for what an expression cannot say."""
    if spec.kind == CHOICES:
        return "|".join(map(escape, spec.texts))
    if spec.kind == JSON_SCHEMA:
        try:
            return regex_of_schema(spec.texts[0])
        except SchemaInvalid as error:
            raise WrongInput(f"constraint.json_schema: {error}") from error
    return _unanchored(spec.texts[0])


def _unanchored(pattern: str) -> str:
    """Without anchors around the whole, which a text that matches as a whole always satisfies.

    Raises WrongInput for others.
    """
    pattern = pattern.removeprefix("^")
    anchors = _anchors(pattern)
    if anchors and pattern[anchors[-1]] == "$" and anchors[-1] == len(pattern) - 1:
        pattern = pattern[: anchors.pop()]
    if anchors:
        raise WrongInput(
            f"constraint.regex has an anchor within, {pattern[anchors[0]]!r}; a text matches as a "
            "whole, so leave it"
        )
    return pattern


def _anchors(pattern: str) -> list[int]:
    """The places of what matches at the beginning or the end of a text alone."""
    found, place, brackets = [], 0, 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            found += [place + 1] if pattern[place + 1 : place + 2] in ("A", "z") else []
            place += 1
        elif character in "[]":
            brackets += 1 if character == "[" else -1 if brackets else 0
        elif character in "^$" and not brackets:
            found.append(place)
        place += 1
    return found
