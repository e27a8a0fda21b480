"""JSON Schema, as far as the OpenAPI document uses it."""

from __future__ import annotations

from typing import Any

SCHEMAS = "#/components/schemas/"
_TYPES = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    "array": list, "object": dict,
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """schemas: those of the document, by name."""
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].removeprefix(SCHEMAS)], schemas)
    if "anyOf" in schema:
        return any(fits(value, each, schemas) for each in schema["anyOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    kinds = schema.get("type", [])
    if kinds and not any(
        _is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ):
        return False
    if isinstance(value, list):
        return all(fits(each, schema.get("items", {}), schemas) for each in value)
    if isinstance(value, dict):
        return _has_fields(value, schema, schemas)
    return value in schema.get("enum", [value])


def _is(value: Any, kind: str) -> bool:
    is_truth = isinstance(value, bool) and kind in ("integer", "number")
    return isinstance(value, _TYPES[kind]) and not is_truth


def _has_fields(value: dict[str, Any], schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    fields, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not set(schema.get("required", ())) <= value.keys():
        return False
    for name, each in value.items():
        wanted = fields.get(name, others)
        if wanted is False or (wanted is not True and not fits(each, wanted, schemas)):
            return False
    return True
