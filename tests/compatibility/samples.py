"""Every field of the official clients' requests, with values that somebody might send."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ollama
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_params
from anthropic.types.beta import message_create_params as beta_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.audio import transcription_create_params, translation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FUNCTION = {"type": "function", "function": {"name": "f", "description": "An f.", "parameters": SCHEMA}}
CUSTOM: list[dict[str, Any]] = [
    {"name": "f"},
    {"name": "f", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}}},
    {"name": "f", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "x" | start "x"'}}},
]
HELLO = [{"role": "user", "content": "Hello"}]
JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


@dataclass(frozen=True)
class Method:
    """One method of a client: where it sends, what at least, and what else it can send."""

    client: str
    name: str
    path: str
    base: dict[str, Any]
    fields: frozenset[str]
    samples: dict[str, list[Any]]
    context: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What has to stand beside a field for it to mean anything."""
    is_form: bool = False
    """Whether the client sends a form in place of JSON; `file` is the text of the file then."""


def _declared(typed: Any, *more: str) -> frozenset[str]:
    return frozenset({*typed.__annotations__, *more})


def _parameters(method: Callable[..., Any], *renamed: tuple[str, str]) -> frozenset[str]:
    names = set(inspect.signature(method).parameters) - {"self"}
    for old, new in renamed:
        names.remove(old)
        names.add(new)
    return frozenset(names)


_SAMPLING: dict[str, list[Any]] = {
    "temperature": [0.5],
    "top_p": [0.5],
    "seed": [7],
    "frequency_penalty": [0.5],
    "presence_penalty": [0.5],
    "user": ["somebody"],
}

OPENAI_CHAT = Method(
    "openai",
    "chat.completions.create",
    "/v1/chat/completions",
    {"model": "m", "messages": HELLO},
    _declared(chat_create_params.CompletionCreateParamsBase, "stream"),
    _SAMPLING
    | {
        "model": ["m"],
        "messages": [
            [{"role": "developer", "content": "Be brief."}, *HELLO],
            [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"}],
            [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}],
                }
            ],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}],
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}],
            [
                *HELLO,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "2"},
            ],
            [
                *HELLO,
                {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "2"},
            ],
            [*HELLO, {"role": "assistant", "content": "I"}],
        ],
        "stream": [True],
        "stream_options": [{"include_usage": True}, {"include_obfuscation": False}],
        "max_tokens": [5],
        "max_completion_tokens": [5],
        "stop": ["end", ["a", "b"]],
        "n": [2],
        "logit_bias": [{"1": 5}],
        "logprobs": [True],
        "top_logprobs": [2],
        "response_format": [{"type": "text"}, {"type": "json_object"}, JSON_FORMAT],
        "tools": [[FUNCTION], *([{"type": "custom", "custom": one}] for one in CUSTOM), [{"type": "web_search"}]],
        "tool_choice": [
            "auto",
            "none",
            "required",
            {"type": "function", "function": {"name": "f"}},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"type": "custom", "custom": {"name": "f"}},
        ],
        "parallel_tool_calls": [True, False],
        "functions": [[{"name": "f"}]],
        "function_call": ["auto", "none", {"name": "f"}],
        "reasoning_effort": ["none", "high"],
        "modalities": [["text"], ["text", "audio"]],
        "audio": [{"format": "wav", "voice": "alloy"}],
        "verbosity": ["medium", "low"],
        "web_search_options": [{}],
        "prediction": [{"type": "content", "content": "x"}],
        "moderation": [{}],
        "metadata": [{"a": "b"}],
        "store": [False],
        "service_tier": ["auto"],
        "safety_identifier": ["s"],
        "prompt_cache_key": ["k"],
        "prompt_cache_retention": ["24h"],
        "prompt_cache_options": [{}],
    },
    {
        "stream_options": {"stream": True},
        "top_logprobs": {"logprobs": True},
        "tool_choice": {"tools": [FUNCTION, FUNCTION | {"function": {"name": "g"}}]},
        "parallel_tool_calls": {"tools": [FUNCTION]},
        "function_call": {"functions": [{"name": "f"}]},
    },
)

OPENAI_COMPLETION = Method(
    "openai",
    "completions.create",
    "/v1/completions",
    {"model": "m", "prompt": "Hello"},
    _declared(completion_create_params.CompletionCreateParamsBase, "stream"),
    _SAMPLING
    | {
        "model": ["m"],
        "prompt": ["Hi", ["a", "b"], [1, 2], [[1, 2], [3]]],
        "stream": [True],
        "stream_options": [{"include_usage": True}],
        "max_tokens": [5],
        "stop": ["end"],
        "n": [2],
        "best_of": [2],
        "echo": [True],
        "suffix": [" end"],
        "logprobs": [2],
        "logit_bias": [{"1": 5}],
    },
    {"stream_options": {"stream": True}},
)

OPENAI_EMBEDDINGS = Method(
    "openai",
    "embeddings.create",
    "/v1/embeddings",
    {"model": "m", "input": "Hello"},
    _declared(embedding_create_params.EmbeddingCreateParams),
    {
        "model": ["m"],
        "input": ["Hi", ["a", "b"], [1, 2], [[1, 2], [3]]],
        "dimensions": [2],
        "encoding_format": ["float", "base64"],
        "user": ["somebody"],
    },
)

_SOUND: dict[str, list[Any]] = {
    "model": ["m"],
    "file": ["RIFF and more"],
    "prompt": ["Hello, Ann."],
    "response_format": ["json", "text", "verbose_json", "srt", "vtt"],
    "temperature": [0.5],
}

OPENAI_TRANSCRIPTIONS = Method(
    "openai",
    "audio.transcriptions.create",
    "/v1/audio/transcriptions",
    {"model": "m", "file": "RIFF"},
    _declared(transcription_create_params.TranscriptionCreateParamsBase, "stream"),
    _SOUND
    | {
        "response_format": [*_SOUND["response_format"], "diarized_json"],
        "language": ["de"],
        "languages": [["de", "fr"]],
        "keywords": [["Puna"]],
        "include": [["logprobs"]],
        "stream": [True],
        "chunking_strategy": ["auto", {"type": "server_vad"}],
        "timestamp_granularities": [["word"], ["segment"]],
        "known_speaker_names": [["Ann"]],
        "known_speaker_references": [["data:audio/wav;base64,AAAA"]],
    },
    is_form=True,
)

OPENAI_TRANSLATIONS = Method(
    "openai",
    "audio.translations.create",
    "/v1/audio/translations",
    {"model": "m", "file": "RIFF"},
    _declared(translation_create_params.TranslationCreateParams),
    _SOUND,
    is_form=True,
)

OPENAI_RESPONSES = Method(
    "openai",
    "responses.create",
    "/v1/responses",
    {"model": "m", "input": "Hello"},
    _declared(response_create_params.ResponseCreateParamsBase, "stream"),
    {
        "model": ["m"],
        "input": [
            "Hi",
            [{"role": "user", "content": "Hi"}],
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            [
                *HELLO,
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "2"},
            ],
            [
                *HELLO,
                {"type": "custom_tool_call", "call_id": "1", "name": "f", "input": "x"},
                {"type": "custom_tool_call_output", "call_id": "1", "output": "2"},
            ],
        ],
        "stream": [True],
        "stream_options": [{"include_obfuscation": False}],
        "instructions": ["Be brief."],
        "max_output_tokens": [16],
        "max_tool_calls": [3],
        "temperature": [0.5],
        "top_p": [0.5],
        "top_logprobs": [2],
        "include": [["message.output_text.logprobs"], ["web_search_call.action.sources"]],
        "text": [{"format": {"type": "text"}}, {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}],
        "tools": [
            [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
            [{"type": "custom", "name": "f"}],
            [{"type": "web_search"}],
        ],
        "tool_choice": ["none", "required", {"type": "function", "name": "f"}, {"type": "custom", "name": "f"}],
        "parallel_tool_calls": [True, False],
        "reasoning": [{"effort": "none"}, {"effort": "high", "summary": "auto"}],
        "truncation": ["disabled", "auto"],
        "store": [True, False],
        "previous_response_id": ["resp_0"],
        "conversation": ["conv_1"],
        "prompt": [{"id": "p"}],
        "background": [False, True],
        "metadata": [{"a": "b"}],
        "user": ["somebody"],
        "service_tier": ["auto"],
        "safety_identifier": ["s"],
        "prompt_cache_key": ["k"],
        "prompt_cache_retention": ["24h"],
        "prompt_cache_options": [{}],
        "moderation": [{}],
        "context_management": [[]],
        "access_programs": [[]],
        "background_options": [{"completion_window": "soonest"}],
        "image": [{}],
    },
    {
        "stream_options": {"stream": True},
        "tool_choice": {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}]},
        "parallel_tool_calls": {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}]},
    },
)


def _user(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [block]}]


_ANTHROPIC_TOOL = {"name": "f", "description": "An f.", "input_schema": SCHEMA}
_ANTHROPIC_PROMPT: dict[str, list[Any]] = {
    "model": ["m"],
    "messages": [
        [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
        _user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}),
        _user({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}),
        [
            *HELLO,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": ""},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
                ],
            },
            *_user({"type": "tool_result", "tool_use_id": "1", "content": "2", "is_error": True}),
        ],
        [*HELLO, {"role": "assistant", "content": "I"}],
    ],
    "system": ["Be brief.", [{"type": "text", "text": "Be brief."}]],
    "tools": [[_ANTHROPIC_TOOL], [{"type": "web_search_20250305", "name": "web_search"}]],
    "tool_choice": [
        {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "f"}, {"type": "none"},
        {"type": "auto", "disable_parallel_tool_use": True},
    ],
    "thinking": [{"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}],
    "output_config": [{"effort": "low"}, {"format": {"type": "json_schema", "schema": SCHEMA}}],
    "cache_control": [{"type": "ephemeral"}],
    "speed": ["standard"],
    "user_profile_id": ["u"],
    "workspace_id": ["w"],
}  # fmt: skip
_ANTHROPIC_CONTEXT: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [_ANTHROPIC_TOOL]},
    "output_config": {"thinking": {"type": "enabled"}},
}

ANTHROPIC_MESSAGES = Method(
    "anthropic",
    "messages.create",
    "/v1/messages",
    {"model": "m", "max_tokens": 5, "messages": HELLO},
    _declared(message_create_params.MessageCreateParamsBase, "stream"),
    _ANTHROPIC_PROMPT
    | {
        "max_tokens": [7],
        "stream": [True],
        "stop_sequences": [["a"]],
        "metadata": [{"user_id": "u"}],
        "service_tier": ["auto"],
        "container": ["c"],
        "inference_geo": ["eu"],
        "diagnostics": [{}],
    },
    _ANTHROPIC_CONTEXT,
)

ANTHROPIC_COUNT = Method(
    "anthropic",
    "messages.count_tokens",
    "/v1/messages/count_tokens",
    {"model": "m", "messages": HELLO},
    _declared(message_count_tokens_params.MessageCountTokensParams),
    _ANTHROPIC_PROMPT,
    _ANTHROPIC_CONTEXT,
)

_ANTHROPIC_BETA: dict[str, list[Any]] = {
    "betas": [["interleaved-thinking-2025-05-14"]],
    "billing_policy": [{"type": "billing_policy", "bill_to": "self"}],
    "compaction": [{"type": "enabled"}],
    "context_management": [{"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}],
    "mcp_servers": [[], [{"type": "url", "name": "a", "url": "https://example.org"}]],
}

ANTHROPIC_BETA_MESSAGES = Method(
    "anthropic",
    "beta.messages.create",
    "/v1/messages?beta=true",
    ANTHROPIC_MESSAGES.base,
    _declared(beta_create_params.MessageCreateParamsBase, "stream"),
    ANTHROPIC_MESSAGES.samples
    | _ANTHROPIC_BETA
    | {
        "fallback_credit_token": ["t"],
        "fallbacks": [[{"model": "m"}]],
        "thread": [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_0"}],
    },
    _ANTHROPIC_CONTEXT,
)

ANTHROPIC_BETA_COUNT = Method(
    "anthropic",
    "beta.messages.count_tokens",
    "/v1/messages/count_tokens?beta=true",
    ANTHROPIC_COUNT.base,
    _declared(beta_count_params.MessageCountTokensParams),
    _ANTHROPIC_PROMPT | _ANTHROPIC_BETA,
    _ANTHROPIC_CONTEXT,
)

_OLLAMA_COMMON: dict[str, list[Any]] = {
    "model": ["m"],
    "stream": [True],
    "think": [False, True, "high"],
    "logprobs": [True],
    "top_logprobs": [2],
    "format": ["json", SCHEMA],
    "options": [{"temperature": 0.5}, {"numa": True}],
    "keep_alive": ["5m", 0],
}

OLLAMA_CHAT = Method(
    "ollama",
    "chat",
    "/api/chat",
    {"model": "m", "messages": HELLO, "stream": False},
    _parameters(ollama.Client.chat),
    _OLLAMA_COMMON
    | {
        "messages": [
            [*HELLO, {"role": "assistant", "content": "Hi", "thinking": "Hm."}, *HELLO],
            [*HELLO, {"role": "assistant", "content": "I"}],
            [{"role": "user", "content": "Hi", "images": [IMAGE]}],
            [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
             {"role": "tool", "tool_name": "f", "content": "2"}],
        ],
        "tools": [[FUNCTION]],
    },
    {"top_logprobs": {"logprobs": True}},
)  # fmt: skip

OLLAMA_GENERATE = Method(
    "ollama",
    "generate",
    "/api/generate",
    {"model": "m", "prompt": "Hello", "stream": False},
    _parameters(ollama.Client.generate),
    _OLLAMA_COMMON
    | {
        "prompt": ["Hi"],
        "suffix": [" end"],
        "system": ["Be brief."],
        "template": ["{{ messages[0].content }}"],
        "context": [[1, 2]],
        "raw": [True],
        "images": [[IMAGE]],
        "width": [64],
        "height": [64],
        "steps": [4],
    },
    {"top_logprobs": {"logprobs": True}},
)

OLLAMA_EMBED = Method(
    "ollama",
    "embed",
    "/api/embed",
    {"model": "m", "input": "Hello"},
    _parameters(ollama.Client.embed),
    {
        "model": ["m"],
        "input": ["Hi", ["a", "b"]],
        "truncate": [True, False],
        "dimensions": [2],
        "options": [{"num_ctx": 64}],
        "keep_alive": ["5m"],
    },
)

OLLAMA_EMBEDDINGS = Method(
    "ollama",
    "embeddings",
    "/api/embeddings",
    {"model": "m", "prompt": "Hello"},
    _parameters(ollama.Client.embeddings),
    {"model": ["m"], "prompt": ["Hi"], "options": [{"num_ctx": 64}], "keep_alive": ["5m"]},
)

METHODS = (
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OPENAI_CHAT,
    OPENAI_COMPLETION,
    OPENAI_RESPONSES,
    OPENAI_EMBEDDINGS,
    OPENAI_TRANSCRIPTIONS,
    OPENAI_TRANSLATIONS,
    ANTHROPIC_MESSAGES,
    ANTHROPIC_COUNT,
    ANTHROPIC_BETA_MESSAGES,
    ANTHROPIC_BETA_COUNT,
)
