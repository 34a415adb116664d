"""Whatever a format's grammar lets a model write is a call that the format's reader finds, valid for its tool."""

from __future__ import annotations

import json
import random

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
TOKENIZER = llguidance.LLTokenizer("byte")


class PlainTerms:
    """For a vocabulary without control tokens."""

    def literal(self, text: str) -> str:
        return json.dumps(text)


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
    grammar = required_grammar(tool_format, TOOLS, PlainTerms(), is_parallel=is_parallel)
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
    grammar = call_grammar(tool_format, TOOLS, PlainTerms(), is_parallel=True)
    for seed in range(10):
        text = f"Well. {tool_format.opening}{written(grammar, seed)}"
        content, _, calls = parsed(OutputParser(tool_format=tool_format, tools=TOOLS), [text])
        assert (content.strip(), bool(calls)) == ("Well.", True), text


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
