"""Answers with tool calls as each family of models writes them, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass

from runner.chat.types import Tool

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
    },
    "Tells the weather.",
)
NOTE = Tool(
    "note",
    {
        "type": "object",
        "properties": {"text": {"type": "string"}, "tags": {"type": "array"}, "done": {"type": "boolean"}},
    },
    "Writes a note.",
)
BOOK = Tool("book", {"type": "object", "properties": {"from": {"type": "string"}, "seat-row": {"type": "integer"}}})
TOOLS = (WEATHER, NOTE, BOOK)

PARIS = ("get_weather", {"city": "Paris"})
OSLO = ("get_weather", {"city": "Oslo", "days": 3})


@dataclass(frozen=True)
class Answer:
    format: str
    text: str
    content: str = ""
    calls: tuple[tuple[str, object], ...] = ()
    thinking: str = ""


ANSWERS = [
    Answer(
        "hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', calls=(PARIS,)
    ),
    Answer(
        "hermes",
        'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>{"arguments": {"city": "Oslo", "days": 3}, "name": "get_weather"}</tool_call>',
        "I look.",
        (PARIS, OSLO),
    ),
    Answer("hermes", "Only <tool> and <tool_cal and \n\n text. \n", "Only <tool> and <tool_cal and \n\n text. \n"),
    Answer(
        "hermes",
        '<tool_call>{"name": "note", "arguments": {"text": "a </tool_call> {\\"b\\"} \\\\"}}</tool_call>',
        "",
        (("note", {"text": 'a </tool_call> {"b"} \\'}),),
    ),
    Answer(
        "hermes",
        '<tool_call>{"name": "note", "arguments": "{\\"text\\": \\"x\\"}"}</tool_call>',
        "",
        (("note", {"text": "x"}),),
    ),
    Answer("hermes", '<tool_call>{"name": "note", "arguments": null}</tool_call>', "", (("note", {}),)),
    Answer("hermes", '<tool_call>{"name": "note"}</tool_call> Done.', " Done.", (("note", {}),)),
    Answer(
        "hermes",
        '<tool_call>{"name": "note", "arguments": {"text": "two\nlines"}}</tool_call>',
        "",
        (("note", {"text": "two\nlines"}),),
    ),
    Answer(
        "hermes",
        'See <tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        'See <tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
    ),
    Answer("hermes", "<tool_call>not json</tool_call> after", "<tool_call>not json</tool_call> after"),
    Answer("hermes", '<tool_call>{"name": "get_wea', '<tool_call>{"name": "get_wea'),
    Answer("hermes", '<tool_call>{"name": "note", "arguments": {"text": "cut', "", (("note", '{"text": "cut'),)),
    Answer(
        "hermes",
        '<tool_call>{"name": "note", "arguments": {"text": "x"}</tool_call>',
        "",
        (("note", {"text": "x"}),),
    ),
    Answer(
        "granite",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, '
        '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}]',
        "",
        (PARIS, OSLO),
    ),
    Answer("llama_json", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", (PARIS,)),
    Answer(
        "llama_json",
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}',
        "",
        (PARIS, OSLO),
    ),
    Answer("llama_json", '{"key": "value"} is JSON.', '{"key": "value"} is JSON.'),
    Answer("llama_json", "Plain {text}.", "Plain {text}."),
    Answer(
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "123456789"}]',
        "",
        (PARIS,),
    ),
    Answer(
        "mistral_named",
        'Hm. [TOOL_CALLS]get_weather[CALL_ID]abc[ARGS]{"city": "Paris"}[TOOL_CALLS]get_weather[ARGS]'
        '{"city": "Oslo", "days": 3}',
        "Hm.",
        (PARIS, OSLO),
    ),
    Answer("mistral_named", "[TOOL_CALLS]nothing here", "[TOOL_CALLS]nothing here"),
    Answer(
        "deepseek",
        "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n'
        '{"city": "Oslo", "days": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "Let me see.",
        (PARIS, OSLO),
    ),
    Answer(
        "deepseek_bare",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo", "days": 3}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        "",
        (PARIS, OSLO),
    ),
    Answer(
        "harmony",
        "<|channel|>analysis<|message|>User wants weather.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "",
        (PARIS,),
        "User wants weather.",
    ),
    Answer(
        "harmony",
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>",
        "It is 4.",
        (),
        "Easy.",
    ),
    Answer(
        "harmony",
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
        "",
        (PARIS,),
    ),
    Answer(
        "command_r",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]'
        "<|END_ACTION|>",
        "",
        (PARIS,),
    ),
    Answer("command_r", "<|START_RESPONSE|>Hello.<|END_RESPONSE|>", "Hello."),
    Answer(
        "command_r_block",
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": {"city": "Paris"}\n'
        "    }\n]```",
        "",
        (PARIS,),
    ),
    Answer(
        "qwen_coder",
        "Now.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "Now.",
        (OSLO,),
    ),
    Answer(
        "qwen_coder",
        '<function=note>\n<parameter=text>\n12\n</parameter>\n<parameter=tags>\n[1, "a"]\n</parameter>\n'
        "<parameter=done>\nTrue\n</parameter>\n</function>",
        "",
        (("note", {"text": "12", "tags": [1, "a"], "done": True}),),
    ),
    Answer(
        "qwen_coder",
        "<tool_call>\n<function=note>\n<parameter=done>\nfalse\n</parameter>\n<parameter=text>\nhalf a",
        "",
        (("note", '{"done": false, "text": "half a'),),
    ),
    Answer(
        "qwen_coder",
        "<function=note>\n<parameter=tags>\n[1e999]\n</parameter>\n</function>",
        "",
        (("note", {"tags": "[1e999]"}),),
    ),
    Answer("glm", "<tool_call>note\n<arg_key>text</arg_key>\n<arg_value>half a", "", (("note", '{"text": "half a'),)),
    Answer(
        "glm",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
        "",
        (OSLO,),
    ),
    Answer("pythonic", "[get_weather(city=\"Paris\"), get_weather(city='Oslo', days=3)]", "", (PARIS, OSLO)),
    Answer(
        "pythonic",
        "<|python_start|>[note(done=True, tags=['a', -1])]<|python_end|>",
        "",
        (("note", {"done": True, "tags": ["a", -1]}),),
    ),
    Answer(
        "pythonic",
        '[book(from="Oslo", seat-row=3), note(text=\'a, "b"\nc\')]',
        "",
        (("book", {"from": "Oslo", "seat-row": 3}), ("note", {"text": 'a, "b"\nc'})),
    ),
    Answer("pythonic", '[note(text="\\ud83d\\ude00 \\u00e9")]', "", (("note", {"text": "\U0001f600 é"}),)),
    Answer("pythonic", '[note(text="\\ud83d")]', "", (("note", '{"text": "\\ud83d"}'),)),
    Answer("pythonic", "[note(text='a', text='b')]", "[note(text='a', text='b')]"),
    Answer("pythonic", "[1, 2] is a list.", "[1, 2] is a list."),
    Answer("pythonic", "[get_weather(__import__('os'))]", "[get_weather(__import__('os'))]"),
    Answer("lfm", 'Wait. <|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>', "Wait.", (PARIS,)),
    Answer(
        "olmo",
        '<function_calls>\nget_weather(city="Paris")\nget_weather(city="Oslo", days=3)\n</function_calls>',
        "",
        (PARIS, OSLO),
    ),
    Answer(
        "function_gemma",
        "<start_function_call>call:get_weather{city:<escape>Oslo<escape>,days:3}<end_function_call>",
        "",
        (OSLO,),
    ),
    Answer(
        "gemma4",
        '<|tool_call>call:note{text:<|"|>a, {b}<|"|>,tags:[<|"|>x<|"|>,2],done:false}<tool_call|>',
        "",
        (("note", {"text": "a, {b}", "tags": ["x", 2], "done": False}),),
    ),
    Answer("gemma4", "<|tool_call>call:note{text<tool_call|>!", "<|tool_call>call:note{text<tool_call|>!"),
]
