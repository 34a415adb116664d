"""Whatever a format's grammar lets a model write is a call that the format's reader finds, valid for its tool."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

import llguidance
import llguidance.numpy
import numpy
import pytest
from jsonschema import Draft202012Validator

from runner.chat.output_parser import OutputParser
from runner.chat.tool_formats.choose import FORMATS
from runner.chat.tool_formats.format import ToolFormat, json_schema
from runner.chat.tool_formats.generic import GENERIC
from runner.chat.tool_formats.grammar import call_grammar, required_grammar
from runner.chat.tool_formats.schemas import ALL_TYPES, property_schema, types_of
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import Tool
from tests.runner.chat.test_output_parser import parsed

TOOLS = (
    Tool(
        "get_weather",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "integer", "minimum": 0, "maximum": 99},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "exact": {"type": "boolean"},
            },
            "required": ["city", "exact"],
            "additionalProperties": False,
        },
    ),
    Tool(
        "note",
        {
            "type": "object",
            "properties": {
                "done": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            },
            "additionalProperties": False,
        },
    ),
    Tool("ping", {"type": "object", "properties": {}, "additionalProperties": False}),
)
TRIP = Tool(
    "trip",
    {
        "type": "object",
        "properties": {
            "from": {"type": "string", "minLength": 1, "maxLength": 5},
            "seat-row": {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}, "minItems": 1, "maxItems": 2},
            "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "mode": {"$ref": "#/$defs/Mode"},
            "size": {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 4}, {"type": "integer"}]},
            "kind": {"const": "x"},
        },
        "required": ["from", "mode", "code", "stops", "kind"],
        "additionalProperties": False,
        "$defs": {
            "Stop": {
                "type": "object",
                "properties": {"at": {"type": "string", "maxLength": 3}, "next": {"$ref": "#/$defs/Stop"}},
                "required": ["at"],
                "additionalProperties": False,
            },
            "Mode": {"enum": ["fast", "1"]},
        },
    },
)
TOKENIZER = llguidance.LLTokenizer("byte")


class MarkedVocabulary:
    """The bytes, and some marks that are tokens of their own, in the form the compiler asks for."""

    def __init__(self, marks: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [mark.encode() for mark in (*marks, "<eos>")]
        self.special_token_ids = list(range(256, len(self.tokens)))
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text with its marks as marks."""
        marks = {self.tokens[token].decode(): token for token in self.special_token_ids}
        parts = re.split("(" + "|".join(map(re.escape, marks)) + ")", text)
        return [token for part in parts for token in ([marks[part]] if part in marks else list(part.encode()))]


def end_of(grammar: str, text: str, vocabulary: MarkedVocabulary | None = None) -> str:
    """How far a grammar lets a text come: `whole`, or what it still lets stand of it."""
    tokenizer = TOKENIZER
    if vocabulary is not None:
        tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode()) if vocabulary is None else vocabulary.ids(text)
    taken = matcher.validate_tokens(tokens)
    if taken < len(tokens):
        return text[:taken] if vocabulary is None else f"{taken} tokens"
    matcher.consume_tokens(tokens)
    return "whole" if matcher.is_stopped() or matcher.is_accepting() else "more to come"


def written(grammar: str, seed: int) -> str:
    """A text that the grammar allows, chosen at random, a byte at a time."""
    choose = random.Random(seed)
    matcher = llguidance.LLMatcher(TOKENIZER, grammar)
    assert not matcher.is_error(), matcher.get_error()
    mask = llguidance.numpy.allocate_token_bitmask(1, TOKENIZER.vocab_size)
    out = bytearray()
    while not matcher.is_stopped() and len(out) < 20_000:
        llguidance.numpy.fill_next_token_bitmask(matcher, mask, 0)
        allowed = [int(bit) for bit in numpy.flatnonzero(numpy.unpackbits(mask.view(numpy.uint8), bitorder="little"))]
        ending = [token for token in allowed if token == TOKENIZER.eos_token]
        # Endings and closing characters first, often enough that texts stay short; no bytes beyond ASCII, which
        # might be half a character when the text ends.
        plain = [token for token in allowed if 32 <= token < 127 or token == 10]
        closing = [token for token in plain if chr(token) in '"<]})\n']
        groups = [group for group in (ending, closing, plain or allowed[:1]) if group]
        token = choose.choice(choose.choices(groups, weights=range(len(groups), 0, -1))[0])
        if token == TOKENIZER.eos_token:
            break
        assert matcher.consume_token(token)
        out.append(token)
    return out.decode()


@pytest.mark.parametrize("is_parallel", [False, True])
@pytest.mark.parametrize("tool_format", [*FORMATS, GENERIC], ids=lambda one: one.name)
def test_a_required_call_is_well_formed_and_valid(tool_format: ToolFormat, is_parallel: bool) -> None:
    grammar = required_grammar(tool_format, TOOLS, Terms({}), is_parallel=is_parallel)
    seen = set()
    for seed in range(25):
        text = written(grammar, seed)
        content, _, calls = parsed(OutputParser(tool_format=tool_format, tools=TOOLS), [text])
        assert (content, bool(calls)) == ("", True), text
        assert is_parallel or len(calls) == 1, text
        for name, arguments in calls:
            schema = next(tool.schema for tool in TOOLS if tool.name == name)
            Draft202012Validator(schema).validate(json.loads(arguments))
            seen.add(name)
    assert len(seen) > 1


@pytest.mark.parametrize("tool_format", [one for one in FORMATS if one.opening], ids=lambda one: one.name)
def test_what_follows_an_opening_is_a_call(tool_format: ToolFormat) -> None:
    grammar = call_grammar(tool_format, TOOLS, Terms({}), is_parallel=True)
    for seed in range(10):
        text = f"Well. {tool_format.opening}{written(grammar, seed)}"
        content, _, calls = parsed(OutputParser(tool_format=tool_format, tools=TOOLS), [text])
        assert (content.strip(), bool(calls)) == ("Well.", True), text


@pytest.mark.parametrize("tool_format", [*FORMATS, GENERIC], ids=lambda one: one.name)
def test_references_choices_and_bounds_are_kept_to(tool_format: ToolFormat) -> None:
    grammar = required_grammar(tool_format, (TRIP,), Terms({}), is_parallel=False)
    for seed in range(12):
        text = written(grammar, seed)
        content, _, calls = parsed(OutputParser(tool_format=tool_format, tools=(TRIP,)), [text])
        assert (content, len(calls)) == ("", 1), text
        Draft202012Validator(TRIP.schema).validate(json.loads(calls[0][1]))


TEXTS = ("a", '<b>\n</b>, {c} [d] "e"', "null", "2")
CALLS_OF_TEXT = {
    "qwen_coder": "<tool_call>\n<function=f>\n<parameter=a>\n{}\n</parameter>\n</function>\n</tool_call>",
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
    "function_gemma": "<start_function_call>call:f{{a:<escape>{}<escape>}}<end_function_call>",
    "gemma4": '<|tool_call>call:f{{a:<|"|>{}<|"|>}}<tool_call|>',
}


@pytest.mark.parametrize("are_tokens", [False, True], ids=["marks are text", "marks are tokens"])
@pytest.mark.parametrize(
    "bounds", [{}, {"minLength": 1}, {"maxLength": 100_000}, {"maxLength": 40}, {"pattern": "."}], ids=str
)
@pytest.mark.parametrize("name", CALLS_OF_TEXT)
def test_a_bare_text_may_hold_anything_and_ends_where_its_mark_stands(
    name: str, bounds: dict[str, object], are_tokens: bool
) -> None:
    (tool_format,) = (one for one in FORMATS if one.name == name)
    tool = Tool("f", {"type": "object", "properties": {"a": {"type": "string", **bounds}}, "required": ["a"]})
    vocabulary = MarkedVocabulary(tool_format.markers) if are_tokens else None
    tokens = {mark: 256 + number for number, mark in enumerate(tool_format.markers)} if are_tokens else {}
    grammar = required_grammar(tool_format, (tool,), Terms(tokens), is_parallel=False)
    for value in TEXTS:
        text = CALLS_OF_TEXT[name].format(value)
        assert end_of(grammar, text, vocabulary) == "whole"
        _, _, calls = parsed(OutputParser(tool_format=tool_format, tools=(tool,)), [text])
        assert [json.loads(arguments) for _, arguments in calls] == [{"a": value}]


def test_a_schema_that_stands_inside_another_brings_only_what_it_refers_to() -> None:
    whole = {
        "properties": {"a": {"items": {"$ref": "#/$defs/A"}}, "b": {"type": "null"}},
        "$defs": {"A": {"$ref": "#/$defs/a~1b"}, "a/b": {"type": "string"}, "C": {}},
    }
    assert property_schema(whole, "b") == {"type": "null"}
    assert property_schema(whole, "a") == {
        "items": {"$ref": "#/$defs/A"},
        "$defs": {"A": {"$ref": "#/$defs/a~1b"}, "a/b": {"type": "string"}},
    }
    assert property_schema(whole, "c") is None


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({}, set(ALL_TYPES)),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1, None]}, {"string", "integer", "null"}),
        ({"const": 0.5}, {"number"}),
        (
            {"anyOf": [{"type": "array"}, {"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/A"}]}]},
            {"array", "boolean", "object"},
        ),
        ({"allOf": [{"$ref": "#/$defs/A"}]}, {"object"}),
        ({"$ref": "#/$defs/Endless"}, set(ALL_TYPES)),
        ({"$ref": "https://elsewhere"}, set(ALL_TYPES)),
    ],
)
def test_a_schema_tells_its_types(schema: dict[str, object], types: set[str]) -> None:
    definitions = {"A": {"type": "object"}, "Endless": {"anyOf": [{"$ref": "#/$defs/Endless"}]}}
    assert types_of({**schema, "$defs": definitions}) == types


def test_notes_in_a_schema_are_left_out_and_properties_called_so_stay() -> None:
    schema = {
        "type": "object",
        "title": "T",
        "properties": {"description": {"type": "string", "description": "Told."}, "default": {"enum": ["title"]}},
        "$defs": {"title": {"type": "string", "title": "T"}},
    }
    written_schema = json.loads(json_schema(schema).removeprefix("%json "))
    assert written_schema.pop("x-guidance")
    assert written_schema == {
        "type": "object",
        "properties": {"description": {"type": "string"}, "default": {"enum": ["title"]}},
        "$defs": {"title": {"type": "string"}},
    }
