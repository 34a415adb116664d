"""Size, content type and fields of request bodies, over a real socket where that matters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runner.settings import ServerSettings, Settings
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon, connection

USER = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": USER, "stream": False}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
CALL: dict[str, Any] = {"id": "1", "type": "function"}
PATHS = pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])


def code_of(body: dict[str, Any]) -> str:
    code: str = body["error"]["code"] if isinstance(body["error"], dict) else body["code"]
    return code


def asked(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def small() -> FakeDaemon:
    return FakeDaemon(FakeSupervisor(answer("Hi")), settings=Settings(server=ServerSettings(max_body_bytes=500)))


@PATHS
async def test_a_body_that_says_it_is_too_large_is_refused(path: str) -> None:
    async with connection(small().app()) as client:
        response = await client.post(path, content=b" " * 501)
        after = await client.post(path, json=CHAT)
    assert (response.status_code, code_of(response.json())) == (413, "body_too_large")
    assert after.status_code == 200


@PATHS
async def test_a_body_that_grows_too_large_is_refused(path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10

    async with connection(small().app()) as client:
        response = await client.post(path, content=pieces())
    assert (response.status_code, code_of(response.json())) == (413, "body_too_large")


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    daemon = small()
    async with connection(daemon.app()) as client:
        response = await client.post("/api/chat", content=json.dumps(CHAT).encode().ljust(500))
    assert response.status_code == 200


async def test_a_big_body_is_read_whole() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    text = "ä" * 1_000_000
    async with daemon.client() as client:
        response = await client.post("/api/chat", json=CHAT | {"messages": [{"role": "user", "content": text}]})
    assert response.status_code == 200
    assert daemon.supervisor.request.prompt.messages[0].content == text  # type: ignore[union-attr]


async def test_errors_in_a_big_body_are_told() -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/chat", json=CHAT | {"keep_alive": "x" * 1_000_000})
    assert response.status_code == 400
    assert response.json()["field"] == "keep_alive"


@PATHS
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_request"), (b"{", "invalid_json"), (b"\xff", "invalid_encoding"), (b"[" * 65, "too_deep"),
        (b"[]", "invalid_request"), (b'"text"', "invalid_request"), (b"null", "invalid_request"),
        (b'{"model":"m","model":"n"}', "invalid_json"), (b'{"model":"\\ud800"}', "invalid_encoding"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_object_is_refused(path: str, content: bytes, code: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post(path, content=content)
    assert (response.status_code, code_of(response.json())) == (400, code)


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_programs_may_leave_the_content_type_out_or_wrong(content_type: str | None) -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        request = client.build_request("POST", "/api/chat", json=CHAT)
        del request.headers["content-type"]
        if content_type is not None:
            request.headers["content-type"] = content_type
        assert (await client.send(request)).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 200), ("Application/JSON; charset=utf-8", 200), ("text/plain", 400), ("", 400)],
)
async def test_pages_need_the_content_type(content_type: str, status: int) -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        response = await client.post(
            "/api/chat", json=CHAT, headers={"origin": "http://localhost:3000", "content-type": content_type}
        )
    assert response.status_code == status


async def test_compressed_bodies_are_refused() -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/chat", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (response.status_code, response.json()["code"]) == (400, "unsupported")


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": 5}, "model"),
        ({"messages": {}}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "contnet": "x"}]}, "messages[0].contnet"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"options": []}, "options"),
        ({"options": {"top_k": "x"}}, "options.top_k"),
        ({"keep_alive": "10"}, "keep_alive"),
        ({"keep_alive": True}, "keep_alive"),
        ({"think": "much"}, "think"),
        ({"think": 1}, "think"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"format": "xml"}, "format"),
        ({"format": ["json"]}, "format"),
        ({"format": "json", "grammar": {"type": "regex", "value": "a"}}, "grammar"),
        ({"grammar": {"type": "ebnf", "value": "a"}}, "grammar.type"),
        ({"grammar": {"type": "regex"}}, "grammar.value"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"function": {"name": " "}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f"}}, {"function": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
async def test_a_wrong_field_of_ollama_chat_is_named(changes: dict[str, Any], field: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/chat", json=CHAT | changes)
    body = response.json()
    assert (response.status_code, body["code"], body["field"]) == (400, "invalid_request", field)
    assert field.rpartition(".")[2].partition("[")[0] in body["error"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"think": True}, "think"),
        ({"think": "high"}, "think"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "messages[0].images[0]"),
    ],
)
async def test_what_ollama_chat_does_not_honour_is_refused(changes: dict[str, Any], field: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/chat", json=CHAT | changes)
    body = response.json()
    assert (response.status_code, body["code"], body["field"]) == (400, "unsupported", field)


async def test_harmless_values_of_ollama_chat_are_taken() -> None:
    harmless = {
        "tools": [], "format": "", "logprobs": False, "top_logprobs": 0, "think": False, "receipt": False,
        "keep_alive": None, "options": None, "truncate": None, "shift": False, "_debug_render_only": False,
        "messages": [
            {"role": "User", "content": "x", "images": [], "tool_calls": None, "tool_name": "", "thinking": None},
            {"role": "assistant", "content": None},
        ],
    }  # fmt: skip
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        response = await client.post("/api/chat", json=CHAT | harmless)
    assert response.status_code == 200, response.text
    assert "x-puna-ignored" not in response.headers
    assert [message.role for message in daemon.supervisor.request.prompt.messages] == ["user", "assistant"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0.0), ("0s", 0.0), (2.5, 2.5), ("1h30m", 5400.0), (-1, float("inf")), ("-1s", float("inf")), (None, None)],
)
async def test_keep_alive_is_read_in_all_its_forms(value: object, seconds: float | None) -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        await client.post("/api/chat", json=CHAT | {"keep_alive": value})
    assert daemon.supervisor.keep_alives == [seconds]


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"suffix": 5}, "suffix"), ({"images": ["aGk="]}, "images[0]"), ({"context": [-1]}, "context[0]"),
     ({"context": [2**31]}, "context[0]"), ({"context": [1.5]}, "context[0]"), ({"raw": "yes"}, "raw")],
)  # fmt: skip
async def test_a_wrong_field_of_ollama_generate_is_named(changes: dict[str, Any], field: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/generate", json={"model": "m", "prompt": "x"} | changes)
    assert (response.status_code, response.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
        (asked([{"type": "text"}]), "invalid_request", "messages[0].content[0].text"),
        (asked([{"type": "text", "text": "x", "y": 1}]), "invalid_request", "messages[0].content[0].y"),
        (asked([7]), "invalid_request", "messages[0].content[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "["}}]},
         "invalid_request", "messages[0].function_call.arguments"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "["}}]}]},
         "invalid_request", "messages[0].tool_calls[0].function.arguments"),
        (asked([{"type": "video"}]), "unsupported", "messages[0].content[0].type"),
        (asked([{"type": "input_audio"}]), "invalid_request", "messages[0].content[0].input_audio"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"temperature": -1}, "invalid_request", "temperature"),
        ({"top_p": 2}, "invalid_request", "top_p"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "invalid_request", "max_tokens"),
        ({"stop": 5}, "invalid_request", "stop"),
        ({"stop": [""]}, "invalid_request", "stop"),
        ({"stream_options": {"include_usge": True}}, "invalid_request", "stream_options.include_usge"),
        ({"reasoning_effort": "huge"}, "invalid_request", "reasoning_effort"),
        ({"reasoning": {"effort": 3}}, "invalid_request", "reasoning.effort"),
        ({"tools": [{}]}, "invalid_request", "tools[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": " "}}]}, "invalid_request", "tools[0].custom.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "yaml"}}}]},
         "unsupported", "tools[0].custom.format.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar": {
            "syntax": "lark", "definition": "x: y"}}}}]}, "constraint_invalid", "tools[0].custom.format"),
        ({"tools": [{"type": "web_search"}]}, "unsupported", "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "invalid_request", "tools"),
        ({"tool_choice": "required"}, "invalid_request", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
         "invalid_request", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "g"}}},
         "invalid_request", "tool_choice"),
        ({"functions": [{"name": " "}]}, "invalid_request", "functions[0].name"),
        ({"functions": [{"name": "f"}], "tools": [TOOL]}, "invalid_request", "functions"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "invalid_request", "function_call"),
        ({"function_call": {"name": "g"}}, "invalid_request", "function_call"),
        ({"tools": [TOOL], "function_call": "none"}, "invalid_request", "function_call"),
        ({"functions": [{"name": "f"}], "tool_choice": "required"}, "invalid_request", "tool_choice"),
        ({"functions": [{"name": "f"}], "parallel_tool_calls": True}, "invalid_request", "parallel_tool_calls"),
        ({"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "text", "grammar": {
            "syntax": "regex", "definition": "a"}}}}]}, "invalid_request", "tools[0].custom.format.grammar"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "invalid_request", "reasoning.effort"),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "a"}}}, "invalid_request",
         "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "invalid_request", "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "invalid_request", "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "invalid_request",
         "response_format.json_schema.name"),
        ({"response_format": {"type": "json_object"}, "grammar": {"type": "lark", "value": "start: /a/"}},
         "invalid_request", "grammar"),
        ({"n": 0}, "invalid_request", "n"),
        ({"n": 129}, "invalid_request", "n"),
        ({"n": True}, "invalid_request", "n"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_request", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_request", "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "invalid_request", "logit_bias.5"),
        ({"logit_bias": {"-5": 1}}, "invalid_request", "logit_bias.-5"),
        ({"logit_bias": {"9999999999": 1}}, "invalid_request", "logit_bias.9999999999"),
        ({"logit_bias": [5]}, "invalid_request", "logit_bias"),
        ({"presence_penalty": 2.1}, "invalid_request", "presence_penalty"),
        ({"frequency_penalty": -3}, "invalid_request", "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "unsupported", "modalities"),
        ({"audio": {}}, "unsupported", "audio"),
        ({"keep_alive": 5}, "invalid_request", "keep_alive"),
    ],
)  # fmt: skip
async def test_a_wrong_field_of_openai_chat_is_named(changes: dict[str, Any], code: str, param: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/v1/chat/completions", json=CHAT | changes)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == (code, param)


async def test_harmless_values_of_openai_chat_are_taken() -> None:
    harmless = {
        "tools": [], "tool_choice": "auto", "n": 1, "logprobs": False, "top_logprobs": None, "logit_bias": {},
        "response_format": {"type": "text"}, "modalities": ["text"], "reasoning_effort": "none", "stop": None,
        "stream_options": None, "deterministic": False, "verbosity": "medium", "audio": None,
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "assistant", "content": "Hi", "refusal": None, "annotations": [], "tool_calls": None},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
    }  # fmt: skip
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        response = await client.post("/v1/chat/completions", json=CHAT | harmless)
    assert response.status_code == 200
    assert "x-puna-ignored" not in response.headers
    prompt: Any = daemon.supervisor.request.prompt
    assert [(message.role, message.content) for message in prompt.messages] == [
        ("system", "Be brief."), ("assistant", "Hi"), ("user", "a\nb"),
    ]  # fmt: skip
    assert prompt.thinking is False


async def test_sampling_fields_of_openai_chat_arrive() -> None:
    sampling = {
        "temperature": 0.5, "top_p": 0.6, "top_k": 7, "min_p": 0.1, "frequency_penalty": 0.2,
        "presence_penalty": -0.2, "seed": 11, "stop": "x", "max_completion_tokens": 5, "truncate": True,
    }  # fmt: skip
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        await client.post("/v1/chat/completions", json=CHAT | sampling)
    request = daemon.supervisor.request
    told = request.sampling
    assert (told.temperature, told.top_p, told.top_k, told.min_p) == (0.5, 0.6, 7, 0.1)
    assert (told.frequency_penalty, told.presence_penalty, told.seed) == (0.2, -0.2, 11)
    assert (request.stop, request.limits.num_predict, request.limits.truncate) == (("x",), 5, True)


async def test_absent_sampling_fields_of_openai_chat_leave_the_models_own() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    daemon.store.models()[0].parameters["temperature"] = 0.25
    async with daemon.client() as client:
        await client.post("/v1/chat/completions", json=CHAT)
    told = daemon.supervisor.request.sampling
    assert (told.temperature, told.top_p) == (0.25, 0.9)


async def test_what_openai_clients_send_in_vain_is_listed() -> None:
    vain: dict[str, Any] = {
        "user": "u", "metadata": {}, "store": False, "service_tier": "auto", "safety_identifier": "s",
        "prompt_cache_key": "k",
        "stream_options": {"include_obfuscation": False},
        "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
    }  # fmt: skip
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        response = await client.post("/v1/chat/completions", json=CHAT | vain)
    listed = response.headers["x-puna-ignored"].split(", ")
    assert sorted(listed) == sorted({*vain, "stream_options.include_obfuscation"} - {"messages", "stream_options"})


async def test_the_document_describes_every_body() -> None:
    async with FakeDaemon().client() as client:
        document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    referred, without = set(), set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in ("post", "delete") and "blobs" not in path:
                if "requestBody" not in operation:
                    without.add(path)
                    continue
                (content,) = operation["requestBody"]["content"].values()
                referred.add(content["schema"]["$ref"].rpartition("/")[2])
    assert without == {
        "/v1/conversations/{conversation_id}",
        "/v1/conversations/{conversation_id}/items/{item_id}",
        "/v1/models/{model}",
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
    }
    assert referred <= schemas.keys()
    assert {"ChatBody", "GenerateBody", "ChatCompletionBody", "PullBody"} <= referred
    assert schemas["ChatBody"]["additionalProperties"] is False
