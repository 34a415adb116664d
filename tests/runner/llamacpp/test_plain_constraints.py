"""Which constraints need no trial: the usual ones, and none that can take long."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import ConstraintInvalid
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.llamacpp.plain_constraints import LONGEST, MOST_BYTES, MOST_CHOICES, MOST_NAMES, is_plain
from runner.loaded_model import LoadOptions
from runner.sampling import Constraint, ConstraintKind
from tests.runner.llamacpp.answering import constraint
from tests.runner.llamacpp.test_constraint_limits import HOSTILE

USUAL: list[Any] = [
    True,
    {},
    {"type": "object"},
    {"type": "object", "title": "Cat", "properties": {"name": {"type": "string", "maxLength": 12}, "lives": {
        "type": "integer", "minimum": 1, "maximum": 9}}, "required": ["name"], "additionalProperties": False},
    {"$defs": {"colour": {"enum": ["red", "blue"], "description": "a colour"}}, "type": "array",
     "items": {"anyOf": [{"$ref": "#/$defs/colour"}, {"type": "null"}], "default": None}},
    {"definitions": {"node": {"properties": {"next": {"$ref": "#/definitions/node"}}}}, "$ref": "#/definitions/node"},
    {"type": ["string", "null"], "format": "date-time"},
    {"oneOf": [{"const": {"a": [1]}}, {"type": "boolean"}]},
]  # fmt: skip
UNUSUAL: list[Any] = [
    {"allOf": [{}]}, {"type": "string", "pattern": "a"}, {"patternProperties": {"a": {}}}, {"multipleOf": 3},
    {"$ref": "#/$defs/a", "type": "string"}, {"anyOf": [{}], "type": "string"}, {"anyOf": [{}], "oneOf": [{}]},
    {"properties": {"a": {"items": {"anyOf": [{"not": {}}]}}}}, {"prefixItems": [{}]}, {"maxItems": LONGEST + 1},
    {"minLength": "1"}, {"properties": 5}, {"properties": [1]}, {"anyOf": {}}, {"anyOf": 3}, {"items": [{}]}, [], "a",
    None, {"enum": list(range(MOST_NAMES + 1))}, {"anyOf": [{}] * (MOST_CHOICES + 1)}, {"dependentSchemas": {}},
    {"properties": {f"p{number}": {} for number in range(MOST_NAMES + 1)}}, {"const": "a" * MOST_BYTES},
]  # fmt: skip
HARMLESS = ("deep enough", "doubling choice", "loop")
LARGEST: dict[str, Any] = {
    "open": {"properties": {f"p{number}": {"type": "string", "maxLength": LONGEST} for number in range(MOST_NAMES)}},
    "closed": {
        "properties": {f"o{i}": {"properties": {f"p{n}": {} for n in range(MOST_NAMES)}, "additionalProperties": False}
                       for i in range(5)}
    },
    "choices": {"anyOf": [{"properties": {f"a{i}": {"anyOf": [{"const": n} for n in range(MOST_CHOICES)]}}}
                          for i in range(30)]},
    "doubled": {"$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 9} for n in range(60)} | {"d60": {}},
                "$ref": "#/$defs/d0"},
    "counted": {"type": "array", "minItems": LONGEST, "items": {"type": "array", "minItems": LONGEST, "items": {
        "type": "array", "maxItems": LONGEST, "items": {"type": "string", "minLength": LONGEST}}}},
    "formats": {"properties": {f"p{n}": {"type": "string", "format": "date-time"} for n in range(400)}},
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, tiny_model, LoadOptions(2048, max_sequences=2, num_batch=64, num_thread=1))
    yield engine
    engine.close()


def framed(schema: object, *, is_framed: bool = True) -> Constraint:
    source = f'start: "<" a ">"\na: %json {json.dumps(schema)}\n'
    return Constraint(ConstraintKind.LARK, source, "tools", is_framed=is_framed)


@pytest.mark.parametrize("schema", USUAL)
def test_usual_schemas_need_no_trial_alone_or_in_a_grammar_of_ours(schema: object) -> None:
    assert is_plain(constraint(ConstraintKind.JSON_SCHEMA, schema))
    assert is_plain(framed(schema))
    assert not is_plain(framed(schema, is_framed=False))


@pytest.mark.parametrize("schema", UNUSUAL)
def test_what_intersects_counts_far_or_is_unknown_is_tried(schema: object) -> None:
    assert not is_plain(constraint(ConstraintKind.JSON_SCHEMA, schema))
    assert not is_plain(framed({"properties": {"a": schema}}))


@pytest.mark.parametrize("kind", [ConstraintKind.REGEX, ConstraintKind.LARK, ConstraintKind.GBNF])
def test_what_is_written_in_a_clients_own_notation_is_tried(kind: ConstraintKind) -> None:
    assert not is_plain(Constraint(kind, "a", "format"))


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in HARMLESS])
def test_nothing_hostile_is_plain(name: str) -> None:
    assert not is_plain(constraint(*HOSTILE[name]))


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["type", "properties", "anyOf", "$ref", "items", "$defs", "maxItems", "enum"]) | st.text(), inner
)).map(json.dumps))  # fmt: skip
def test_whatever_it_is_there_is_an_answer(source: str) -> None:
    for kind in ConstraintKind:
        assert is_plain(Constraint(kind, source, "format", is_framed=True)) in (True, False)


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_plain_ones_are_compiled_in_a_moment(engine: LlamaEngine, name: str) -> None:
    wanted = constraint(ConstraintKind.JSON_SCHEMA, LARGEST[name])
    assert is_plain(wanted)
    _compile_soon(engine, wanted)


PLAIN = st.recursive(
    st.just({}) | st.sampled_from(["string", "integer", "object", "array", "null"]).map(lambda name: {"type": name})
    | st.lists(st.integers(0, 99), min_size=1, max_size=30, unique=True).map(lambda values: {"enum": values}),
    lambda inner: st.lists(inner, min_size=1, max_size=9).map(lambda choices: {"anyOf": choices})
    | inner.map(lambda items: {"type": "array", "items": items, "maxItems": LONGEST})
    | st.tuples(inner, st.integers(1, 60), st.booleans(), st.booleans()).map(
        lambda told: {
            "properties": {f"p{number}": told[0] for number in range(told[1])},
            "required": [f"p{number}" for number in range(0, told[1], 2)] if told[2] else [],
            "additionalProperties": told[3],
        }
    ),
    max_leaves=12,
)  # fmt: skip


@given(PLAIN)
@settings(max_examples=40)
def test_plain_ones_by_chance_are_compiled_in_a_moment(engine: LlamaEngine, schema: object) -> None:
    wanted = constraint(ConstraintKind.JSON_SCHEMA, schema)
    if is_plain(wanted):
        _compile_soon(engine, wanted)


def _compile_soon(engine: LlamaEngine, wanted: Constraint) -> None:
    started = time.thread_time()
    with contextlib.suppress(ConstraintInvalid):  # too much of something
        engine.compile_constraint(wanted)
    assert time.thread_time() - started < 1
