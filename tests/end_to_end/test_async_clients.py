"""The asynchronous official clients: every method once, against a live daemon with a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import ollama
import openai
import pytest
from anthropic import beta_async_tool
from pydantic import BaseModel

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon
from tests.registry import real_registry
from tests.tiny_model import write_tiny_model

QUESTION: Any = [{"role": "user", "content": "Name a colour."}]
ONE: Any = {"num_predict": 1, "temperature": 0}
BRIEF: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 2, "extra_body": {"temperature": 0}}
"""The likeliest answer is no empty one, and a longer one; one by chance might be."""


class Cat(BaseModel):
    name: Literal["Tom", "Mia"]


@pytest.fixture
async def ollama_client(changing_daemon: Daemon) -> AsyncIterator[Any]:
    async with ollama.AsyncClient(host=changing_daemon.url) as client:
        yield client


@pytest.fixture
async def openai_client(changing_daemon: Daemon) -> AsyncIterator[Any]:
    base = f"{changing_daemon.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
async def anthropic_client(changing_daemon: Daemon) -> AsyncIterator[Any]:
    url = changing_daemon.url
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


async def test_ollama_answers(ollama_client: Any) -> None:
    assert (await ollama_client.chat(MODEL, QUESTION, options=ONE)).message.content
    pieces = [piece async for piece in await ollama_client.chat(MODEL, QUESTION, options=ONE, stream=True)]
    assert pieces[-1].done
    assert (await ollama_client.generate(MODEL, "Hello", options=ONE)).response
    records = [record async for record in await ollama_client.generate(MODEL, "Hello", options=ONE, stream=True)]
    assert records[-1].done
    assert [one.model for one in (await ollama_client.ps()).models] == [MODEL]
    [vector] = (await ollama_client.embed(MODEL, "Hello")).embeddings
    assert len(vector) == len((await ollama_client.embeddings(MODEL, "Hello")).embedding)


async def test_ollama_changes_the_store(ollama_client: Any, changing_daemon: Daemon) -> None:
    digest = await ollama_client.create_blob(write_tiny_model(changing_daemon.home / "tiny.gguf"))
    assert (await ollama_client.create("tiny", files={"tiny.gguf": digest})).status == "success"
    steps = [step.status async for step in await ollama_client.create("calm", from_="tiny", system="Hm.", stream=True)]
    assert steps[-1] == "success"
    await ollama_client.copy("calm", "other")
    assert {"tiny:latest", "calm:latest", "other:latest"} <= {one.model for one in (await ollama_client.list()).models}
    await ollama_client.delete("other")
    with pytest.raises(ollama.ResponseError):
        await ollama_client.show("other")
    assert (await ollama_client.show("tiny")).capabilities


async def test_ollama_pushes_and_pulls(ollama_client: Any, changing_daemon: Daemon, tmp_path: Path) -> None:
    with real_registry.running(tmp_path) as registry:
        config = changing_daemon.home / "config.toml"
        config.write_text(f'[registries."{registry.host}"]\ninsecure = true\n')
        digest = await ollama_client.create_blob(write_tiny_model(tmp_path / "tiny.gguf"))
        for name in (f"{registry.host}/me/first", f"{registry.host}/me/second"):
            await ollama_client.create(name, files={"tiny.gguf": digest})
        steps = [step.status async for step in await ollama_client.push(name, insecure=True, stream=True)]
        assert steps[-1] == "success"
        assert (await ollama_client.push(f"{registry.host}/me/first", insecure=True)).status == "success"
        await ollama_client.delete(name)
        steps = [step.status async for step in await ollama_client.pull(name, insecure=True, stream=True)]
        assert steps[-1] == "success"
        assert (await ollama_client.pull(name, insecure=True)).status == "success"


async def test_openai_answers(openai_client: Any) -> None:
    whole = await openai_client.chat.completions.create(**BRIEF)
    assert whole.choices[0].message.content
    async for chunk in await openai_client.chat.completions.create(**BRIEF, stream=True):
        last = chunk
    assert last.choices[0].finish_reason == "length"
    parsed = await openai_client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Cat, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Cat)
    async with openai_client.chat.completions.stream(model=MODEL, messages=QUESTION, response_format=Cat) as stream:
        assert isinstance((await stream.get_final_completion()).choices[0].message.parsed, Cat)
    told: Any = {"model": MODEL, "prompt": "Hello", "max_tokens": 2, "temperature": 0}
    text = await openai_client.completions.create(**told)
    assert text.choices[0].text
    async for chunk in await openai_client.completions.create(**told, stream=True):
        last = chunk
    assert last.choices[0].finish_reason == "length"
    assert (await openai_client.embeddings.create(model=MODEL, input="Hello")).data[0].embedding


async def test_openai_lists_and_deletes_models(openai_client: Any, changing_daemon: Daemon) -> None:
    assert MODEL in {model.id async for model in openai_client.models.list()}
    assert (await openai_client.models.retrieve(MODEL)).id == MODEL
    changing_daemon.client.post("/api/copy", json={"source": MODEL, "destination": "brief"})
    assert (await openai_client.models.delete("brief")).deleted


async def test_openai_keeps_responses(openai_client: Any) -> None:
    asked: Any = {"model": MODEL, "input": "Name a colour.", "max_output_tokens": 2, "temperature": 0}
    first = await openai_client.responses.create(**asked)
    async for event in await openai_client.responses.create(**asked, stream=True):
        last = event
    assert last.response.status == "incomplete"
    async with openai_client.responses.stream(model=MODEL, input="Invent a cat.", text_format=Cat) as stream:
        assert isinstance((await stream.get_final_response()).output_parsed, Cat)
    parsed = await openai_client.responses.parse(model=MODEL, input="Invent a cat.", text_format=Cat)
    assert isinstance(parsed.output_parsed, Cat)
    counted = await openai_client.responses.input_tokens.count(model=MODEL, input="Name a colour.")
    assert counted.input_tokens == first.usage.input_tokens
    assert (await openai_client.responses.retrieve(first.id)).output == first.output
    assert [item.role async for item in openai_client.responses.input_items.list(first.id)] == ["user"]
    with pytest.raises(openai.BadRequestError):
        await openai_client.responses.cancel(first.id)
    await openai_client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await openai_client.responses.retrieve(first.id)


async def test_what_openai_calls_beta_is_the_same(openai_client: Any) -> None:
    asked: Any = {"model": MODEL, "input": "Name a colour.", "max_output_tokens": 2, "temperature": 0}
    first = await openai_client.beta.responses.create(**asked)
    async for event in await openai_client.beta.responses.create(**asked, stream=True):
        last = event
    assert last.response.status == "incomplete"
    behind = await openai_client.beta.responses.create(**asked, background=True)
    async for event in await openai_client.beta.responses.retrieve(behind.id, stream=True):
        last = event
    assert last.response.id == behind.id
    counted = await openai_client.beta.responses.input_tokens.count(model=MODEL, input="Name a colour.")
    assert counted.input_tokens == first.usage.input_tokens
    assert (await openai_client.beta.responses.retrieve(first.id)).output == first.output
    assert [item.role async for item in openai_client.beta.responses.input_items.list(first.id)] == ["user"]
    with pytest.raises(openai.BadRequestError):
        await openai_client.beta.responses.cancel(first.id)
    await openai_client.beta.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await openai_client.beta.responses.retrieve(first.id)


async def test_anthropic_answers(anthropic_client: Any) -> None:
    whole = await anthropic_client.messages.create(**BRIEF)
    assert whole.content[0].text
    kinds = [event.type async for event in await anthropic_client.messages.create(**BRIEF, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    async with anthropic_client.messages.stream(**BRIEF) as stream:
        assert (await stream.get_final_message()).content[0].text
    parsed = await anthropic_client.messages.parse(model=MODEL, max_tokens=50, messages=QUESTION, output_format=Cat)
    assert isinstance(parsed.parsed_output, Cat)
    counted = await anthropic_client.messages.count_tokens(model=MODEL, messages=QUESTION)
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert MODEL in {model.id async for model in anthropic_client.models.list()}
    assert (await anthropic_client.models.retrieve(MODEL)).id == MODEL


async def test_what_anthropic_calls_beta_is_the_same(anthropic_client: Any) -> None:
    whole = await anthropic_client.beta.messages.create(**BRIEF)
    assert whole.content[0].text
    kinds = [event.type async for event in await anthropic_client.beta.messages.create(**BRIEF, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    async with anthropic_client.beta.messages.stream(**BRIEF) as stream:
        assert (await stream.get_final_message()).content[0].text
    parsed = await anthropic_client.beta.messages.parse(
        model=MODEL, max_tokens=50, messages=QUESTION, output_format=Cat
    )
    assert isinstance(parsed.parsed_output, Cat)
    counted = await anthropic_client.beta.messages.count_tokens(model=MODEL, messages=QUESTION)
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert MODEL in {model.id async for model in anthropic_client.beta.models.list()}
    assert (await anthropic_client.beta.models.retrieve(MODEL)).id == MODEL


async def test_anthropics_own_loop_runs_tools(anthropic_client: Any) -> None:
    kept = []

    @beta_async_tool
    async def note(kind: Literal["plums", "pears"]) -> str:
        """Keeps a note."""
        kept.append(kind)
        return "kept"

    asked: Any = {"model": MODEL, "max_tokens": 100, "max_iterations": 2, "tools": [note], "messages": QUESTION}
    asked["tool_choice"] = {"type": "any"}
    async for message in anthropic_client.beta.messages.tool_runner(**asked):
        assert message.stop_reason == "tool_use"
    async for stream in anthropic_client.beta.messages.tool_runner(**asked, stream=True):
        assert (await stream.get_final_message()).stop_reason == "tool_use"
    assert len(kept) >= 2


async def test_answers_are_taken_as_they_come(openai_client: Any, anthropic_client: Any) -> None:
    openai_raw = await openai_client.chat.completions.with_raw_response.create(**BRIEF)
    assert openai_raw.headers["x-request-id"] == openai_raw.request_id
    anthropic_raw = await anthropic_client.messages.with_raw_response.create(**BRIEF)
    assert anthropic_raw.headers["x-request-id"] == anthropic_raw.request_id
    async with openai_client.chat.completions.with_streaming_response.create(**BRIEF, stream=True) as response:
        assert [line async for line in response.iter_lines() if line][-1] == "data: [DONE]"
    async with anthropic_client.messages.with_streaming_response.create(**BRIEF, stream=True) as response:
        assert [line async for line in response.iter_lines() if line][-2] == "event: message_stop"
