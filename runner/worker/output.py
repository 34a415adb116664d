"""What a request's answer will be made of, and the constraint that its tools put on it."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runner.chat.output_format import OutputFormat
from runner.chat.output_parser import OutputParser
from runner.chat.thinking import begins_thinking
from runner.chat.tool_formats.calls import CallArguments, CallStarted, Content, Piece, Thinking
from runner.chat.tool_formats.grammar import call_grammar, required_grammar
from runner.chat.tool_formats.terms import Terms
from runner.chat.types import (
    ChatEvent,
    ChatRequest,
    TextDelta,
    ThinkingDelta,
    Tool,
    ToolCallDelta,
    ToolUse,
    begun_answer,
    usable_tools,
)
from runner.engine import Engine
from runner.errors import InvalidRequest, Unsupported
from runner.sampling import Constraint, ConstraintKind
from runner.worker.prompt import PreparedPrompt


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """How one answer is read."""

    format: OutputFormat
    tools: tuple[Tool, ...]
    begins_thinking: bool
    marker_tokens: frozenset[int]
    """Control tokens that stand for markers and are wanted as text."""

    def parser(self) -> OutputParser:
        return OutputParser(
            thinking=self.format.thinking,
            begins_thinking=self.begins_thinking,
            tool_format=self.format.calls,
            tools=self.tools,
        )


def plan_output(request: ChatRequest, prompt: PreparedPrompt, engine: Engine) -> OutputPlan | None:
    """None for an answer that is plain text and nothing else."""
    how, tools = prompt.output, usable_tools(request)
    if how is None or not (tools or how.thinking or how.calls.is_always_read):
        return None
    thinks = how.thinking is not None and begins_thinking(prompt.text, how.thinking, begun_answer(request))
    return OutputPlan(how, tools, thinks, frozenset(_control_tokens(how.markers, engine)))


def constrain(request: ChatRequest, plan: OutputPlan | None, engine: Engine) -> Constraint | None:
    """The constraint of a request, with what its tools and its model's thinking make of it.

    Raises InvalidRequest for wishes that exclude each other.
    """
    wanted = request.constraint
    if wanted is not None:
        wanted = dataclasses.replace(wanted, begun=_begun_after_thinking(request, plan))
    if plan is None:
        return wanted
    thinking = plan.format.thinking
    after_thinking = thinking.closing if thinking is not None and plan.begins_thinking else None
    if plan.tools and request.tool_use is ToolUse.REQUIRED:
        calls = _required_calls(request, plan, engine)
        return Constraint(ConstraintKind.LARK, calls, "tools", after=after_thinking, is_framed=_has_schemas_only(plan))
    if wanted is None:
        return _possible_calls(request, plan, engine)
    if plan.tools:
        wanted = _answer_or_calls(wanted, request, plan, engine)
    return dataclasses.replace(wanted, after=after_thinking)


def _begun_after_thinking(request: ChatRequest, plan: OutputPlan | None) -> str:
    """What is given of the answer itself."""
    begun, thinking = begun_answer(request), plan.format.thinking if plan is not None else None
    if plan is None or thinking is None:
        return begun
    return "" if plan.begins_thinking else begun.rpartition(thinking.closing)[2]


def _required_calls(request: ChatRequest, plan: OutputPlan, engine: Engine) -> str:
    if request.constraint is not None:
        raise InvalidRequest("An answer cannot be a tool call and follow another format too.", request.constraint.field)
    chosen = [tool for tool in plan.tools if request.named_tool in (None, tool.name)]
    if not chosen:
        raise InvalidRequest(f"There is no tool named {request.named_tool!r}.", "tool_choice")
    # A small model that has to call finds no end when it may call again.
    is_parallel = request.parallel_calls is True
    return required_grammar(plan.format.calls, chosen, _terms(plan, engine), is_parallel=is_parallel)


def _possible_calls(request: ChatRequest, plan: OutputPlan, engine: Engine) -> Constraint | None:
    """What keeps calls well-formed that the model begins of itself; None where no mark tells that it does."""
    opening = plan.format.calls.opening
    if not plan.tools or not opening:
        if unkept := next((tool.format for tool in plan.tools if tool.format is not None), None):
            raise Unsupported(
                "This model's calls begin with no mark, so that a tool's format can only be kept to where a call is "
                "required; send tool_choice.",
                field=unkept.field,
            )
        return None
    is_parallel = request.parallel_calls is not False
    terms = _terms(plan, engine)
    grammar = call_grammar(plan.format.calls, plan.tools, terms, is_parallel=is_parallel)
    framed = _has_schemas_only(plan)
    return Constraint(ConstraintKind.LARK, grammar, "tools", after=opening, is_optional=True, is_framed=framed)


def _answer_or_calls(wanted: Constraint, request: ChatRequest, plan: OutputPlan, engine: Engine) -> Constraint:
    """A format for the answer, unless the model calls its tools instead."""
    if wanted.kind is not ConstraintKind.JSON_SCHEMA:
        return wanted
    is_parallel = request.parallel_calls is not False
    terms = _terms(plan, engine)
    calls = required_grammar(plan.format.calls, plan.tools, terms, is_parallel=is_parallel)
    start, _, rules = calls.partition("\n")
    source = f"start: answer | calls\nanswer: %json {wanted.source}\ncalls: {start.removeprefix('start: ')}\n{rules}"
    return dataclasses.replace(wanted, kind=ConstraintKind.LARK, source=source, is_framed=_has_schemas_only(plan))


def _has_schemas_only(plan: OutputPlan) -> bool:
    """Whether no tool brings a grammar of its own."""
    return all(tool.format is None for tool in plan.tools)


class OutputReader:
    """Turns an answer's text into events; one for each answer."""

    def __init__(self, plan: OutputPlan) -> None:
        self._parser = plan.parser()

    @property
    def has_calls(self) -> bool:
        return self._parser.calls > 0

    def push(self, text: str) -> Iterable[ChatEvent]:
        return map(_event, self._parser.push(text))

    def finish(self) -> Iterable[ChatEvent]:
        return map(_event, self._parser.finish())


def _event(piece: Piece) -> ChatEvent:
    match piece:
        case Content(text):
            return TextDelta(text)
        case Thinking(text):
            return ThinkingDelta(text)
        case CallStarted(index, name):
            return ToolCallDelta(index, id=f"call_{secrets.token_hex(12)}", name=name)
        case CallArguments(index, text):
            return ToolCallDelta(index, arguments=text)


def _terms(plan: OutputPlan, engine: Engine) -> Terms:
    """For one vocabulary: markers that are tokens of their own must be asked for by number."""
    tokens = ((marker, _marker_token(marker, engine)) for marker in plan.format.markers)
    return Terms({marker: token for marker, token in tokens if token is not None})


def _marker_token(marker: str, engine: Engine) -> int | None:
    """The token that llguidance takes for a special one: it matches no text."""
    tokens = engine.tokenize(marker, add_special=False, parse_special=True)
    if len(tokens) != 1:
        return None
    looks_special = marker.startswith("<") and marker.endswith(">")
    return tokens[0] if looks_special or not engine.token_bytes(tokens[0]) else None


def _control_tokens(markers: Sequence[str], engine: Engine) -> Iterable[int]:
    for marker in markers:
        token = _marker_token(marker, engine)
        if token is not None and not engine.token_bytes(token):
            yield token
