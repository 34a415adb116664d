"""Answers whose beginning is given: the prompt ends with those words, in whatever language the template is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.chat.template import ChatTemplate
from runner.chat.thinking import ThinkingTags, begins_thinking
from runner.chat.types import Message, ToolCall, is_begun
from runner.errors import Unsupported

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = CHATML.replace("message['content']", "message['content'] | trim")
GO_MESSAGES = (
    '{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>{{ "assistant" }}\n'
)
GO_TURNS = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
BEFORE = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


def continued(source: str, begun: str, thinking: str | None = None) -> str:
    messages = (Message("user", "Why?"), Message("assistant", begun, thinking=thinking))
    return ChatTemplate(source, {}).render(messages, continues=True)


@pytest.mark.parametrize("source", [CHATML, TRIMMED, GO_MESSAGES, GO_TURNS])
@pytest.mark.parametrize("begun", ["Because", "Because ", "1. ", ""])
def test_the_prompt_ends_with_the_words_that_are_given(source: str, begun: str) -> None:
    assert continued(source, begun) == BEFORE + begun


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_words_may_be_given(begun: str) -> None:
    assert continued(CHATML, begun) == BEFORE + begun


def test_a_conversation_may_speak_of_the_mark_itself() -> None:
    begun = "PunaGoesOnHere0X and PunaGoesOnHere1X"
    assert continued(CHATML, begun) == BEFORE + begun


def test_thoughts_that_are_given_stand_in_front_of_the_words() -> None:
    source = CHATML.replace("message['content']", "'<think>' ~ message.thinking ~ '</think>' ~ message['content']")
    text = ChatTemplate(source, {}).render((Message("assistant", "So", thinking="Hm."),), continues=True)
    assert text == "<|im_start|>assistant\n<think>Hm.</think>So"


@pytest.mark.parametrize(
    "source",
    [
        "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }}{% endif %}{% endfor %}",
        "{{ messages[-1].content }}{{ messages[-1].content }}",
        "{{ .System }} {{ .Prompt }} {{ if .Nothing }}{{ .Response }}{{ end }}",
    ],
)
def test_a_template_that_has_no_place_for_them_is_told(source: str) -> None:
    with pytest.raises(Unsupported, match="no place for an answer that is begun"):
        continued(source, "Because")


def test_words_are_gone_on_with_and_calls_are_not() -> None:
    call = ToolCall("1", "f", "{}")
    assert is_begun((Message("user", "Hi"), Message("assistant", "")))
    assert not is_begun((Message("user", "Hi"), Message("assistant", "", tool_calls=(call,))))
    assert not is_begun((Message("user", "Hi"),))
    assert not is_begun(())


def test_an_answer_that_was_begun_with_a_thought_goes_on_thinking() -> None:
    tags = ThinkingTags("<think>", "</think>")
    assert begins_thinking("…<think>Let me", tags, "<think>Let me")
    assert not begins_thinking("…<think>Hm.</think>So", tags, "<think>Hm.</think>So")
    assert not begins_thinking("<think>earlier</think> So", tags, "So")
