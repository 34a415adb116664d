"""Request bodies as pydantic models: what their fields may be, and pydantic's complaints as our errors."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from runner.errors import InvalidRequest, RequestError, Unsupported
from runner.notation import parse_duration
from runner.options import suggestion


class Body(BaseModel):
    """A request body or an object in one: every field is declared, and types are taken literally."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, eq=False)
class NotHonoured:
    """Annotates a field that is understood but not honoured: only null and the harmless values are taken."""

    # Never equal to another one: `Annotated` would take the one for 0 and the one for False as the same.

    harmless: tuple[object, ...]
    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [None, *self.harmless], "description": f"Any other value {self.why}."}

    def _check(self, value: object) -> object:
        if value is None or any(type(value) is type(one) and value == one for one in self.harmless):
            return value
        raise unsupported(self.why)


def not_honoured(*harmless: object, why: str = "is not supported by this version") -> NotHonoured:
    """`why` follows the field's path in the message."""
    return NotHonoured(harmless, why)


def lacks(capability: str) -> str:
    """Why a field is not honoured, in the words that clients look for."""
    return f"cannot be used: this version does not support {capability}"


class _IgnoredMark:
    """Marks a field that real clients always send and that cannot change an answer."""


_IN_VAIN = {"description": "Accepted, without effect; listed in X-Puna-Ignored."}
Ignored = Annotated[Any, _IgnoredMark(), WithJsonSchema(_IN_VAIN)]
IgnoredText = Annotated[str, _IgnoredMark(), WithJsonSchema({"type": "string", **_IN_VAIN})]
"""As `Ignored`, where anything but a text is wrong."""


def unsupported(why: str, suffix: str = "") -> PydanticCustomError:
    """Raised by a field's validator; `why` follows the field's path, `suffix` goes deeper into it."""
    return PydanticCustomError("unsupported", "{why}", {"why": why, "suffix": suffix})


def invalid(why: str, suffix: str = "") -> PydanticCustomError:
    """As `unsupported`, for a value that no version would take."""
    return PydanticCustomError("invalid", "{why}", {"why": why, "suffix": suffix})


def known(things: str, *kinds: str, default: str | None = None) -> BeforeValidator:
    """For objects whose `type` says what they are: kinds that are not among these are told as not supported.

    Those without a `type` are of the default one, if there is one.
    """

    def check(value: object) -> object:
        if not isinstance(value, dict):
            raise invalid("must be an object")
        kind = value.get("type", default)
        if not isinstance(kind, str):
            raise invalid("is required", ".type")
        if kind not in kinds:
            raise unsupported(lacks(f"{things} of the type {kind[:50]!r}"), ".type")
        return value

    return BeforeValidator(check)


def _read_keep_alive(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise invalid(f"is wrong: {error}") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise invalid('must be a number of seconds or a duration such as "5m"')
    return math.inf if seconds < 0 else seconds


KeepAlive = Annotated[
    float | None,
    BeforeValidator(_read_keep_alive),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}],
            "description": "Seconds or a duration such as 5m; 0 unloads after the answer, negative keeps for ever.",
        }
    ),
]
"""Seconds that a model stays loaded; infinite for negative values."""

BodyT = TypeVar("BodyT", bound=Body)


def validate(body_type: type[BodyT], value: object) -> BodyT:
    """Check a decoded body; raises InvalidRequest or Unsupported naming the first field that is wrong."""
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    try:
        return body_type.model_validate(value)
    except ValidationError as error:
        raise _translated(body_type, error.errors(include_url=False, include_input=False)) from None


def ignored_fields(body: Body) -> list[str]:
    """Paths of the fields a client sent in vain, for X-Puna-Ignored; items of an array count as one."""
    return list(dict.fromkeys(_ignored_in(body, "")))


def _ignored_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _ignored_in(item, f"{path}[]")
    elif isinstance(value, Body):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            here = f"{path}.{field.alias or name}" if path else field.alias or name
            if inner is not None and any(isinstance(mark, _IgnoredMark) for mark in field.metadata):
                yield here
            else:
                yield from _ignored_in(inner, here)


def _translated(body_type: type[BaseModel], details: list[ErrorDetails]) -> RequestError:
    first = details[0]
    location, context = first["loc"], first.get("ctx", {})
    path = _path(location) + str(context.get("suffix", ""))
    more = "" if len(details) == 1 else f" ({len(details) - 1} more)"
    if first["type"] == "unsupported":
        return Unsupported(f"{path} {context['why']}.{more}", field=path)
    if first["type"] == "extra_forbidden":
        name = str(location[-1])
        hint = suggestion(name, _declared_at(body_type, location[:-1]))
        return InvalidRequest(f"The field {_shortened(path)!r} is unknown; {hint}{more}", _shortened(path))
    return InvalidRequest(f"{path} {_complaint(first, context)}{more}", path)


def _complaint(detail: ErrorDetails, context: dict[str, Any]) -> str:
    kind = detail["type"]
    if kind in _COMPLAINTS:
        return _COMPLAINTS[kind].format_map(context)
    message = detail["msg"]
    return f"is wrong: {message[:1].lower()}{message[1:]}."


_COMPLAINTS = {
    "missing": "is required",
    "invalid": "{why}",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have at most {max_length} items",
}


_KINDS = (
    "text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking",
    "message", "function_call", "function_call_output", "reasoning", "item_reference",
    "input_text", "output_text", "refusal",
    "image_url", "input_image", "input_audio",
    "function_tool", "custom_tool", "custom_tool_call", "custom_tool_call_output",
)  # fmt: skip
"""Values of `type` that decide what an item of an array is; pydantic puts them into an error's place."""


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for place, step in enumerate(location):
        if step in _KINDS and isinstance(location[place - 1], int) and place + 1 < len(location):
            continue
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}…"


def _declared_at(body_type: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    declared = body_type
    for step in location:
        if isinstance(step, str) and step in declared.model_fields:
            declared = _model_in(declared.model_fields[step].annotation) or declared
    return {field.alias or name for name, field in declared.model_fields.items()}


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
