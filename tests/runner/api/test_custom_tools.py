"""Tools whose input is a text: their grammars as expressions, and the text of their calls as it comes."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.openai.called import CallDeltas, CallShape
from runner.api.openai.custom_tools import FormatBody, GrammarBody, InputReader, arguments_of, custom_tool, input_of
from runner.api.openai.lark import LarkError, lark_regex
from runner.chat.types import ToolCall, ToolCallDelta
from runner.errors import ConstraintInvalid

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
PATCH = r"""
start: begin hunk+ end // what editors send
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
hunk: add | delete
add: "*** Add File: " NAME LF line+
delete: "*** Delete File: " NAME LF
NAME: /(.+)/
line: "+" /(.*)/ LF -> added

%import common.LF
"""

NAMES = "abcdefghijklmnopq"
DOUBLING = "start: a a\n" + "\n".join(f"{x}: {y} {y}" for x, y in itertools.pairwise(NAMES)) + '\nq: "many"'


@pytest.mark.parametrize(
    ("grammar", "fitting", "other"),
    [
        (PATCH, '*** Begin Patch\n*** Add File: a.py\n+print("x")\n+\n*** End Patch', "*** Begin Patch\n*** End Patch"),
        ('start: "a" | "b"i\n', "B", "A"),
        ('start: ("0".."9")~2..3 "-"?\n', "12-", "1"),
        ('start: WORD ("," WORD)*\n%import common.WORD\n%ignore " "+\n', "one , two", "one two"),
        ('?start: _x [y]\n_x.2: /a\\/b/\ny: "\\n"\n', "a/b\n", "a/b/"),
        ("start: X\nX: A A\nA: /[a-c]/i", "aC", "ad"),
        ('start: "("\n     | ")"\n', ")", "()"),
    ],
)
def test_a_grammar_without_recursion_is_an_expression(grammar: str, fitting: str, other: str) -> None:
    expression = re.compile(lark_regex(grammar))
    assert expression.fullmatch(fitting)
    assert not expression.fullmatch(other)


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        ('start: "(" start ")" | "x"', "refers to itself"),
        ("start: nothing", "nothing is not defined"),
        ('begin: "x"', "no rule named start"),
        ("start: %json {}", "line 1: '{}'"),
        ('start: ("a"', "not closed"),
        ('start: "a" ]', "wrong place"),
        ('start: "z".."a"', "begins no range"),
        ("%import python.NAME\nstart: NAME", "only the terminals of common"),
        ("%declare X\nstart: X", "%declare is not supported"),
        ("start\n", "begins no rule"),
        ('start: "\\q"', "is no text"),
        (DOUBLING, "more than"),
    ],
)
def test_what_cannot_be_one_is_told(grammar: str, complaint: str) -> None:
    with pytest.raises(LarkError, match=re.escape(complaint)):
        lark_regex(grammar)


@given(st.text(alphabet='start:"/ab|()[]~.%?*\n ', max_size=60))
def test_any_grammar_ends_well_or_with_its_own_error(grammar: str) -> None:
    try:
        lark_regex(grammar)
    except LarkError as error:
        assert str(error)


def test_a_format_is_the_pattern_of_the_tools_argument() -> None:
    grammar = GrammarBody(syntax="regex", definition="[a-z]+")
    tool = custom_tool("f", None, FormatBody(type="grammar", grammar=grammar), "tools[0]")
    assert tool.schema["properties"]["input"] == {"type": "string", "pattern": "^(?:[a-z]+)$"}
    assert tool.format is not None
    assert tool.format.field == "tools[0].format"
    with pytest.raises(ConstraintInvalid, match="refers to itself"):
        recursive = GrammarBody(syntax="lark", definition="start: start")
        custom_tool("f", None, FormatBody(type="grammar", grammar=recursive), "tools[0]")


@given(TEXTS, st.integers(1, 7), st.booleans())
def test_the_text_comes_out_however_it_is_cut(text: str, size: int, is_ascii: bool) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=is_ascii)
    reader = InputReader()
    pieces = [reader.push(arguments[start : start + size]) for start in range(0, len(arguments), size)]
    assert "".join(pieces) + reader.finish() == text
    assert input_of(arguments_of(text)) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{}", ""),
        ('{"query": "x"}', '{"query": "x"}'),
        ('{"input": "cut', "cut"),
        ('{"input": "a\\x', "a\\x"),
        ("", ""),
    ],
)
def test_what_is_no_such_text_comes_out_as_it_is(arguments: str, text: str) -> None:
    assert input_of(arguments) == text


def test_the_older_shape_has_room_for_one_call_and_others_are_text() -> None:
    shape = CallShape(is_older=True)
    deltas = CallDeltas(shape)
    events = [
        ToolCallDelta(0, "1", "f"), ToolCallDelta(0, arguments="{}"), ToolCallDelta(1, "2", "g", '{"a":'),
        ToolCallDelta(1, arguments="1}"),
    ]  # fmt: skip
    told = [deltas.delta(event) for event in events]
    assert told == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {"content": '\ng {"a":'},
        {"content": "1}"},
    ]
    assert shape.whole("Hm.", [ToolCall("1", "f", "{}"), ToolCall("2", "g", '{"a":1}')]) == {
        "content": 'Hm.\ng {"a":1}',
        "function_call": {"name": "f", "arguments": "{}"},
    }
