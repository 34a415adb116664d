"""Prompts by templates in Go's language: Ollama's rules around them, and shapes of published templates."""

from __future__ import annotations

import json

import pytest

from runner.chat.template import ChatTemplate, check_template
from runner.chat.types import Message, Tool, ToolCall
from runner.errors import ModelInvalid, RequestError, Unsupported

SYSTEM, USER = Message("system", "Be kind."), Message("user", "Hi")
ASSISTANT, AGAIN = Message("assistant", "Hello!"), Message("user", "And?")
CONVERSATION = (SYSTEM, USER, ASSISTANT, AGAIN)

LEGACY = """{{ if .System }}<|system|>
{{ .System }}<|end|>
{{ end }}{{ if .Prompt }}<|user|>
{{ .Prompt }}<|end|>
{{ end }}<|assistant|>
{{ .Response }}<|end|>
"""
BRACKETS = "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s>"
CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
HEADERS = """{{- range .Messages }}<|start|>{{ .Role }}<|end|>

{{ .Content }}<|eot|>
{{- end }}<|start|>assistant<|end|>

"""
TURNS = """{{- $first := true }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<turn>user
{{ if and $first $.System }}{{ $.System }}

{{ end }}{{- $first = false }}{{ .Content }}</turn>
{{- else if eq .Role "assistant" }}
<turn>model
{{ .Content }}{{ if not $last }}</turn>
{{ end }}
{{- end }}
{{- end }}
<turn>model
"""
TOOLS = """{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}

# Tools
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""
INSERT = "{{- if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}"

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "required": ["city"],
        "additionalProperties": False,
        "properties": {
            "unit": {"type": ["string", "null"], "enum": ["C", "F"], "default": "C"},
            "city": {"type": "string", "description": "a <name> & no more"},
        },
    },
    "Tells the weather",
)
CALL = ToolCall(
    "call_1", "get_weather", json.dumps({"unit": "C", "city": "Köln", "days": 2, "near": {"b": 1.5, "a": None}})
)


def render(source: str, *messages: Message, thinking: bool | None = None, tools: tuple[Tool, ...] = ()) -> str:
    return ChatTemplate(source, {}).render(messages, thinking=thinking, tools=tools)


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        (
            LEGACY,
            "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
            "<|user|>\nAnd?<|end|>\n<|assistant|>\n",
        ),
        (BRACKETS, "[INST] <<SYS>>Be kind.<</SYS>>\n\nHi [/INST] Hello!</s>[INST] And? [/INST] "),
        (
            CHATML,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            HEADERS,
            "<|start|>system<|end|>\n\nBe kind.<|eot|><|start|>user<|end|>\n\nHi<|eot|>"
            "<|start|>assistant<|end|>\n\nHello!<|eot|><|start|>user<|end|>\n\nAnd?<|eot|><|start|>assistant<|end|>\n\n",
        ),
        (
            TURNS,
            "<turn>user\nBe kind.\n\nHi</turn>\n<turn>model\nHello!</turn>\n<turn>user\nAnd?</turn>\n<turn>model\n",
        ),
    ],
    ids=["legacy", "brackets", "chatml", "headers", "turns"],
)
def test_a_conversation_is_written_as_the_template_means_it(source: str, prompt: str) -> None:
    assert render(source, *CONVERSATION) == prompt


def test_a_template_that_knows_no_response_gets_it_at_its_end() -> None:
    assert render("Q: {{ .Prompt }}\nA: ", *CONVERSATION) == "Q: Hi\nA: Hello!Q: And?\nA: "
    assert render("{{ .Prompt }}", USER) == "Hi"


def test_the_last_turn_goes_up_to_the_response_wherever_that_stands() -> None:
    source = "{{ .Prompt }}>{{ if .Prompt }}[{{ .Response }}]{{ else }}none{{ end }}after"
    assert render(source, USER, ASSISTANT, AGAIN) == "Hi>[Hello!]afterAnd?>["
    assert render("{{ if .Response }}x{{ end }}{{ .Prompt }}|{{ .Response }}!", USER) == "Hi|"


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    assert render(LEGACY, USER, Message("assistant", "Well,")) == "<|user|>\nHi<|end|>\n<|assistant|>\nWell,"


def test_turns_of_older_templates_end_where_a_new_one_begins() -> None:
    source = "({{ .System }}|{{ .Prompt }}|{{ .Response }})"
    assert render(source, USER, SYSTEM, AGAIN) == "(|Hi|)(Be kind.|And?|"
    assert render(source, SYSTEM, USER, ASSISTANT, SYSTEM) == "(Be kind.|Hi|Hello!)(Be kind.||"
    assert (
        render(source, USER, Message("tool", "22"), Message("critic", "no"), ASSISTANT, AGAIN) == "(|Hi|Hello!)(|And?|"
    )


def test_neighbours_of_one_role_are_joined_and_results_of_tools_are_not() -> None:
    source = "{{ .System }}{{ range .Messages }}/{{ .Role }}:{{ .Content }}{{ end }}"
    messages = (SYSTEM, Message("system", "Be brief."), USER, AGAIN, Message("tool", "1"), Message("tool", "2"), SYSTEM)
    assert render(source, *messages) == (
        "Be kind.\n\nBe brief.\n\nBe kind./system:Be kind.\n\nBe brief./user:Hi\n\nAnd?/tool:1/tool:2/system:Be kind."
    )
    calls = (Message("assistant", "", tool_calls=(CALL,)), Message("assistant", "x", tool_calls=(CALL,)))
    assert render("{{ range .Messages }}{{ len .ToolCalls }}{{ .Content }}{{ end }}", *calls) == "2\n\nx"


def test_tools_and_calls_are_written_as_json() -> None:
    asked = (USER, Message("assistant", "", tool_calls=(CALL, CALL)), Message("tool", "22 C", tool_name="get_weather"))
    call = '{"name": "get_weather", "arguments": {"city":"Köln","days":2,"near":{"a":null,"b":1.5},"unit":"C"}}\n'
    assert render(TOOLS, SYSTEM, *asked, tools=(WEATHER,)) == (
        "<|im_start|>system\nBe kind.\n\n# Tools\n"
        '{"type": "function", "function": {"name":"get_weather","description":"Tells the weather","parameters":'
        '{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":'
        '"a \\u003cname\\u003e \\u0026 no more"},"unit":{"type":["string","null"],"enum":["C","F"]}}}}}<|im_end|>\n'
        f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{call}{call}</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n22 C\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_a_tool_is_made_of_can_be_looked_at() -> None:
    source = (
        "{{ range .Tools }}{{ .Type }} {{ .Function.Name }} {{ .Function.Parameters.Required }}"
        "{{ range $name, $p := .Function.Parameters.Properties }} {{ $name }}:{{ toTypeScriptType $p }}={{ $p.Type }}"
        "{{ end }}{{ end }}{{ range .Messages }}{{ range .ToolCalls }} {{ .ID }} {{ .Function.Index }}"
        "{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ end }}{{ end }}"
    )
    assert render(source, Message("assistant", "", tool_calls=(CALL,)), tools=(WEATHER,)) == (
        "function get_weather [city] city:string=string unit:string | null=[string null]"
        " call_1 0 city=Köln days=2 near=map[a:<nil> b:1.5] unit=C"
    )


def test_without_tools_there_are_none() -> None:
    assert render("{{ if .Tools }}x{{ end }}{{ .Tools }}{{ range .Messages }}{{ end }}", USER) == "null"


@pytest.mark.parametrize(
    ("thinking", "seen"), [(None, "false||false"), (False, "false||true"), (True, "true|medium|true")]
)
def test_whether_to_think_is_told(thinking: bool | None, seen: str) -> None:
    source = "{{ .Think }}|{{ .ThinkLevel }}|{{ .IsThinkSet }}"
    for rest in ("{{ range .Messages }}{{ end }}", "{{ .Response }}"):
        assert render(source + rest, USER, thinking=thinking) == seen
    assert (
        ChatTemplate(source + "{{ .Suffix }}{{ .Response }}", {}).render_insertion("a", "b", thinking=thinking)
        == seen + "b"
    )


def test_earlier_thoughts_reach_the_template() -> None:
    source = "{{ range .Messages }}{{ with .Thinking }}<think>{{ . }}</think>{{ end }}{{ .Content }}{{ end }}"
    assert render(source, Message("assistant", "4", thinking="2+2")) == "<think>2+2</think>4"


def test_text_between_two_texts_is_asked_for_where_there_is_a_place() -> None:
    assert ChatTemplate(INSERT, {}).render_insertion("def f(", "return 1") == "<pre>def f(<suf>return 1<mid>"
    assert render(INSERT, USER) == "Hi"
    for source in (CHATML, "{{ messages }}"):
        with pytest.raises(Unsupported, match="insert"):
            ChatTemplate(source, {}).render_insertion("a", "b")


def test_a_template_that_fails_is_the_models_fault_with_its_line() -> None:
    with pytest.raises(ModelInvalid, match=r"The chat template fails: line 2: can't evaluate field Text"):
        render("{{ range .Messages }}\n{{ .Text }}{{ end }}", USER)
    with pytest.raises(ModelInvalid, match="are no JSON object"):
        render(TOOLS, USER, Message("assistant", "", tool_calls=(ToolCall("1", "f", "[1]"),)))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{ .System }}\n{{ if .Prompt }}", r"Go's template language: line 2: unexpected EOF"),
        ("{% for x in y %}\n\n{% endif %}", r"not valid Jinja: line 3"),
    ],
)
def test_a_template_is_checked_with_its_line_in_its_own_language(source: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=f"^template error: .*{complaint}") as caught:
        check_template(source)
    assert caught.value.facts == {"field": "template", "line": int(complaint[-1]) if "Jinja" in complaint else 2}
    check_template("{{ .Prompt }}")
    check_template("{{ messages }}")


def test_a_template_in_a_models_file_is_jinja_whatever_it_looks_like() -> None:
    source = "{# {{ .Prompt }} #}{{ messages[0].content }}"
    assert ChatTemplate(source, {}, is_from_file=True).render((USER,)) == "Hi"


def test_ten_thousand_turns_are_written_within_the_time() -> None:
    turns = tuple(Message(role, "word " * 8) for _ in range(2_500) for role in ("user", "assistant"))
    assert render(CHATML, *turns).count("<|im_start|>") == 5_001
    assert render(LEGACY, *turns[:2_000], USER).count("<|assistant|>") == 1_001
    assert render(TOOLS, *turns, USER).count("<|im_start|>") == 5_002, "though each looks at all that follow"
    neighbours = tuple(Message("user", "word") for _ in range(20_000))
    assert render(CHATML, *neighbours).count("word") == 20_000
