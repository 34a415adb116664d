"""Conversations that are kept: for whom, for how long, how much of them, and what becomes of wrong requests."""

from __future__ import annotations

from typing import Any

import pytest

from runner.api.openai.conversation_store import ConversationStore, StoredConversation
from runner.api.openai.responses_items import MessageItem, Part
from runner.chat.types import TextDelta
from tests.fakes import FakeSupervisor, answer, finished
from tests.runner.api.serving import FakeDaemon


def message(number: int, text: str = "x") -> MessageItem:
    return MessageItem(f"msg_{number}", "user", (Part("input_text", text),))


def conversation(number: int) -> StoredConversation:
    return StoredConversation(f"conv_{number}", {}, 0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_those_go_that_were_not_used_for_longest() -> None:
    clock = Clock()
    store = ConversationStore(most=2, seconds=10, clock=clock)
    for number in range(2):
        store.keep("", conversation(number), [message(number)])
    clock.now = 5.0
    assert store.find("", "conv_0") is not None
    store.keep("", conversation(2), [])
    assert store.find("", "conv_1") is None
    clock.now = 14.0
    assert store.find("", "conv_0") is not None
    clock.now = 24.0
    assert store.find("", "conv_0") is None
    assert store.size == 0


def test_what_is_kept_is_bounded_and_counted() -> None:
    store = ConversationStore(most_bytes=2000)
    store.keep("", conversation(0), [message(0)])
    one = store.size
    store.add("", "conv_0", [message(0), message(1)])
    assert store.size == 2 * one, "an item that is there already stays once"
    store.remove("", "conv_0", "msg_1")
    assert store.size == one
    store.keep("", conversation(1), [message(2, "y" * 1800)])
    assert store.find("", "conv_0") is None
    left = store.size
    store.add("", "conv_0", [message(3)])
    assert store.size == left > 1800, "nothing is added to what is gone"
    store.keep("", conversation(2), [message(4, "y" * 2000)])
    assert store.size == 0, "what is larger than all that may be kept goes at once"


def test_nobody_finds_what_another_has_kept() -> None:
    store = ConversationStore()
    store.keep("ann", conversation(0), [message(0)])
    assert store.find("bob", "conv_0") is None
    assert [*store.items("bob")] == []
    assert [*store.items("ann")] == [message(0)]


ITEM = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/conversations", {"items": [ITEM] * 21}, 400, "items"),
        ("/v1/conversations", {"items": [{"type": "image_generation_call"}]}, 400, "items[0].type"),
        ("/v1/conversations", {"metadata": {"a": 1}}, 400, "metadata.a"),
        ("/v1/conversations/conv_0", {"metadata": {}}, 404, "conversation_id"),
        ("/v1/conversations/conv_0/items", {"items": [ITEM]}, 404, "conversation_id"),
        ("/v1/responses", {"model": "m", "input": "Hi", "conversation": "conv_0"}, 404, "conversation"),
        ("/v1/responses", {"model": "m", "input": "Hi", "conversation": {"id": "c"}, "previous_response_id": "r"},
         400, "previous_response_id"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_told_its_field(path: str, body: dict[str, Any], status: int, param: str) -> None:
    async with FakeDaemon().client() as client:
        refused = await client.post(path, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_a_response_that_failed_adds_nothing() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi")))
    async with daemon.client() as client:
        made = (await client.post("/v1/conversations", json={"items": [ITEM]})).json()["id"]
        refused = await client.post(
            "/v1/responses", json={"model": "m", "input": "Hi", "conversation": made, "temperature": -1}
        )
        assert refused.status_code == 400
        before = (await client.get(f"/v1/conversations/{made}/items")).json()["data"]
        await client.post("/v1/responses", json={"model": "m", "input": "Hi", "conversation": made, "store": False})
        after = await client.get(f"/v1/conversations/{made}/items", params={"include": "reasoning.encrypted_content"})
    assert [len(before), len(after.json()["data"])] == [1, 3]
    assert after.headers["x-puna-ignored"] == "include[reasoning.encrypted_content]"


async def test_an_item_that_is_there_is_not_added_again() -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        made = (await client.post("/v1/conversations", json={"items": [{**ITEM, "id": "msg_mine"}]})).json()["id"]
        path = f"/v1/conversations/{made}/items"
        again = await client.post(path, json={"items": [ITEM, {**ITEM, "id": "msg_mine"}]})
        asked = {"model": "m", "conversation": made, "input": [{**ITEM, "id": "msg_mine"}]}
        answered = await client.post("/v1/responses", json=asked)
        kept = (await client.get(path)).json()["data"]
    assert (again.status_code, again.json()["error"]["param"]) == (400, "items[1].id")
    assert (answered.status_code, answered.json()["error"]["param"]) == (400, "input[0].id")
    assert [item["id"] for item in kept] == ["msg_mine"]


async def test_an_item_of_a_response_can_be_put_into_a_conversation_by_its_id() -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        [output] = (await client.post("/v1/responses", json={"model": "m", "input": "Hello"})).json()["output"]
        items = [{"type": "item_reference", "id": output["id"]}]
        made = (await client.post("/v1/conversations", json={"items": items})).json()["id"]
        kept = (await client.get(f"/v1/conversations/{made}/items")).json()["data"]
    assert kept == [output]


async def test_what_is_taken_out_while_an_answer_is_made_stays_out() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel")]))
    async with daemon.client() as client:
        made = (await client.post("/v1/conversations", json={"items": [{**ITEM, "id": "msg_mine"}]})).json()["id"]
        asked = {"model": "m", "conversation": made, "input": "And?", "background": True}
        begun = (await client.post("/v1/responses", json=asked)).json()["id"]
        assert (await client.delete(f"/v1/conversations/{made}/items/msg_mine")).status_code == 200
        await daemon.supervisor.until(lambda supervisor: supervisor.requests)
        daemon.supervisor.send(TextDelta("lo"), finished())
        stream = await client.get(f"/v1/responses/{begun}", params={"stream": "true"})
        assert "response.completed" in stream.text
        kept = (await client.get(f"/v1/conversations/{made}/items", params={"order": "asc"})).json()["data"]
    assert [item["content"][0]["text"] for item in kept] == ["And?", "Hello"]
