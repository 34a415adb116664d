"""What tools and thinking make of a request: how its answer is read, and what it may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from runner.chat.output_format import output_format
from runner.chat.types import (
    ChatPrompt,
    ChatRequest,
    FinishReason,
    Message,
    TextDelta,
    ThinkingDelta,
    Tool,
    ToolCallDelta,
    ToolUse,
)
from runner.engine import Engine
from runner.errors import InvalidRequest, Unsupported
from runner.sampling import Constraint, ConstraintKind
from runner.worker.answer import Answer
from runner.worker.output import constrain, plan_output
from runner.worker.prompt import PreparedPrompt
from tests.fake_engine import FakeSampler

QWEN = "{{ messages }}<tool_call></tool_call><think></think>"
MISTRAL = "{{ messages }}[TOOL_CALLS]"
PLAIN = "{{ messages }}"
NOTE = Tool("note", {"type": "object", "properties": {}})
PING = Tool("ping", {"type": "object", "properties": {}})
SPECIAL = {"[TOOL_CALLS]": 1, "<tool_call>": 2, "</tool_call>": 3}


class SpellingVocabulary:
    """Characters are tokens of their own number; `[TOOL_CALLS]` is a control token, the tags are not."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [SPECIAL[text]] if text in SPECIAL and parse_special else [ord(character) for character in text]

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == 1 else self.written(token)

    def written(self, token: int) -> bytes:
        return next((text for text, number in SPECIAL.items() if number == token), chr(token)).encode()

    def ends_generation(self, token: int) -> bool:
        return token == 0


VOCABULARY = SpellingVocabulary()
ENGINE = cast("Engine", VOCABULARY)


def request(tools: Sequence[Tool] = (), **more: Any) -> ChatRequest:
    return ChatRequest(ChatPrompt((Message("user", "Hi"),), tools=tuple(tools)), **more)


def prepared(template: str, text: str = "Hi") -> PreparedPrompt:
    return PreparedPrompt([1], 100, text, output=output_format(template))


def constraint(wanted: ChatRequest, template: str, text: str = "Hi") -> Constraint | None:
    return constrain(wanted, plan_output(wanted, prepared(template, text), ENGINE), ENGINE)


def test_a_plain_answer_needs_no_reading() -> None:
    assert plan_output(request(), prepared(PLAIN), ENGINE) is None
    assert plan_output(request([NOTE], tool_use=ToolUse.NONE), prepared(PLAIN), ENGINE) is None


def test_a_text_prompt_needs_no_reading() -> None:
    assert plan_output(request([NOTE]), PreparedPrompt([1], 100, "Hi"), ENGINE) is None


def test_a_required_call_is_all_that_the_answer_may_be() -> None:
    found = constraint(request([NOTE, PING], tool_use=ToolUse.REQUIRED), QWEN)
    assert found is not None
    assert found.source.startswith("start: <[2]> framed")
    assert "note" in found.source
    assert "ping" in found.source
    assert not found.is_optional


def test_a_named_tool_leaves_no_other() -> None:
    found = constraint(request([NOTE, PING], tool_use=ToolUse.REQUIRED, named_tool="ping"), QWEN)
    assert found is not None
    assert "ping" in found.source
    assert "note" not in found.source
    with pytest.raises(InvalidRequest, match="no tool named 'other'"):
        constraint(request([NOTE], tool_use=ToolUse.REQUIRED, named_tool="other"), QWEN)


def test_several_calls_where_one_is_a_must_have_to_be_asked_for() -> None:
    one = constraint(request([NOTE], tool_use=ToolUse.REQUIRED), QWEN)
    many = constraint(request([NOTE], tool_use=ToolUse.REQUIRED, parallel_calls=True), QWEN)
    assert one is not None
    assert many is not None
    assert ")*" in many.source
    assert ")*" not in one.source


def test_a_call_that_the_model_begins_of_itself_is_held_to_its_schema() -> None:
    found = constraint(request([NOTE]), QWEN)
    assert found is not None
    assert (found.after, found.is_optional) == ("<tool_call>", True)


def test_thinking_comes_before_what_is_constrained() -> None:
    schema = Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}', "format")
    inside = constraint(request(constraint=schema), QWEN, "Hi<think>\n")
    outside = constraint(request(constraint=schema), QWEN)
    assert inside is not None
    assert outside is not None
    assert (inside.after, outside.after) == ("</think>", None)


def test_an_answer_in_a_format_may_be_a_call_instead() -> None:
    schema = Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}', "format")
    found = constraint(request([NOTE], constraint=schema), QWEN)
    assert found is not None
    assert found.source.startswith("start: answer | calls\n")
    with pytest.raises(InvalidRequest, match="cannot be a tool call and follow another format"):
        constraint(request([NOTE], constraint=schema, tool_use=ToolUse.REQUIRED), QWEN)


def said(template: str, tokens: list[int], wanted: ChatRequest) -> tuple[list[Any], FinishReason | None]:
    answer = Answer(wanted, 100, plan_output(wanted, prepared(template), ENGINE))
    sampler = cast("Any", FakeSampler(cast("Any", None)))
    events: list[Any] = []
    for token in tokens:
        events += answer.accept(token, VOCABULARY, sampler)
    events += answer.finish()
    return events, answer.ended


def spelled(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_control_tokens_that_mark_calls_are_read_and_others_are_not_seen() -> None:
    tokens = [*spelled("Hm."), 1, *spelled('[{"name": "note", "arguments": {"a": 1}}]'), 0]
    events, ended = said(MISTRAL, tokens, request([NOTE]))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hm."
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert calls[0].name == "note"
    assert calls[0].id.startswith("call_")
    assert json.loads("".join(call.arguments for call in calls)) == {"a": 1}
    assert ended is FinishReason.TOOL_CALLS


def test_thoughts_are_told_apart_from_the_answer() -> None:
    events, ended = said(QWEN, [*spelled("<think>Hm.</think>Yes."), 0], request())
    assert "".join(event.text for event in events if isinstance(event, ThinkingDelta)) == "Hm."
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Yes."
    assert ended is FinishReason.STOP


def test_an_answer_cut_off_in_a_call_ends_for_its_length() -> None:
    wanted = request([NOTE])
    answer = Answer(wanted, 100, plan_output(wanted, prepared(QWEN), ENGINE))
    sampler = cast("Any", FakeSampler(cast("Any", None)))
    answer.max_generated = 20
    for token in [2, *spelled('{"name": "note", "a')][:20]:
        answer.accept(token, VOCABULARY, sampler)
    answer.finish()
    assert answer.ended is FinishReason.LENGTH


def test_tokens_of_thoughts_are_counted_apart() -> None:
    answer = Answer(request(), 100, plan_output(request(), prepared(QWEN), ENGINE))
    sampler = cast("Any", FakeSampler(cast("Any", None)))
    for token in [*spelled("<think>Hm, yes.</think>No."), 0]:
        answer.accept(token, VOCABULARY, sampler)
    assert len("Hm, yes.") <= answer.thinking_tokens <= len("<think>Hm, yes.</think>")
    assert answer.generated == len("<think>Hm, yes.</think>No.") + 1


def test_a_format_of_a_tool_needs_a_mark_or_a_call_that_is_required() -> None:
    tool = msgspec.structs.replace(NOTE, format=Constraint(ConstraintKind.REGEX, "[a-z]+", "tools[0].format"))
    unmarked = "[func_name1("
    with pytest.raises(Unsupported, match="begin with no mark") as caught:
        constraint(request([tool]), unmarked)
    assert caught.value.facts["field"] == "tools[0].format"
    assert constraint(request([tool], tool_use=ToolUse.REQUIRED), unmarked) is not None
    assert constraint(request([NOTE]), unmarked) is None
