"""What no constraint may ask for, and how soon that is told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import ConstraintInvalid
from runner.llamacpp.constraint_limits import expansion
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import Constraint, ConstraintKind
from runner.worker.serve import STACK_BYTES
from tests.runner.llamacpp.answering import constraint


@pytest.fixture(scope="module")
def engine(library: Library, tiny_model: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, tiny_model, LoadOptions(2048, max_sequences=4, num_batch=64, num_thread=1))
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def _stack_of_a_worker() -> Iterator[None]:
    """Threads of tests get the stack that those of a worker have."""
    before = threading.stack_size(STACK_BYTES)
    yield
    threading.stack_size(before)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"not": {"type": "object"}}, "not"), ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {"type": "string"}, "then": False}, "if"), ({"type": "array", "contains": {"const": 1}}, "contains"),
        ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"), ({"$dynamicRef": "#a"}, "$dynamicRef"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"type": "string", "format": "colour"}, "colour"), ({"type": "string", "pattern": "(?=a)b"}, "look"),
        ({"type": "string", "pattern": 5}, "pattern"), ({"type": "wizard"}, "wizard"), ({"enum": []}, "nsatisfiable"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"), ({"$ref": "http://127.0.0.1/x"}, "127.0.0.1"),
        ({"type": "number", "exclusiveMinimum": True, "minimum": 1}, "exclusiveMinimum"),
        ({"type": "integer", "multipleOf": 1_000_003}, "multipleOf"),
        ({"type": "object", "minProperties": 4}, "minProperties"),
        ({"enum": ["a\x07"]}, "enum"), ({"const": {"b": ["\x1f"]}}, "const"),
        ({"properties": {"\x00": {}}}, "properties"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "not"), ({"properties": 5}, "properties"),
    ],
)  # fmt: skip
def test_what_a_schema_asks_in_vain_is_named(engine: LlamaEngine, schema: object, keyword: str) -> None:
    with pytest.raises(ConstraintInvalid, match=re.escape(keyword)) as refused:
        engine.compile_constraint(constraint(ConstraintKind.JSON_SCHEMA, schema))
    assert refused.value.code == "constraint_invalid"
    assert refused.value.facts == {"field": "format"}


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (ConstraintKind.REGEX, "(ab"), (ConstraintKind.REGEX, "(?=a)b"), (ConstraintKind.REGEX, r"\p{Wizard}"),
        (ConstraintKind.REGEX, r"a\b"), (ConstraintKind.LARK, "start: a"), (ConstraintKind.LARK, "no grammar"),
        (ConstraintKind.LARK, ""), (ConstraintKind.LARK, 'start: "a'), (ConstraintKind.GBNF, 'rot ::= "a"'),
        (ConstraintKind.JSON_SCHEMA, "{"), (ConstraintKind.JSON_SCHEMA, "[]"),
        (ConstraintKind.REGEX, "[^\\x00-\\U0010FFFF]"),
        (ConstraintKind.LARK, 'start: %json {"type": "integer", "multipleOf": 1000003}'),
        (ConstraintKind.LARK, "start: %json {"),
    ],
)  # fmt: skip
def test_what_is_no_grammar_is_refused(engine: LlamaEngine, kind: ConstraintKind, source: str) -> None:
    with pytest.raises(ConstraintInvalid):
        engine.compile_constraint(constraint(kind, source))


def _chain(link: str, count: int) -> str:
    def written(number: int) -> str:
        return link.replace("NEXT", f"#/$defs/a{number + 1}").replace("NUMBER", str(number))

    links = ",".join(f'"a{number}":{written(number)}' for number in range(count))
    return f'{{"$ref":"#/$defs/a0","$defs":{{{links},"a{count}":{{"type":"string"}}}}}}'


_REFERENCE = '{"$ref":"NEXT"}'
HOSTILE = {
    "deep": (ConstraintKind.JSON_SCHEMA, '{"items":' * 5000 + "{}" + "}" * 5000),
    "deep enough": (ConstraintKind.JSON_SCHEMA, '{"items":' * 60 + "{}" + "}" * 60),
    "no JSON number": (ConstraintKind.JSON_SCHEMA, '{"minimum":' + "9" * 10_000 + "}"),
    "huge": (ConstraintKind.JSON_SCHEMA, {"const": "x" * 10_000_000}),
    "many values": (ConstraintKind.JSON_SCHEMA, {"enum": [f"value {number}" for number in range(200_000)]}),
    "many properties": (ConstraintKind.JSON_SCHEMA, {"properties": {f"p{number}": {} for number in range(5000)}}),
    "long chain": (ConstraintKind.JSON_SCHEMA, _chain(_REFERENCE, 3000)),
    "long chain of objects": (ConstraintKind.JSON_SCHEMA, _chain('{"items":{"$ref":"NEXT"},"minItems":1}', 2000)),
    "loop": (ConstraintKind.JSON_SCHEMA, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
    "doubling": (ConstraintKind.JSON_SCHEMA, _chain('{"allOf":[{"$ref":"NEXT"},{"$ref":"NEXT"}]}', 30)),
    "doubling choice": (ConstraintKind.JSON_SCHEMA, _chain('{"anyOf":[{"$ref":"NEXT"},{"$ref":"NEXT"}]}', 30)),
    "product": (
        ConstraintKind.JSON_SCHEMA,
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for i in range(9)]} for j in range(9)]},
    ),
    "many items": (ConstraintKind.JSON_SCHEMA, {"items": {"minItems": 10**9, "items": {}}, "minItems": 10**9}),
    "long string": (ConstraintKind.JSON_SCHEMA, {"type": "string", "minLength": 10**12}),
    "nested repeats": (ConstraintKind.JSON_SCHEMA, {"type": "string", "pattern": "^(([a-z]{1,999}){1,999}){1,999}$"}),
    "repeat": (ConstraintKind.REGEX, "a{1000000000}"),
    "repeat of a repeat": (ConstraintKind.REGEX, "x(a{1000}){1000}"),
    "repeats in a row": (ConstraintKind.REGEX, "a{40000}b" * 9000),
    "huge number": (ConstraintKind.REGEX, "a{" + "9" * 5000 + "}"),
    "blow-up": (ConstraintKind.REGEX, "(a|b)*a(a|b){40}"),
    "backtracking": (ConstraintKind.REGEX, "(.*)*(.*)*x"),
    "deep groups": (ConstraintKind.REGEX, "(" * 20_000 + "a" + ")*" * 20_000),
    "unicode": (ConstraintKind.REGEX, r"[\p{L}\p{N}]{1,5000}(?i)" + "|".join(f"w{number}x" for number in range(5000))),
    "grammar of repeats": (ConstraintKind.LARK, 'start: (a~1000)~1000\na: "x"~1000'),
    "ambiguous": (ConstraintKind.LARK, 'start: a\na: a a | "x" | '),
    "terminals": (
        ConstraintKind.LARK,
        "start: T0\n" + "\n".join(f"T{n}: T{n + 1} T{n + 1}" for n in range(200)) + '\nT200: "a"',
    ),
    "rule chain": (
        ConstraintKind.LARK,
        "start: r0\n" + "\n".join(f'r{n}: r{n + 1} r{n + 1} | "x{n}"' for n in range(4000)) + '\nr4000: "a"',
    ),
    "intersection": (ConstraintKind.LARK, "start: A\nA: /.*a.{20}/ & /.*b.{20}/ & ~/.*c.{20}/"),
    "deep Lark": (ConstraintKind.LARK, "start: " + "(" * 50_000 + '"x"' + ")" * 50_000),
    "deep GBNF": (ConstraintKind.GBNF, "root ::= " + "(" * 50_000 + '"x"' + ")" * 50_000),
    "repeated GBNF": (ConstraintKind.GBNF, 'root ::= ("a"{1,100000}){1,100000}'),
    "left recursion": (ConstraintKind.GBNF, 'root ::= root root | "a" | '),
    "endless nothing": (ConstraintKind.GBNF, 'root ::= (""*)* "a"'),
    # Of these nobody knows how long they take; none of them was ever done.
    "patterns at once": (ConstraintKind.JSON_SCHEMA, {"allOf": [{"pattern": f"a{number}"} for number in range(40)]}),
    "patterns of one name": (
        ConstraintKind.JSON_SCHEMA,
        {"allOf": [{"properties": {"x": {"type": "string", "pattern": f"a{number}"}}} for number in range(40)]},
    ),
    "patterns of references": (ConstraintKind.JSON_SCHEMA, _chain('{"pattern":"aNUMBERx","$ref":"NEXT"}', 40)),
    "many closed properties": (
        ConstraintKind.JSON_SCHEMA,
        {"properties": {f"p{number}": {} for number in range(9000)}, "additionalProperties": False},
    ),
    "expressions at once": (ConstraintKind.LARK, "start: T\nT: " + " & ".join(f"/.*a{n}.*/" for n in range(40))),
    "expressions at once, later": (
        ConstraintKind.LARK,
        'start: T\nT: "y" | Z H\nZ: /z{40}/\nH: ' + " & ".join(f"/.*a{n}.*/" for n in range(40)),
    ),
    "repeated choices": (ConstraintKind.REGEX, "(a*b?)*" * 6000),
    "many optional letters": (ConstraintKind.REGEX, "".join(f"[a-{chr(98 + n % 20)}]?" for n in range(15_000))),
    "many optional rules": (
        ConstraintKind.LARK,
        "start: " + " ".join(f"r{n}?" for n in range(6000)) + "".join(f'\nr{n}: "a" | ' for n in range(6000)),
    ),
    "many optional classes": (
        ConstraintKind.GBNF,
        "root ::= " + " ".join(f"[a-{chr(98 + n % 24)}]?" for n in range(15_000)),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nobody_waits_long_for_a_hostile_grammar(engine: LlamaEngine, name: str) -> None:
    with ThreadPoolExecutor(1) as worker_thread:
        worker_thread.submit(_try_hostile, engine, constraint(*HOSTILE[name])).result()


def _try_hostile(engine: LlamaEngine, wanted: Constraint) -> None:
    """Compile it and follow it for some tokens, and see that neither takes long."""
    started = time.thread_time()
    try:
        state = engine._constraints.compile(wanted).begin()
    except ConstraintInvalid:
        return
    finally:
        assert time.thread_time() - started < 2
    for number in range(30):
        started = time.thread_time()
        allowed = state.allowed()
        assert time.thread_time() - started < 1
        if state.failure is not None or allowed is None or not len(allowed):
            break
        state.accept(int(allowed[number % len(allowed)]))


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3), ("a{3}", 3), ("(ab){3}c", 7), ("((a{2}){3}){4}", 24), ("a{2,5}", 5), ("a{2,}", 2), ("[a-z]{4}", 4),
        (r"\p{L}{3}", 3), (r"\d{2}-\d", 4), ("a*b+c?", 3), (r"\{9}", 3), ("(a|bc){2}", 6), ("a{0}", 1),
    ],
)  # fmt: skip
def test_repeats_are_counted_before_they_are_written_out(pattern: str, size: int) -> None:
    assert expansion(pattern) == size
