"""A JSON Schema (draft 2020-12) as a regular expression whose every text satisfies it.

What an expression cannot say is refused by its place in the schema, never left out: a text that is
valid but for a bound would be worse than none. Texts are a part of what the schema allows: objects
have their properties in the schema's order and no others, numbers at most 18 digits, and there is
one space or none around a mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.constraints.escaping import escape
from service.constraints.schema_numbers import MOST_DIGITS, integers, numbers
from service.constraints.schema_strings import (
    FORMATS,
    STRING_CHARACTER,
    PatternInvalid,
    regex_of_pattern,
)

Schema = Mapping[str, Any]

MAX_REGEX = 262_144
_MAX_DEPTH = 48
_SPACE = " ?"

_ANNOTATIONS = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment", "$defs", "definitions", "$anchor",
}  # fmt: skip
# Keywords that say something of a type, which the reader of that type takes.
_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "null": set(),
}
_EVERY_TYPED = set[str]().union(*_OF_TYPE.values())
_PYTHON: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


class SchemaInvalid(ValueError):
    """The message names the place in the schema, and says what to do."""


def regex_of_schema(text: str) -> str:
    """Raises SchemaInvalid."""
    try:
        root = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise SchemaInvalid("it is nested too deeply; flatten it") from None
    except ValueError as error:
        raise SchemaInvalid(f"it is no JSON: {error}") from None
    return _Reader(root).read(root, "#", 0)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def literal(value: Any) -> str:
    """The expression of one value, as JSON writes it."""
    return escape(json.dumps(value, ensure_ascii=False))


class _Reader:
    """Of one schema. Places are JSON pointers."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._resolved: dict[str, str] = {}
        self._resolving: set[str] = set()

    def read(self, schema: Any, place: str, depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise SchemaInvalid(f"{place} is nested more than {_MAX_DEPTH} deep; flatten it")
        if not isinstance(schema, dict):
            raise SchemaInvalid(
                f"{place} lets every value through, or none; say of which type they are"
            )
        regex = self._read(schema, place, depth + 1)
        if len(regex) > MAX_REGEX:
            raise SchemaInvalid(f"{place} is too large to be compiled; make it smaller")
        return regex

    def _read(self, schema: Schema, place: str, depth: int) -> str:
        said = set(schema) - _ANNOTATIONS
        if "$ref" in said:
            _alone(said, "$ref", place)
            return self._reference(schema["$ref"], place, depth)
        if "const" in said or "enum" in said:
            return self._values(schema, said, place)
        if "anyOf" in said:
            _alone(said, "anyOf", place)
            return self._any_of(schema["anyOf"], place, depth)
        if "allOf" in said:
            _alone(said, "allOf", place)
            parts = _list(schema["allOf"], f"{place}/allOf")
            if len(parts) != 1:
                raise SchemaInvalid(f"{place}/allOf has several parts; write them as one schema")
            return self.read(parts[0], f"{place}/allOf/0", depth)
        return self._typed(schema, said, place, depth)

    def _reference(self, target: Any, place: str, depth: int) -> str:
        if not isinstance(target, str) or not target.startswith("#"):
            raise SchemaInvalid(f"{place}/$ref leads out of the schema; write #/$defs/NAME")
        if target in self._resolving:
            raise SchemaInvalid(
                f"{place}/$ref {target!r} leads back to itself, and such texts need not end; "
                "write as many levels as there may be"
            )
        if target not in self._resolved:
            self._resolving.add(target)
            self._resolved[target] = self.read(self._find(target, place), target, depth)
            self._resolving.remove(target)
        return self._resolved[target]

    def _find(self, target: str, place: str) -> Any:
        found = self._root
        for part in target.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise SchemaInvalid(f"{place}/$ref {target!r} leads nowhere")
            found = found[key]
        return found

    def _values(self, schema: Schema, said: set[str], place: str) -> str:
        word = "const" if "const" in said else "enum"
        _alone(said - {"type"}, word, place)
        values = [schema["const"]] if word == "const" else _list(schema["enum"], f"{place}/enum")
        types = _types(schema, place) if "type" in said else tuple(_PYTHON)
        values = [value for value in values if any(_PYTHON[name](value) for name in types)]
        if not values:
            raise SchemaInvalid(f"{place}/{word} has no value of its type; give it one")
        return _either([literal(value) for value in values])

    def _any_of(self, parts: Any, place: str, depth: int) -> str:
        listed = _list(parts, f"{place}/anyOf")
        return _either([self.read(p, f"{place}/anyOf/{n}", depth) for n, p in enumerate(listed)])

    def _typed(self, schema: Schema, said: set[str], place: str, depth: int) -> str:
        types = _types(schema, place)
        allowed = set[str]().union(*(_OF_TYPE[name] for name in types)) | {"type"}
        for keyword in sorted(said - allowed):
            if keyword in _EVERY_TYPED:
                problem = f"says nothing of type {' or '.join(types)}; leave it"
            else:
                problem = "cannot be held to while a text is made; leave it, or say it otherwise"
            raise SchemaInvalid(f"{place}/{keyword} {problem}")
        readers = {
            "object": self._object,
            "array": self._array,
            "string": _string,
            "integer": _integer,
            "number": _number,
            "boolean": lambda *_: "(true|false)",
            "null": lambda *_: "null",
        }
        return _either([readers[name](schema, place, depth) for name in types])

    def _object(self, schema: Schema, place: str, depth: int) -> str:
        properties = _mapping(schema.get("properties", {}), f"{place}/properties")
        required = set(_list(schema.get("required", []), f"{place}/required", least=0))
        for name in sorted(map(str, required - properties.keys())):
            raise SchemaInvalid(f"{place}/required names {name!r}, which properties lacks; add it")
        if not properties:
            return self._map(schema.get("additionalProperties", False), place, depth)
        members = []
        for name, value in properties.items():
            regex = self.read(value, f"{place}/properties/{_escaped(name)}", depth)
            members.append((f"{literal(name)}{_SPACE}:{_SPACE}{regex}", name in required))
        return rf"\{{{_SPACE}{_members(members)}{_SPACE}\}}"

    def _map(self, values: Any, place: str, depth: int) -> str:
        if values is False:
            return rf"\{{{_SPACE}\}}"
        value = self.read(values, f"{place}/additionalProperties", depth)
        member = f'"{STRING_CHARACTER}*"{_SPACE}:{_SPACE}{value}'
        return rf"\{{{_SPACE}({_repeated(member, 0, None)}){_SPACE}\}}"

    def _array(self, schema: Schema, place: str, depth: int) -> str:
        least = _count(schema, "minItems", place) or 0
        most = _count(schema, "maxItems", place)
        if "prefixItems" in schema:
            if schema.get("items", False) is not False or least or most is not None:
                raise SchemaInvalid(
                    f"{place}/prefixItems goes without items, minItems and maxItems; leave those"
                )
            listed = _list(schema["prefixItems"], f"{place}/prefixItems")
            parts = [self.read(p, f"{place}/prefixItems/{n}", depth) for n, p in enumerate(listed)]
            return rf"\[{_SPACE}{f'{_SPACE},{_SPACE}'.join(parts)}{_SPACE}\]"
        if most is not None and most < least:
            raise SchemaInvalid(f"{place}/maxItems is below minItems")
        if most == 0:
            return rf"\[{_SPACE}\]"
        if "items" not in schema:
            raise SchemaInvalid(f"{place} does not say of which type its items are; add items")
        item = self.read(schema["items"], f"{place}/items", depth)
        return rf"\[{_SPACE}{_repeated(item, least, most)}{_SPACE}\]"


def _members(members: Sequence[tuple[str, bool]]) -> str:
    """Members, (expression, is required) each, in their order with commas between."""
    comma = f"{_SPACE},{_SPACE}"

    def after(rest: Sequence[tuple[str, bool]]) -> str:
        return "".join(
            f"{comma}{member}" if is_required else f"({comma}{member})?"
            for member, is_required in rest
        )

    first = next((n for n, (_, is_required) in enumerate(members) if is_required), None)
    if first is not None:
        before = "".join(f"({member}{comma})?" for member, _ in members[:first])
        return f"{before}{members[first][0]}{after(members[first + 1 :])}"
    ways = [member + after(members[n + 1 :]) for n, (member, _) in enumerate(members)]
    return f"({'|'.join(ways)})?"


def _repeated(part: str, least: int, most: int | None) -> str:
    """``part`` with commas between, so often."""
    further = f"({_SPACE},{_SPACE}{part})"
    below = max(least - 1, 0)
    repeated = f"{further}{{{below},{'' if most is None else most - 1}}}"
    return f"({part}{repeated})" if least else f"({part}{repeated})?"


def _string(schema: Schema, place: str, depth: int) -> str:
    said = [name for name in ("pattern", "format") if name in schema]
    least, most = (_count(schema, name, place) for name in ("minLength", "maxLength"))
    if said and (len(said) > 1 or least or most is not None):
        raise SchemaInvalid(f"{place}/{said[0]} goes without other bounds of a string; leave those")
    if "format" in schema:
        if schema["format"] not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            raise SchemaInvalid(f"{place}/format is none of {known}; leave it, or write a pattern")
        return f'"{FORMATS[schema["format"]]}"'
    if "pattern" in schema:
        try:
            return f'"{regex_of_pattern(schema["pattern"])}"'
        except PatternInvalid as error:
            raise SchemaInvalid(f"{place}/pattern {error}") from None
    if most is not None and most < (least or 0):
        raise SchemaInvalid(f"{place}/maxLength is below minLength")
    if most is None:
        return f'"{STRING_CHARACTER}{{{least},}}"' if least else f'"{STRING_CHARACTER}*"'
    return f'"{STRING_CHARACTER}{{{least or 0},{most}}}"'


def _integer(schema: Schema, place: str, depth: int) -> str:
    least, most = _bound(schema, "minimum", place), _bound(schema, "maximum", place)
    for name, step in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        bound = _bound(schema, name, place)
        if bound is None:
            continue
        if step > 0:
            least = bound + 1 if least is None else max(least, bound + 1)
        else:
            most = bound - 1 if most is None else min(most, bound - 1)
    return _within(integers, least, most, place)


def _number(schema: Schema, place: str, depth: int) -> str:
    least, most = _bound(schema, "minimum", place), _bound(schema, "maximum", place)
    return _within(numbers, least, most, place)


def _within(
    read: Callable[[int | None, int | None], str], least: int | None, most: int | None, place: str
) -> str:
    if least is not None and most is not None and most < least:
        raise SchemaInvalid(f"{place} has no number between its bounds")
    return read(least, most)


def _bound(schema: Schema, name: str, place: str) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _PYTHON["integer"](value) or len(str(abs(value))) > MOST_DIGITS:
        raise SchemaInvalid(
            f"{place}/{name} is no whole number of at most {MOST_DIGITS} digits; choose one"
        )
    return int(value)


def _count(schema: Schema, name: str, place: str) -> int | None:
    value = schema.get(name)
    if value is not None and not (_PYTHON["integer"](value) and 0 <= value <= MAX_REGEX):
        raise SchemaInvalid(f"{place}/{name} is no number from 0 to {MAX_REGEX}")
    return value


def _types(schema: Schema, place: str) -> tuple[str, ...]:
    said = schema.get("type")
    if said is None:
        raise SchemaInvalid(f"{place} says no type, enum, const, anyOf or $ref; add one")
    names = [said] if isinstance(said, str) else _list(said, f"{place}/type")
    for name in names:
        if name not in _OF_TYPE:
            raise SchemaInvalid(f"{place}/type is none of {', '.join(_OF_TYPE)}")
    return tuple(dict.fromkeys(names))


def _alone(said: set[str], word: str, place: str) -> None:
    others = sorted(said - {word})
    if others:
        raise SchemaInvalid(f"{place}/{others[0]} stands beside {word}; leave one of the two")


def _list(value: Any, place: str, least: int = 1) -> list[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise SchemaInvalid(f"{place} is no list{' with something in it' if least else ''}")
    return value


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SchemaInvalid(f"{place} is no object")
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _either(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"
