"""Generated text is split into answer, thinking and tool calls, wherever it was cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.output_parser import OutputParser
from runner.chat.thinking import ThinkingTags
from runner.chat.tool_formats.calls import CallArguments, CallStarted, Content, Piece, Thinking
from runner.chat.tool_formats.choose import FORMATS
from runner.chat.tool_formats.format import ToolFormat
from tests.runner.chat.tool_answers import ANSWERS, TOOLS, Answer

THINK = ThinkingTags("<think>", "</think>")
BY_NAME = {one.name: one for one in FORMATS}
MARKS = sorted({mark for one in FORMATS for mark in (*one.markers, one.opening) if mark})
FRAGMENTS = [
    *MARKS, '{"name": "note", "arguments": {', "[", "]", "{", "}", '"', "\\", ":", ",", " ", "\n", "a", "(", ")",
    "note", "get_weather", "<function=", "<parameter=", ">", "=", "call:", "```json\n", "é", "to=functions.note",
]  # fmt: skip


def parsed(parser: OutputParser, pieces_of_text: list[str]) -> tuple[str, str, list[tuple[str, str]]]:
    pieces: list[Piece] = []
    for text in pieces_of_text:
        pieces += parser.push(text)
    pieces += parser.finish()
    content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
    thinking = "".join(piece.text for piece in pieces if isinstance(piece, Thinking))
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if isinstance(piece, CallStarted):
            assert piece.index == len(calls)
            calls.append((piece.name, ""))
        elif isinstance(piece, CallArguments):
            name, arguments = calls[piece.index]
            calls[piece.index] = (name, arguments + piece.text)
    return content, thinking, calls


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def new_parser(tool_format: ToolFormat) -> OutputParser:
    return OutputParser(tool_format=tool_format, tools=TOOLS)


def check(answer: Answer, pieces_of_text: list[str]) -> None:
    content, thinking, calls = parsed(new_parser(BY_NAME[answer.format]), pieces_of_text)
    assert (content, thinking) == (answer.content, answer.thinking)
    assert len(calls) == len(answer.calls)
    for (name, arguments), (expected_name, expected) in zip(calls, answer.calls, strict=True):
        assert name == expected_name
        assert arguments == expected if isinstance(expected, str) else json.loads(arguments) == expected


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: f"{one.format}: {one.text[:40]!a}")
def test_an_answer_is_read_whole_and_character_by_character(answer: Answer) -> None:
    check(answer, [answer.text])
    check(answer, list(answer.text))


@given(answer=st.sampled_from(ANSWERS), places=st.lists(st.integers(0, 1000), max_size=6))
def test_an_answer_cut_anywhere_gives_the_same(answer: Answer, places: list[int]) -> None:
    check(answer, cut(answer.text, places))


@pytest.mark.parametrize("tool_format", FORMATS, ids=lambda one: one.name)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=25), places=st.lists(st.integers(0, 500), max_size=8))
def test_any_text_gives_the_same_however_it_is_cut(
    tool_format: ToolFormat, fragments: list[str], places: list[int]
) -> None:
    text = "".join(fragments)
    assert parsed(new_parser(tool_format), cut(text, places)) == parsed(new_parser(tool_format), [text])


@pytest.mark.parametrize("tool_format", [one for one in FORMATS if not one.is_always_read], ids=lambda one: one.name)
@given(text=st.text(alphabet="ab {}[]<>/\n\"':,", max_size=60))
def test_text_without_calls_comes_out_unchanged(tool_format: ToolFormat, text: str) -> None:
    content, thinking, calls = parsed(new_parser(tool_format), [text])
    assert (content, thinking, calls) == (text, "", [])


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: f"{one.format}: {one.text[:40]!a}")
def test_an_answer_that_ends_anywhere_loses_no_call_and_no_text(answer: Answer) -> None:
    tool_format = BY_NAME[answer.format]
    for end in range(len(answer.text)):
        text = answer.text[:end]
        content, _, calls = parsed(new_parser(tool_format), [text])
        assert [name for name, _ in calls] == [name for name, _ in answer.calls][: len(calls)]
        if not calls and not tool_format.is_always_read:
            # The mark around all calls says nothing by itself.
            assert content == text.replace("<｜tool▁calls▁begin｜>", "")


def test_thinking_before_the_answer_is_told_apart() -> None:
    parser = OutputParser(thinking=THINK)
    assert parsed(parser, list("\n<think>\nHm, 2.\n</think>\n\nIt is 2.")) == ("It is 2.", "Hm, 2.", [])


def test_an_answer_may_begin_inside_its_thoughts() -> None:
    parser = OutputParser(thinking=THINK, begins_thinking=True)
    assert parsed(parser, list("Hm.</think>Yes.")) == ("Yes.", "Hm.", [])


def test_an_answer_without_thinking_stays_as_it_is() -> None:
    parser = OutputParser(thinking=THINK)
    assert parsed(parser, list("  <thin> air </think>")) == ("  <thin> air </think>", "", [])


def test_a_call_after_thinking_is_found() -> None:
    parser = OutputParser(thinking=THINK, tool_format=BY_NAME["hermes"], tools=TOOLS)
    text = '<think>So <tool_call> it is.</think><tool_call>{"name": "note", "arguments": {}}</tool_call>'
    assert parsed(parser, list(text)) == ("", "So <tool_call> it is.", [("note", "{}")])


def test_without_tools_call_marks_are_plain_text() -> None:
    parser = OutputParser(tool_format=BY_NAME["hermes"])
    assert parsed(parser, ["<tool_call>{}</tool_call>"]) == ("<tool_call>{}</tool_call>", "", [])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "note", "arguments": ' + "[" * 100_000,
        "[" + "note(a=" + "(" * 100_000,
        "<|tool_call>call:note{a:" + "{a:" * 100_000 + "<tool_call|>",
    ],
)
def test_deep_nesting_is_read_without_harm(text: str) -> None:
    for tool_format in FORMATS:
        parsed(new_parser(tool_format), [text])
