"""Tools for models whose chat template knows none: told in the system message, called between `<tool_call>` tags."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from runner.chat.tool_formats.hermes import HERMES
from runner.chat.types import Tool

GENERIC = dataclasses.replace(HERMES, name="generic", is_in=lambda template: False)


def instructions(tools: Sequence[Tool]) -> str:
    """What the system message says of the tools and of how they are called."""
    lines = [json.dumps(_declaration(tool), ensure_ascii=False) for tool in tools]
    return "\n".join(
        (
            "You can call these tools:",
            *lines,
            "To call a tool, answer with only this, once for each call:",
            "<tool_call>",
            '{"name": "NAME OF THE TOOL", "arguments": {ITS ARGUMENTS}}',
            "</tool_call>",
            "The results come back between <tool_response> tags.",
        )
    )


def written_call(name: str, arguments: str) -> str:
    """An earlier call, as the model would have written it; `arguments` is JSON text."""
    return f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}\n</tool_call>'


def written_result(content: str) -> str:
    """A tool's result, as a message of the user."""
    return f"<tool_response>\n{content}\n</tool_response>"


def _declaration(tool: Tool) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.schema}
