"""Official clients on a live server: lists of models in pages, and responses that fail in mid-stream."""

from __future__ import annotations

import anthropic
import openai
import pytest

from registry.name import ModelName
from runner.chat.types import Failed, TextDelta
from tests.fakes import FakeModel, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon, serve


async def test_the_anthropic_client_pages_through_the_models_in_both_directions() -> None:
    daemon = FakeDaemon(store=FakeStore(*[FakeModel(name=ModelName.parse(name)) for name in "abcde"]))
    async with (
        serve(daemon.app()) as base,
        anthropic.AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as client,
    ):
        forward = [model.id async for model in await client.models.list(limit=2)]
        backward = [model.id async for model in await client.models.list(limit=2, before_id="d:latest")]
        one = await client.models.retrieve("c")
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("z")
        with pytest.raises(anthropic.BadRequestError):
            await client.models.list(after_id="z")
    assert forward == [f"{name}:latest" for name in "abcde"]
    assert sorted(backward) == [f"{name}:latest" for name in "abc"]
    assert (one.id, one.type) == ("c:latest", "model")


async def test_the_openai_client_gets_all_models_or_the_page_it_asks_for() -> None:
    daemon = FakeDaemon(store=FakeStore(*[FakeModel(name=ModelName.parse(f"m{number}")) for number in range(30)]))
    async with (
        serve(daemon.app()) as base,
        openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0) as client,
    ):
        assert len([model async for model in client.models.list()]) == 30
        assert len([model async for model in client.models.list(extra_query={"limit": 2})]) == 2
        with pytest.raises(openai.BadRequestError):
            await client.models.list(extra_query={"lifecycle": "odd"})


async def test_the_openai_client_sees_a_response_fail_and_raises_the_error() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel"), Failed("engine_crashed", "The worker ended.")]))
    async with (
        serve(daemon.app()) as base,
        openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0) as client,
    ):
        last = ""
        with pytest.raises(openai.APIError) as raised:
            async for event in await client.responses.create(model="m", input="Hello", stream=True):
                last = event.type
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="Hello")
    assert raised.value.code == "engine_crashed"
    assert last == "response.failed"
