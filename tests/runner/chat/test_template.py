"""Chat templates: rendered as their authors meant, and held in a sandbox."""

from __future__ import annotations

import pytest

from runner.chat.template import ChatTemplate
from runner.chat.types import Message
from runner.errors import InvalidRequest, ModelInvalid

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = (Message("user", "Hello"),)


def render(source: str, messages: tuple[Message, ...] = HELLO, thinking: bool | None = None) -> str:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(messages, thinking=thinking)


def test_a_published_template_gives_the_published_prompt() -> None:
    assert render(CHATML) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_and_the_clock_are_there() -> None:
    assert render("{{ bos_token }}{{ strftime_now('%Y') | length }}{{ eos_token }}") == "<s>4</s>"


def test_blocks_leave_no_blank_lines_behind() -> None:
    assert render("{% if true %}\n  {% for m in messages %}\nx\n  {% endfor %}\n{% endif %}\n") == "x\n"


def test_training_marks_are_rendered_through() -> None:
    assert render("{% generation %}a{% endgeneration %}b") == "ab"


def test_loop_controls_work() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_thinking_reaches_the_template_only_when_it_was_decided() -> None:
    source = "{{ enable_thinking is defined }}{{ enable_thinking }}"
    assert render(source, thinking=False) == "TrueFalse"
    assert render(source).startswith("False")


def test_json_keeps_other_alphabets() -> None:
    assert render("{{ {'a': 'é<'} | tojson }}") == '{"a": "é<"}'


def test_what_the_template_refuses_is_the_callers_error_in_its_words() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize("source", ["{% if %}", "{{ 1 + }}", "{% for %}", "{{ messages | nosuchfilter }}"])
def test_a_template_that_is_no_template_is_told_at_once(source: str) -> None:
    with pytest.raises(ModelInvalid):
        ChatTemplate(source, {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 999999999 }}",
        "{{ 999999999 * [1] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ nothing.at.all }}",
    ],
)
def test_a_hostile_template_fails_and_does_nothing_else(source: str) -> None:
    with pytest.raises(ModelInvalid):
        render(source)


@pytest.mark.parametrize("source", ["{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}"])
def test_a_templates_way_to_pythons_own_attributes_is_closed(source: str) -> None:
    assert render(source) == ""
