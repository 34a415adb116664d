"""Turns made of blocks, as the messages of a conversation. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator

from runner.api.anthropic.schema import (
    Block,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    TurnBody,
)
from runner.api.media_parts import MediaPart, join_parts, read_base64
from runner.chat.media import MediaKind
from runner.chat.types import Message, ToolCall
from runner.errors import InvalidRequest


def read_turns(turns: list[TurnBody]) -> tuple[Message, ...]:
    """Every turn in order; results of tools become messages of their own, where they stand among a turn's texts.

    Raises InvalidRequest naming the block.
    """
    if not turns:
        raise InvalidRequest("messages is required", "messages")
    _check_last(turns[-1], f"messages[{len(turns) - 1}].content")
    names: dict[str, str] = {}
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        path = f"messages[{index}].content"
        if turn.role == "assistant":
            messages.append(_assistant_message(turn.content, path, names))
        else:
            messages.extend(_other_messages(turn.role, turn.content, path, names))
    return tuple(messages)


def _check_last(turn: TurnBody, path: str) -> None:
    if turn.role == "assistant" and (calls := [block for block in turn.content if isinstance(block, ToolUseBlock)]):
        raise InvalidRequest(f"{path} calls {calls[0].name[:100]!a}, and no message brings the result.", path)


def read_system(system: list[TextBlock] | None) -> tuple[Message, ...]:
    text = "\n".join(block.text for block in system or ())
    return (Message("system", text),) if text else ()


def _assistant_message(blocks: list[Block], path: str, names: dict[str, str]) -> Message:
    texts, thoughts, calls = [], [], []
    for index, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, ToolUseBlock):
            names[block.id] = block.name
            calls.append(ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False)))
        elif isinstance(block, ImageBlock | DocumentBlock | ToolResultBlock):
            raise InvalidRequest(f"{path}[{index}] cannot be of the type {block.type} here.", f"{path}[{index}].type")
    return Message("assistant", "".join(texts), thinking="".join(thoughts) or None, tool_calls=tuple(calls))


def _other_messages(role: str, blocks: list[Block], path: str, names: dict[str, str]) -> Iterator[Message]:
    parts: list[str | MediaPart] = []
    for index, block in enumerate(blocks):
        here = f"{path}[{index}]"
        if isinstance(block, ToolResultBlock):
            if parts:
                yield _message(role, parts)
                parts = []
            yield _result(block, here, names)
        else:
            parts.append(_part(block, here))
    if parts:
        yield _message(role, parts)


def _message(role: str, parts: list[str | MediaPart]) -> Message:
    text, media = join_parts(parts)
    return Message(role, text, media=media)


def _part(block: Block, path: str) -> str | MediaPart:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, DocumentBlock):
        return "\n".join(part for part in (block.title, block.context, block.source.data) if part)
    if isinstance(block, ImageBlock):
        return read_base64(block.source.data, f"{path}.source.data", MediaKind.IMAGE)
    raise InvalidRequest(f"{path} cannot be of the type {block.type} here.", f"{path}.type")


def _result(block: ToolResultBlock, path: str, names: dict[str, str]) -> Message:
    parts = [_part(part, f"{path}.content[{index}]") for index, part in enumerate(block.content or ())]
    # Templates have no mark for a call that failed, and the model must know.
    if block.is_error:
        first = parts.pop(0) if parts and isinstance(parts[0], str) else ""
        parts.insert(0, f"Error: {first}")
    text, media = join_parts(parts)
    return Message("tool", text, tool_name=names.get(block.tool_use_id), tool_call_id=block.tool_use_id, media=media)
