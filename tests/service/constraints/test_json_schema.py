import json
import re

import pytest

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.constraints.compiling import CompileLimits, Compiler
from service.constraints.json_schema import SchemaInvalid, regex_of_schema
from service.constraints.lexicon import Lexicon
from service.constraints.schema_numbers import integers, numbers
from service.engine.automaton import JSON_SCHEMA, ConstraintSpec
from tests.service.constraints.test_compiling import walk

SYMBOLS = tuple(chr(code) for code in range(32, 127))
CODEC = Tokenizer("characters", Vocabulary(SYMBOLS, has_markers=True))
LEXICON = Lexicon.of(
    CODEC, len(CODEC.vocabulary), CODEC.vocabulary.end_id, CODEC.vocabulary.never_sampled_ids
)


def compiled(schema):
    spec = ConstraintSpec(JSON_SCHEMA, (json.dumps(schema),))
    return Compiler(CompileLimits()).compile(spec, LEXICON)


def values_of(schema, count=60):
    automaton = compiled(schema)
    walked = [walk(automaton, CODEC, seed, 3000) for seed in range(count)]
    whole = [text for text, is_whole in walked if is_whole]
    assert len(whole) > count / 10
    return [json.loads(text) for text in whole]


def accepts(automaton, text):
    state = 0
    for token in CODEC.encode(text).ids:
        if automaton.mask(state)[token]:
            return False
        state = automaton.next(state, token)
    return automaton.accepts(state)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 3},
        "score": {"type": ["number", "null"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_objects_satisfy_their_schema():
    for value in values_of(PERSON, 200):
        assert {"name", "age"} <= value.keys() <= set(PERSON["properties"])
        assert 1 <= len(value["name"]) <= 8
        assert 0 <= value["age"] <= 130
        assert isinstance(value["age"], int)
        assert len(value.get("tags", [])) <= 3
        assert set(value.get("tags", [])) <= {"new", "old"}
        assert value.get("score") is None or isinstance(value["score"], int | float)


def test_every_property_may_come_and_none_must():
    seen = {tuple(value) for value in values_of({**PERSON, "required": []}, 200)}
    assert () in seen
    assert ("score",) in seen
    assert ("name", "tags") in seen


def test_optional_properties_come_before_required_ones():
    schema = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in "abcd"},
        "required": ["c"],
    }
    seen = {tuple(value) for value in values_of(schema, 200)}
    assert {("c",), ("a", "c"), ("b", "c", "d"), ("c", "d")} <= seen
    assert all("c" in names and list(names) == sorted(names) for names in seen)


@pytest.mark.parametrize(
    ("least", "most"),
    [(0, 9), (3, 27), (-12, 7), (-130, -99), (99, 1001), (0, 0), (7, 7), (-5, None), (None, -3),
     (42, None), (None, 42), (None, None)],
)  # fmt: skip
def test_numbers_lie_between_their_bounds(least, most):
    pattern = re.compile(integers(least, most))
    for number in range(-1200, 1201):
        lies = (least is None or number >= least) and (most is None or number <= most)
        assert bool(pattern.fullmatch(str(number))) == lies, number
    decimal = re.compile(numbers(least, most))
    for tenth in range(-1500, 1500):
        number = tenth / 10
        lies = (least is None or number >= least) and (most is None or number <= most)
        assert bool(decimal.fullmatch(str(number))) == lies, number
    for wrong in ("007", "", "+1", "1.", ".5", "--1", "1e", "0x1"):
        assert not pattern.fullmatch(wrong)
        assert not decimal.fullmatch(wrong)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^[A-Z]{2}\\d{3}$", ["AB123"], ["AB12", "xAB123"]),
        ("^.*$", ["all of it"], []),
        ("^[^a]+$", ["bcd e"], []),
        ("^(yes|no)$", ["yes", "no"], ["yesno"]),
        ('^"\\\\$', ['"\\'], []),
        ("^a\\.b/c$", ["a.b/c"], ["axb/c"]),
        ("oo", ["foo", "oops", "oo"], ["o"]),
        ("^\\w+\\s\\w+$", ["ab cd"], ["abcd"]),
        ("^a\\nb$", ["a\nb"], ["ab"]),
    ],
)
def test_patterns_hold_for_what_a_string_says(pattern, yes, no):
    """Whatever is written between the quotes stays JSON, and its value matches."""
    automaton = compiled({"type": "string", "pattern": pattern})
    for value in yes:
        assert accepts(automaton, json.dumps(value)), value
    for value in no:
        assert not accepts(automaton, json.dumps(value)), value
    for value in values_of({"type": "string", "pattern": pattern}, 40):
        assert re.search(pattern, value), value


def test_classes_leave_out_what_is_written_with_a_backslash():
    for value in values_of({"type": "string", "pattern": "^[ -~]{1,5}$"}, 60):
        assert re.fullmatch("[ -~]{1,5}", value)


@pytest.mark.parametrize("name", ["date", "time", "date-time", "uuid"])
def test_formats_are_what_they_say(name):
    import datetime
    import uuid

    read = {
        "date": datetime.date.fromisoformat,
        "time": datetime.time.fromisoformat,
        "date-time": datetime.datetime.fromisoformat,
        "uuid": uuid.UUID,
    }[name]
    for value in values_of({"type": "string", "format": name}, 60):
        read(value)


def test_values_definitions_and_alternatives():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"point": {"type": "array", "prefixItems": [{"const": 1}, {"type": "null"}]}},
        "anyOf": [
            {"$ref": "#/$defs/point"},
            {"enum": ["a", 2, None, True, {"k": [1, "v"]}]},
            {"allOf": [{"type": "array", "items": {"type": "boolean"}, "minItems": 2}]},
        ],
    }
    values = values_of(schema, 120)
    assert [1, None] in values
    assert {"k": [1, "v"]} in values
    for value in values:
        if value not in ([1, None], "a", 2, None, True, {"k": [1, "v"]}):
            assert len(value) >= 2
            assert all(isinstance(each, bool) for each in value)


def test_maps_have_values_of_their_schema():
    schema = {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9}}
    for value in values_of(schema, 60):
        assert all(number <= 9 for number in value.values())


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "no JSON"),
        ('{"const": NaN}', "NaN is no JSON"),
        ({}, "#.* says no type"),
        (True, "# lets every value through"),
        ([], "# lets every value through"),
        ({"type": "integer", "multipleOf": 3}, "#/multipleOf cannot be held to"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "#/uniqueItems"),
        ({"type": "array"}, "add items"),
        ({"type": "string", "minimum": 3}, "#/minimum says nothing of type string"),
        ({"type": "number", "minimum": 0.5}, "#/minimum is no whole number"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no number between"),
        ({"type": "object", "properties": {"a/b": {"type": "x"}}}, "#/properties/a~1b/type"),
        ({"type": "object", "required": ["a"]}, "names 'a', which properties lacks"),
        ({"type": "object", "properties": {"a": {}}}, "#/properties/a says no type"),
        ({"oneOf": [{"type": "null"}]}, "says no type|oneOf"),
        ({"type": "null", "oneOf": []}, "#/oneOf cannot be held to"),
        ({"allOf": [{"type": "null"}, {"type": "null"}]}, "several parts"),
        ({"$ref": "other.json"}, "out of the schema"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"type": "string", "pattern": "(?=a)"}, "looks around"),
        ({"type": "string", "pattern": "^a|b$"}, "put them into a group"),
        ({"type": "string", "pattern": "a^b"}, "an anchor within"),
        ({"type": "string", "pattern": "[a"}, "not closed"),
        ({"type": "string", "pattern": "\\p{L}"}, "not read here"),
        ({"type": "string", "pattern": 'a["b]'}, "write it as an alternative"),
        ({"type": "string", "format": "email"}, "none of date"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "goes without other bounds"),
        ({"enum": []}, "no list with something"),
        ({"type": "string", "enum": [1]}, "no value of its type"),
        ({"type": "string", "minLength": -1}, "no number from 0"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_its_place(schema, says):
    with pytest.raises(SchemaInvalid, match=says):
        regex_of_schema(schema if isinstance(schema, str) else json.dumps(schema))


def test_a_schema_that_grows_by_doubling_is_refused_at_once():
    levels = {
        f"l{n}": {
            "type": "array",
            "prefixItems": [{"$ref": f"#/$defs/l{n + 1}"}, {"$ref": f"#/$defs/l{n + 1}"}],
        }
        for n in range(20)
    }
    levels["l20"] = {"type": "boolean"}
    with pytest.raises(SchemaInvalid, match="too large"):
        regex_of_schema(json.dumps({"$defs": levels, "$ref": "#/$defs/l0"}))


def test_a_schema_that_is_nested_too_deeply_is_refused():
    schema = '{"type":"array","items":' * 60 + '{"type":"null"}' + "}" * 60
    with pytest.raises(SchemaInvalid, match="nested more than"):
        regex_of_schema(schema)
    with pytest.raises(SchemaInvalid, match="nested too deeply"):
        regex_of_schema("[" * 200_000)
