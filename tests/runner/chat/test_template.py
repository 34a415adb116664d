"""Chat templates: rendered as their authors meant, and held in a sandbox."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.chat.template import ChatTemplate
from runner.chat.types import Message, Tool, ToolCall
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


ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)


def said(turns: list[str]) -> tuple[Message, ...]:
    """Messages of a role and a word each."""
    return tuple(Message(role, word) for role, word in map(str.split, turns))


@pytest.mark.parametrize(
    ("turns", "prompt"),
    [
        (["user a", "user b"], "<user>a\n\nb"),
        (["system s", "user a"], "<user>s\n\na"),
        (
            ["system s", "system t", "user a", "user b", "assistant c", "user d"],
            "<user>s\n\nt\n\na\n\nb<assistant>c<user>d",
        ),
    ],
)
def test_a_template_that_takes_only_some_turns_gets_the_same_words_in_those(turns: list[str], prompt: str) -> None:
    messages = said(turns)
    assert render(ALTERNATING, messages) == prompt


@pytest.mark.parametrize(
    "turns", [["assistant a"], ["system s"], ["user a", "assistant b", "tool c"], ["system s", "assistant a"]]
)
def test_what_no_shape_makes_acceptable_is_refused_in_the_words_for_the_first(turns: list[str]) -> None:
    messages = said(turns)
    reason = "no system here" if turns[0].startswith("system") else "roles must alternate"
    with pytest.raises(InvalidRequest, match=reason):
        render(ALTERNATING, messages)


def test_a_template_that_takes_the_conversation_gets_it_as_it_is() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert (
        render(source, (Message("system", "s"), Message("user", "a"), Message("user", "b")))
        == "<system>s<user>a<user>b"
    )


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
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set x = 'x' * 999999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
        "{% set x = 'x' * 999999 %}{% set y %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endset %}",
        "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ range(99999) | join('b' * 99999) }}",
        "{{ ('b' * 99999).join(['a'] * 99999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ ('{0}' * 99999).format('x' * 99999) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ 'a'.zfill(999999999) }}",
        "{{ '\t'.expandtabs(999999999) }}",
        "{{ 'a' | indent(999999999, true) }}",
        "{{ lipsum(n=99999) }}",
    ],
)
def test_a_hostile_template_fails_and_does_nothing_else(source: str) -> None:
    with pytest.raises(ModelInvalid):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_a_template_without_end_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.chat.sandbox.Budget.__init__.__defaults__", (0.2,))
    with pytest.raises(ModelInvalid, match="takes too long"):
        render(source)


def test_joining_and_formatting_work_as_templates_expect() -> None:
    assert render("{{ ['a', 1] | join(', ') }} {{ messages | join('-', attribute='role') }}") == "a, 1 user"
    assert render("{{ 'a-b' | replace('-', '+') }} {{ '%s!' | format('c') }} {{ '%s%%' % 5 }}") == "a+b c! 5%"
    assert render("{{ 'a\nb' | indent(2) }} {{ 'x' ~ 1 ~ none }} {{ '{}'.format(2) }}") == "a\n  b x1None 2"


def test_a_long_conversation_is_rendered_whole() -> None:
    text = "word " * 2_000_000
    assert len(render(CHATML, (Message("user", text),))) > len(text)


def test_two_threads_may_render_one_template() -> None:
    template = ChatTemplate(CHATML, {})
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda number: template.render((Message("user", f"{number}"),)), range(50)))
    assert [f"user\n{number}<" in text for number, text in enumerate(texts)] == [True] * 50


@pytest.mark.parametrize("source", ["{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}"])
def test_a_templates_way_to_pythons_own_attributes_is_closed(source: str) -> None:
    assert render(source) == ""


WEATHER = Tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}}, "Tells it")


def test_tools_and_calls_reach_the_template_under_the_names_it_expects() -> None:
    source = (
        "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% for m in messages %}{% if m.tool_calls %}"
        "{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments.city }}{% endif %}"
        "{% if m.role == 'tool' %}{{ m.name }}/{{ m.tool_call_id }}/{{ m.content }}{% endif %}"
        "{% if m.reasoning_content is defined %}({{ m.reasoning_content }}){% endif %}{% endfor %}"
    )
    messages = (
        *HELLO,
        Message("assistant", "", thinking="hm", tool_calls=(ToolCall("c1", "get_weather", '{"city": "Rome"}'),)),
        Message("tool", "22 C", tool_name="get_weather", tool_call_id="c1"),
    )
    assert ChatTemplate(source, {}).render(messages, tools=(WEATHER,)) == (
        '{"type": "function", "function": {"name": "get_weather", "description": "Tells it", "parameters": '
        '{"type": "object", "properties": {"city": {"type": "string"}}}}}get_weather Rome(hm)get_weather/c1/22 C'
    )


def test_without_tools_the_template_sees_none() -> None:
    assert render("{{ tools is none }}{{ messages[0].tool_calls is defined }}") == "TrueFalse"
