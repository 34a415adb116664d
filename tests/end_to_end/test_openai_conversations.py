"""Conversations that are kept, and responses of the background, by the official OpenAI clients with a real model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

ADA: Any = {"type": "message", "role": "user", "content": "My name is Ada."}


@pytest.fixture(scope="module")
def client(shared_daemon: Daemon) -> Iterator[Any]:
    base = f"{shared_daemon.url}/v1"
    with openai.OpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_a_conversation_grows_by_items_and_by_responses(client: Any) -> None:
    conversation = client.conversations.create(items=[ADA], metadata={"who": "test"})
    assert (conversation.object, conversation.metadata) == ("conversation", {"who": "test"})
    asked: Any = {"model": MODEL, "max_output_tokens": 8, "temperature": 0, "extra_body": {"deterministic": True}}
    answer = client.responses.create(**asked, input="What is my name?", conversation=conversation.id)
    assert answer.conversation.id == conversation.id
    sent: Any = [ADA, {"role": "user", "content": "What is my name?"}]
    assert answer.output_text == client.responses.create(**asked, input=sent).output_text

    items = client.conversations.items.list(conversation.id, order="asc", limit=2)
    assert [item.role for item in items] == ["user", "user", "assistant"], "all pages"
    added = client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "And yours?"}])
    last = client.conversations.items.retrieve(added.data[0].id, conversation_id=conversation.id)
    assert last.content[0].text == "And yours?"
    with client.responses.create(**asked, input=[], conversation={"id": conversation.id}, stream=True) as stream:
        final = list(stream)[-1].response
    assert final.usage.input_tokens > answer.usage.input_tokens
    client.conversations.items.delete(last.id, conversation_id=conversation.id)
    kept = client.conversations.items.list(conversation.id, order="asc")
    assert [item.id for item in kept][-1] == final.output[0].id
    assert last.id not in [item.id for item in kept]

    assert client.conversations.update(conversation.id, metadata={"who": "else"}).metadata == {"who": "else"}
    assert client.conversations.retrieve(conversation.id).metadata == {"who": "else"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**asked, input="Hi", conversation=conversation.id)


def test_a_response_of_the_background_is_made_while_nobody_waits(client: Any) -> None:
    begun = client.responses.create(
        model=MODEL, input="Count to three.", background=True, max_output_tokens=12, temperature=0
    )
    assert begun.status in ("queued", "in_progress")
    deadline = time.monotonic() + TIMEOUT
    while (response := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert response.output_text
    assert client.responses.cancel(begun.id).id == begun.id
    events = list(client.responses.retrieve(begun.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == response.output_text
    later = list(client.responses.retrieve(begun.id, stream=True, starting_after=3))
    assert [event.sequence_number for event in later] == list(range(4, len(events)))


def test_a_stream_that_broke_off_is_gone_on_with_and_cancelled(client: Any, shared_daemon: Daemon) -> None:
    endless: Any = {"model": MODEL, "input": "Tell a story.", "background": True, "extra_body": {"seed": 1}}
    with client.responses.create(**endless, stream=True) as stream:
        seen = [next(stream) for _ in range(6)]
    with client.responses.retrieve(seen[0].response.id, stream=True, starting_after=5) as stream:
        assert next(stream).sequence_number == 6
    cancelled = client.responses.cancel(seen[0].response.id)
    assert cancelled.status in ("cancelled", "completed")
    assert client.responses.retrieve(cancelled.id).status == cancelled.status
    shared_daemon.wait_until_idle()


async def test_the_asynchronous_client_keeps_conversations_too(shared_daemon: Daemon) -> None:
    base = f"{shared_daemon.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        conversation = await client.conversations.create(items=[ADA])
        added = await client.conversations.items.create(conversation.id, items=[ADA])
        item_id = str(added.data[0].id)
        found = await client.conversations.items.retrieve(item_id, conversation_id=conversation.id)
        assert found.id == item_id
        await client.conversations.items.delete(item_id, conversation_id=conversation.id)
        assert len([item async for item in client.conversations.items.list(conversation.id)]) == 1
        await client.conversations.update(conversation.id, metadata={"a": "b"})
        assert (await client.conversations.retrieve(conversation.id)).metadata == {"a": "b"}
        begun = await client.responses.create(model=MODEL, input="Hi", background=True, max_output_tokens=4)
        async with asyncio.timeout(TIMEOUT):
            events = [event async for event in await client.responses.retrieve(begun.id, stream=True)]
        assert events[-1].type in ("response.completed", "response.incomplete")
        assert (await client.conversations.delete(conversation.id)).deleted
