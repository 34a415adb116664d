"""Tools whose input is a text and not an object: how a model sees them, and how their text is read from its calls.

To a model such a tool is a function with one argument, a string. A grammar becomes the pattern of
that string, so that it holds however the model's own format of calls quotes it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

from runner.api.openai.lark import LarkError, lark_regex
from runner.api.validation import Body, invalid, lacks, unsupported
from runner.chat.types import Tool
from runner.errors import ConstraintInvalid, InvalidRequest
from runner.sampling import Constraint, ConstraintKind

ARGUMENT = "input"
_STRING = re.compile(r'\s*\{\s*"' + ARGUMENT + r'"\s*:\s*"')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|u(?![dD][89abAB])[0-9a-fA-F]{4})')
_LONGEST_ESCAPE = len(r"\ud83d\ude00")


class GrammarBody(Body):
    syntax: Literal["lark", "regex"]
    definition: str


def _as_one(value: object) -> object:
    """The grammar of a format; chat completions have an object around it that responses have not."""
    if not isinstance(value, dict) or not isinstance(kind := value.get("type"), str):
        raise invalid("is required", ".type")
    if kind not in ("text", "grammar"):
        raise unsupported(lacks(f"the format {kind[:50]!r}"), ".type")
    if kind == "grammar" and "grammar" not in value:
        return {"type": kind, "grammar": {key: one for key, one in value.items() if key != "type"}}
    return value


class FormatBody(Body):
    type: Literal["text", "grammar"]
    grammar: GrammarBody | None = None


Format = Annotated[FormatBody | None, BeforeValidator(lambda value: None if value is None else _as_one(value))]


class CustomBody(Body):
    name: str
    description: str | None = None
    format: Format = None


def custom_tool(name: str, description: str | None, wanted: FormatBody | None, field: str) -> Tool:
    """The tool as a function. Raises InvalidRequest or ConstraintInvalid for a format that cannot be kept to."""
    text: dict[str, object] = {"type": "string"}
    constraint = None
    if wanted is not None and wanted.type == "grammar":
        if wanted.grammar is None:
            raise InvalidRequest(f"{field}.format.grammar is required", f"{field}.format.grammar")
        where = f"{field}.format"
        expression = _expression(wanted.grammar, where)
        constraint = Constraint(ConstraintKind.REGEX, expression, where)
        text["pattern"] = f"^(?:{expression})$"
    elif wanted is not None and wanted.grammar is not None:
        raise InvalidRequest(f"{field}.format has a grammar, and is of the type text.", f"{field}.format.grammar")
    schema = {"type": "object", "properties": {ARGUMENT: text}, "required": [ARGUMENT], "additionalProperties": False}
    return Tool(name, schema, description or "", format=constraint)


def _expression(grammar: GrammarBody, field: str) -> str:
    if grammar.syntax == "regex":
        return grammar.definition.replace("\\/", "/")
    try:
        return lark_regex(grammar.definition)
    except LarkError as error:
        raise ConstraintInvalid(f"The Lark grammar in {field} cannot be honoured: {error}.", field) from None


def arguments_of(text: str) -> str:
    """The arguments of an earlier call of such a tool."""
    return json.dumps({ARGUMENT: text}, ensure_ascii=False)


def input_of(arguments: str) -> str:
    """The text of a whole call."""
    reader = InputReader()
    return reader.push(arguments) + reader.finish()


class InputReader:
    """Reads the text of one call from its arguments as they come; what is no such text comes out as it is."""

    def __init__(self) -> None:
        self._waiting = ""
        self._is_in_text = False
        self._is_over = False

    def push(self, arguments: str) -> str:
        """More of the arguments' JSON; gives what is certain of the text by now."""
        self._waiting += arguments
        if not self._is_in_text:
            if (found := _STRING.match(self._waiting)) is None:
                return ""
            self._is_in_text = True
            self._waiting = self._waiting[found.end() :]
        return self._read()

    def finish(self) -> str:
        """What was held back."""
        rest, self._waiting = self._waiting, ""
        return "" if self._is_over or not rest.strip("{} \n") else rest

    def _read(self) -> str:
        if self._is_over:
            return ""
        made, at, text = [], 0, self._waiting
        while at < len(text):
            sign = text[at]
            if sign == '"':
                self._is_over = True
                break
            if sign != "\\":
                end = next((place for place in range(at, len(text)) if text[place] in '"\\'), len(text))
                made.append(text[at:end])
                at = end
            elif (escape := _ESCAPE.match(text, at)) is not None:
                made.append(json.loads(f'"{escape.group()}"'))
                at = escape.end()
            elif len(text) - at < _LONGEST_ESCAPE:
                break
            else:
                made.append(sign)
                at += 1
        self._waiting = text[at:]
        return "".join(made)
