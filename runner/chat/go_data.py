"""Messages and tools as the templates of Ollama's models expect them: Go structs and their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.chat.go_template.errors import Fault
from runner.chat.go_template.values import GoList, GoMap, Record, RecordField, RecordType, TypeNames, Value, from_json
from runner.chat.types import Message, Tool, ToolCall

_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _typescript(record: Record) -> str:
    """The type of a tool's parameter as TypeScript writes it."""
    choices = record.get("AnyOf")
    if choices:
        return " | ".join(map(_typescript, choices))
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in record.get("Type")) or "any"


def _fields(*described: str) -> tuple[RecordField, ...]:
    """Of descriptions `Name json_name`, with a `?` behind those that JSON leaves out when they are empty."""
    pairs = (one.rstrip("?").split() for one in described)
    return tuple(
        RecordField(name, json_name, text.endswith("?"))
        for (name, json_name), text in zip(pairs, described, strict=True)
    )


_PROPERTY = RecordType(
    "api.ToolProperty",
    _fields(
        "AnyOf anyOf?",
        "Type type?",
        "Items items?",
        "Description description?",
        "Enum enum?",
        "Properties properties?",
        "Required required?",
    ),
    methods={"ToTypeScriptType": _typescript},
)
_PARAMETERS = RecordType(
    "template.templateToolFunctionParameters",
    _fields("Type type", "Defs $defs?", "Items items?", "Required required?", "Properties properties"),
    is_shown_as_json=True,
)
_FUNCTION = RecordType(
    "template.templateToolFunction",
    _fields("Name name", "Description description?", "Parameters parameters"),
    is_shown_as_json=True,
)
_TOOL = RecordType(
    "template.templateTool", _fields("Type type", "Items items?", "Function function"), is_shown_as_json=True
)
_CALLED = RecordType("template.templateToolCallFunction", _fields("Index Index", "Name Name", "Arguments Arguments"))
_CALL = RecordType("template.templateToolCall", _fields("ID ID", "Function Function"))
_MESSAGE = RecordType(
    "*template.templateMessage",
    _fields(
        "Role Role",
        "Content Content",
        "Thinking Thinking",
        "Images Images",
        "ToolCalls ToolCalls",
        "ToolName ToolName",
        "ToolCallID ToolCallID",
    ),
)


def go_messages(messages: Iterable[Message]) -> list[Value]:
    """`.Messages`. Raises Fault for numbers that Go has not."""
    return [
        Record(
            _MESSAGE,
            Role=message.role,
            Content=message.content,
            Thinking=message.thinking or "",
            Images=GoList(is_nil=True),
            ToolCalls=GoList(
                [_call(index, call) for index, call in enumerate(message.tool_calls)], is_nil=not message.tool_calls
            ),
            ToolName=message.tool_name or "",
            ToolCallID=message.tool_call_id or "",
        )
        for message in messages
    ]


def go_tools(tools: Iterable[Tool]) -> GoList:
    """`.Tools`. Of a tool's schema, it has what Ollama reads of one. Raises Fault for numbers that Go has not."""
    made = [_tool(tool) for tool in tools]
    return GoList(made, is_nil=not made, is_shown_as_json=True)


def _call(index: int, call: ToolCall) -> Record:
    arguments = call.parsed()
    if arguments is None:
        raise Fault(f"the arguments of the call of {call.name[:100]!a} are no JSON object")
    called = Record(_CALLED, Index=index, Name=call.name, Arguments=GoMap(from_json(arguments)))
    return Record(_CALL, ID=call.id, Function=called)


def _tool(tool: Tool) -> Record:
    schema = tool.schema
    parameters = Record(
        _PARAMETERS,
        Type=_text(schema, "type"),
        Defs=from_json(schema.get("$defs")),
        Items=from_json(schema.get("items")),
        Required=_texts(schema, "required"),
        Properties=_properties(schema),
    )
    function = Record(_FUNCTION, Name=tool.name, Description=tool.description, Parameters=parameters)
    return Record(_TOOL, Type="function", Items=None, Function=function)


def _properties(schema: Mapping[str, Any], *, is_ordered: bool = False) -> GoMap:
    found = schema.get("properties")
    items = {name: _property(one) for name, one in found.items()} if isinstance(found, dict) else {}
    return GoMap(items, zero=_property({}), is_nil=not isinstance(found, dict), is_ordered=is_ordered)


def _property(schema: object) -> Record:
    if not isinstance(schema, dict):
        schema = {}
    choices, types, values = schema.get("anyOf"), schema.get("type"), schema.get("enum")
    nested = schema.get("properties")
    return Record(
        _PROPERTY,
        AnyOf=[_property(one) for one in choices] if isinstance(choices, list) else [],
        Type=TypeNames([types] if isinstance(types, str) else _texts(schema, "type")),
        Items=from_json(schema.get("items")),
        Description=_text(schema, "description"),
        Enum=from_json(values) if isinstance(values, list) else [],
        Properties=_properties(schema, is_ordered=True) if isinstance(nested, dict) else None,
        Required=_texts(schema, "required"),
    )


def _text(schema: Mapping[str, Any], name: str) -> str:
    value = schema.get(name)
    return value if isinstance(value, str) else ""


def _texts(schema: Mapping[str, Any], name: str) -> list[str]:
    value = schema.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
