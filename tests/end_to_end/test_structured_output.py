"""Answers that keep to a form, through the official clients and with a real model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import ollama
import openai
import pytest
from pydantic import BaseModel, Field

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

ASK = [{"role": "user", "content": "Describe a cat, as JSON."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "lives": {"type": "integer", "minimum": 1, "maximum": 9},
        "colours": {"type": "array", "items": {"enum": ["black", "white", "red"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "lives", "colours"],
    "additionalProperties": False,
}


class Cat(BaseModel):
    name: str = Field(max_length=12)
    lives: int = Field(ge=1, le=9)
    colour: Literal["black", "white", "red"]


@pytest.fixture
def client(shared_daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_daemon.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as made:
        yield made


@pytest.fixture
def native(shared_daemon: Daemon) -> Iterator[ollama.Client]:
    made = ollama.Client(host=shared_daemon.url, timeout=TIMEOUT)
    yield made
    made._client.close()


@pytest.mark.parametrize("seed", range(2))
def test_ollama_answers_keep_to_a_schema(native: ollama.Client, seed: int) -> None:
    options = {"temperature": 1.0, "seed": seed}
    answer = native.chat(model=MODEL, messages=ASK, format=SCHEMA, options=options)
    assert answer.done_reason == "stop"
    jsonschema.validate(json.loads(answer.message.content or ""), SCHEMA)
    parts = native.generate(model=MODEL, prompt="Describe a cat.", format=SCHEMA, options=options, stream=True)
    jsonschema.validate(json.loads("".join(part.response or "" for part in parts)), SCHEMA)


def test_ollama_json_mode_gives_an_object_or_says_that_it_was_cut(native: ollama.Client) -> None:
    answer = native.chat(model=MODEL, messages=ASK, format="json", options={"num_predict": 60, "seed": 2})
    assert answer.done_reason in ("stop", "length")
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.message.content or ""), dict)
    cut = native.chat(model=MODEL, messages=ASK, format=SCHEMA, options={"num_predict": 3})
    assert cut.done_reason == "length"


def test_openai_parses_an_answer_into_a_model(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a cat."}],
        response_format=Cat,
        temperature=1,
        seed=3,
    )
    assert isinstance(parsed.choices[0].message.parsed, Cat)
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a cat."}],
        response_format=Cat,
        temperature=1,
        seed=4,
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Cat)


def test_several_answers_all_keep_to_the_schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "cat", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "A cat."}], response_format=wanted, n=3, temperature=1
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ({"type": "regex", "value": r"[A-Z][a-z]{2,8} \d{1,2}"}, r"[A-Z][a-z]{2,8} \d{1,2}"),
        ({"type": "lark", "value": 'start: "yes" | "no"'}, "yes|no"),
        ({"type": "gbnf", "value": 'root ::= ("- " [a-z]{1,9} "\\n"){2}'}, r"(- [a-z]{1,9}\n){2}"),
    ],
)
def test_grammars_hold_in_both_dialects(
    client: openai.OpenAI, shared_daemon: Daemon, grammar: dict[str, str], pattern: str
) -> None:
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Well?"}], extra_body={"grammar": grammar}, temperature=1
    )
    assert re.fullmatch(pattern, chat.choices[0].message.content or "")
    text = client.completions.create(model=MODEL, prompt="Well:", max_tokens=60, extra_body={"grammar": grammar})
    assert re.fullmatch(pattern, text.choices[0].text)
    body = {"model": MODEL, "prompt": "Well?", "grammar": grammar, "stream": False}
    assert re.fullmatch(pattern, shared_daemon.client.post("/api/generate", json=body).json()["response"])


def test_what_cannot_be_kept_is_refused_before_anything_is_said(client: openai.OpenAI, native: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="uniqueItems") as refused:
        native.chat(model=MODEL, messages=ASK, format={"type": "array", "uniqueItems": True})
    assert refused.value.status_code == 400
    with pytest.raises(openai.BadRequestError) as invalid:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "x"}],
            extra_body={"grammar": {"type": "regex", "value": "(a"}},
            stream=True,
        )
    assert (invalid.value.code, invalid.value.param) == ("constraint_invalid", "grammar.value")


async def test_what_would_compile_for_ever_is_refused_and_holds_nobody_up(shared_daemon: Daemon) -> None:
    endless = {"allOf": [{"type": "string", "pattern": f"a{number}"} for number in range(40)]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": endless}}}}
    ways: list[tuple[str, dict[str, Any]]] = [
        ("/api/chat", {"format": endless, "stream": False}),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": endless}}},
        ),
        ("/v1/chat/completions", {"tools": [tool], "tool_choice": "required"}),
    ]
    async with httpx.AsyncClient(base_url=shared_daemon.url, timeout=TIMEOUT) as client:
        asked = [client.post(path, json={"model": MODEL, "messages": ASK, **more}) for path, more in ways]
        plain = {"model": MODEL, "messages": ASK, "stream": False, "format": SCHEMA}
        *refused, answered = await asyncio.gather(*asked, client.post("/api/chat", json=plain))
    jsonschema.validate(json.loads(answered.json()["message"]["content"]), SCHEMA)
    assert [one.status_code for one in refused] == [400] * 3, [one.text for one in refused]
    for one in refused:
        assert "constraint_invalid" in one.text and "takes longer than" in one.text
    assert [model["restarts"] for model in shared_daemon.loaded()] == [0]


def test_ollama_log_probabilities_are_those_of_the_text(native: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 8}
    answer = native.chat(model=MODEL, messages=ASK, logprobs=True, top_logprobs=2, options=options)
    assert answer.logprobs is not None
    assert "".join(token.token for token in answer.logprobs) == answer.message.content
    assert all(token.top_logprobs and len(token.top_logprobs) == 2 for token in answer.logprobs)
    parts = list(native.chat(model=MODEL, messages=ASK, logprobs=True, options=options, stream=True))
    streamed = [token for part in parts for token in part.logprobs or []]
    assert len(streamed) == len(answer.logprobs)
    assert all(token.logprob <= 0 for token in streamed)
