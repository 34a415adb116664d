"""The response object: what was asked, and what has come of it so far. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.api.errors import ErrorReport
from runner.api.openai.responses_items import Item
from runner.api.openai.responses_schema import CustomTool, ResponseBody
from runner.api.openai.responses_translate import new_id
from runner.api.openai.translate import Json, cache_tiers, truncation
from runner.calls import Call
from runner.chat.types import Finished, FinishReason
from runner.choices import Choices
from runner.generate import Generation
from runner.receipt import receipt_field
from runner.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class ResponseFrame:
    """All of a response that does not change while it grows."""

    body: ResponseBody
    call: Call
    sampling: SamplingParams
    generation: Generation | Choices | None = None
    """None before the model has begun."""
    id: str = field(default_factory=lambda: new_id("resp"))
    created_at: int = field(default_factory=lambda: int(time.time()))

    def record(self, status: str, output: Sequence[Item], usage: Json | None = None, error: Json | None = None) -> Json:
        """The object in a state in which it is told."""
        body, sampling = self.body, self.sampling
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": bool(body.background),
            **({"conversation": {"id": body.conversation.id}} if body.conversation else {}),
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "metadata": body.metadata or {},
            "model": body.model,
            "output": [item.record() for item in output],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "prompt_cache_key": None,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "safety_identifier": None,
            "service_tier": "default",
            "store": body.store is not False,
            "temperature": sampling.temperature,
            "text": {"format": _format(body), "verbosity": "medium"},
            "tool_choice": _tool_choice(body),
            "tools": _tools(body),
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": body.truncation or "disabled",
            "usage": usage,
            "user": None,
        }

    def finished(self, end: Finished, output: Sequence[Item]) -> Json:
        """The object in its last state."""
        status = "incomplete" if end.reason is FinishReason.LENGTH else "completed"
        assert self.generation is not None
        extra = cache_tiers([end.usage]) | truncation([end]) | receipt_field(self.call, self.generation, [end])
        return self.record(status, output, _usage(end)) | extra

    def failed(self, report: ErrorReport, output: Sequence[Item]) -> Json:
        code = "invalid_prompt" if report.status < 500 else "server_error"
        return self.record("failed", output, error={"code": code, "message": report.message})


def _usage(end: Finished) -> Json:
    usage = end.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _format(body: ResponseBody) -> Json:
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted else "text"}
    return {
        "type": "json_schema",
        "name": wanted.name,
        "description": wanted.description,
        "schema": wanted.schema_,
        "strict": True,
    }


def _tool_choice(body: ResponseBody) -> str | Json:
    choice = body.tool_choice
    if choice is None:
        return "auto"
    if choice.type in ("function", "custom"):
        return {"type": choice.type, "name": choice.name}
    if choice.type == "allowed_tools":
        allowed = [{"type": tool.type, "name": tool.name} for tool in choice.tools or ()]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": allowed}
    return choice.type


def _tools(body: ResponseBody) -> list[Json]:
    return [
        _custom(tool)
        if isinstance(tool, CustomTool)
        else {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": tool.strict,
        }
        for tool in body.tools or ()
    ]


def _custom(tool: CustomTool) -> Json:
    wanted = tool.format
    told: Json = {"type": "text"}
    if wanted is not None and wanted.grammar is not None:
        told = {"type": "grammar", "syntax": wanted.grammar.syntax, "definition": wanted.grammar.definition}
    return {"type": "custom", "name": tool.name, "description": tool.description, "format": told}
