"""The official client libraries, talking to the app."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import ollama
import openai
import pytest

from registry.store import ModelStore
from runner.chat.types import Failed, TextDelta
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon, serve
from tests.tiny_model import write_tiny_model

USER = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(FakeSupervisor(answer("Hi", " there")))


@pytest.fixture
async def base(daemon: FakeDaemon) -> AsyncIterator[str]:
    async with serve(daemon.app()) as address:
        yield address


# --- ollama ---------------------------------------------------------------------------------------


@pytest.fixture
async def ollama_client(base: str) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=base)
    yield client
    await client._client.aclose()


async def test_ollama_chats(ollama_client: ollama.AsyncClient) -> None:
    whole = await ollama_client.chat("m", USER)
    assert (whole.message.role, whole.message.content, whole.done, whole.done_reason) == (
        "assistant", "Hi there", True, "stop",
    )  # fmt: skip
    assert (whole.prompt_eval_count, whole.eval_count) == (9, 2)
    assert whole.total_duration and whole.eval_duration == 3_000_000
    parts = [part async for part in await ollama_client.chat("m", USER, stream=True)]
    assert [part.message.content for part in parts] == ["Hi", " there", ""]
    assert [part.done for part in parts] == [False, False, True]


async def test_ollama_generates(ollama_client: ollama.AsyncClient, daemon: FakeDaemon) -> None:
    whole = await ollama_client.generate(
        "m", "Hello", system="Be brief.", options={"temperature": 0, "stop": ["x"]}, keep_alive="1m"
    )
    assert whole.response == "Hi there"
    assert daemon.supervisor.request.sampling.temperature == 0
    assert daemon.supervisor.keep_alives == [60.0]
    parts = [part.response async for part in await ollama_client.generate("m", "Hello", stream=True)]
    assert parts == ["Hi", " there", ""]


async def test_ollama_loads_and_unloads(ollama_client: ollama.AsyncClient, daemon: FakeDaemon) -> None:
    assert (await ollama_client.generate("m")).done_reason == "load"
    assert (await ollama_client.generate("m", keep_alive=0)).done_reason == "unload"
    assert (await ollama_client.chat("m")).done_reason == "load"
    assert len(daemon.supervisor.unloaded) == 1


async def test_ollama_lists_and_shows(ollama_client: ollama.AsyncClient) -> None:
    listed = (await ollama_client.list()).models
    assert [model.model for model in listed] == ["m:latest"]
    assert listed[0].details and listed[0].details.family == "llama"
    shown = await ollama_client.show("m")
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo and shown.modelinfo["general.parameter_count"] == 135_000_000
    assert (await ollama_client.ps()).models == []


async def test_ollama_copies_deletes_and_pulls(ollama_client: ollama.AsyncClient) -> None:
    assert (await ollama_client.copy("m", "n")).status == "success"
    assert (await ollama_client.delete("n")).status == "success"
    assert (await ollama_client.pull("m")).status == "success"
    progress = [step.status async for step in await ollama_client.pull("m", stream=True)]
    assert progress == ["pulling manifest", "success"]


async def test_ollama_creates_from_an_upload(tmp_path: Path) -> None:
    daemon = FakeDaemon(store=ModelStore(tmp_path / "models"))
    file = write_tiny_model(tmp_path / "tiny.gguf")
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    async with serve(daemon.app()) as base:
        client = ollama.AsyncClient(host=base)
        assert await client.create_blob(file) == digest
        created = await client.create("mine", files={"tiny.gguf": digest}, system="Be brief.")
        assert created.status == "success"
        assert [model.model for model in (await client.list()).models] == ["mine:latest"]
        await client._client.aclose()


async def test_ollama_is_told_of_errors(ollama_client: ollama.AsyncClient, daemon: FakeDaemon) -> None:
    with pytest.raises(ollama.ResponseError) as missing:
        await ollama_client.chat("nope", USER)
    assert missing.value.status_code == 404 and "not found" in missing.value.error
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        await ollama_client.chat("m", USER, think=True)
    daemon.supervisor.script = lambda _: [TextDelta("Hi"), Failed("engine_crashed", "It died.")]
    with pytest.raises(ollama.ResponseError, match="It died"):
        async for _ in await ollama_client.chat("m", USER, stream=True):
            pass


# --- openai ---------------------------------------------------------------------------------------


@pytest.fixture
async def openai_client(base: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_openai_chats(openai_client: openai.AsyncOpenAI) -> None:
    whole = await openai_client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
    assert whole.choices[0].message.content == "Hi there"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage and whole.usage.total_tokens == 11
    assert whole.usage.prompt_tokens_details and whole.usage.prompt_tokens_details.cached_tokens == 4
    assert whole.system_fingerprint


async def test_openai_streams(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="m",
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert texts == ["Hi", " there", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 2
    assert len({chunk.id for chunk in chunks}) == 1


async def test_openai_lists_models(openai_client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in openai_client.models.list()] == ["m:latest"]
    assert (await openai_client.models.retrieve("library/m")).owned_by == "library"


async def test_openai_is_told_of_errors(openai_client: openai.AsyncOpenAI, daemon: FakeDaemon) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await openai_client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await openai_client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], extra_body={"tempreature": 1}
        )
    assert (refused.value.code, refused.value.param) == ("invalid_request", "tempreature")
    daemon.supervisor.script = lambda _: [TextDelta("Hi"), Failed("engine_crashed", "It died.")]
    stream = await openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError, match="It died"):
        async for _ in stream:
            pass


async def test_openai_leaving_a_stream_cancels_it(openai_client: openai.AsyncOpenAI, daemon: FakeDaemon) -> None:
    daemon.supervisor.script = lambda _: [TextDelta("Hi")]
    stream = await openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], stream=True
    )
    await anext(stream)
    await stream.close()
    await daemon.supervisor.until(lambda fake: fake.cancelled)
