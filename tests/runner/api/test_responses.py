"""Responses: what is kept of them, for how long and for whom, and the conversations they make."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.openai.responses_items import (
    CallItem,
    Item,
    Json,
    MessageItem,
    Part,
    ReasoningItem,
    ResultItem,
    conversation,
)
from runner.api.openai.responses_store import ResponseStore
from runner.chat.types import ChatPrompt, Failed, Message, Rendered, TextDelta, ToolCall
from tests.fakes import FakeModel, FakeStore, FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon

TOOL = {"type": "function", "name": "f"}


def message(text: str, *, id: str = "msg_1", role: str = "user") -> MessageItem:
    return MessageItem(id, role, (Part("input_text", text),))


def response(number: int) -> Json:
    return {"id": f"resp_{number}"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_oldest_responses_go_when_there_are_too_many() -> None:
    store = ResponseStore(most=2)
    for number in range(3):
        store.keep("", response(number), [message("x")], [])
    assert [store.find("", f"resp_{number}") is not None for number in range(3)] == [False, True, True]


def test_responses_are_let_go_after_their_time() -> None:
    clock = Clock()
    store = ResponseStore(seconds=10, clock=clock)
    store.keep("", response(1), [message("x")], [])
    clock.now = 9.0
    assert store.find("", "resp_1") is not None
    clock.now = 10.0
    assert store.find("", "resp_1") is None


def test_a_response_larger_than_all_that_may_be_kept_is_not_kept() -> None:
    store = ResponseStore(most_bytes=1000)
    store.keep("", response(1), [message("x" * 2000)], [])
    assert store.find("", "resp_1") is None
    store.keep("", response(2), [message("x")], [])
    assert store.find("", "resp_2") is not None, "nothing of the one before is counted any more"


def test_nobody_finds_what_another_owner_has_kept() -> None:
    store = ResponseStore()
    store.keep("ada", response(1), [message("x", id="msg_9")], [])
    assert store.find("bob", "resp_1") is None
    assert [*store.items("bob")] == []
    assert not store.forget("bob", "resp_1")
    assert [item.id for item in store.items("ada")] == ["msg_9"]
    assert store.forget("ada", "resp_1")


def test_what_nobody_asks_for_goes_too_when_its_time_is_over() -> None:
    clock = Clock()
    alarms: list[tuple[float, Callable[[], None]]] = []
    store = ResponseStore(seconds=10, clock=clock, wake=lambda seconds, look: alarms.append((seconds, look)))
    store.keep("", response(1), [message("x")], [])
    clock.now = 4.0
    store.keep("", response(2), [message("x")], [])
    one = store.size // 2
    for now, left, size in ((10.0, 4.0, one), (14.0, None, 0)):
        [(seconds, look)] = alarms
        assert seconds == (10.0 if now == 10.0 else 4.0)
        alarms.clear()
        clock.now = now
        look()
        assert [after for after, _ in alarms] == ([left] if left else [])
        assert store.size == size


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.booleans()), max_size=40))
def test_what_is_kept_never_exceeds_its_bounds(steps: list[tuple[int, int, bool]]) -> None:
    store = ResponseStore(most=3, most_bytes=1500)
    for number, size, is_kept in steps:
        if is_kept:
            store.keep("", response(number), [message("x" * size)], [])
        else:
            store.forget("", f"resp_{number}")
        kept = [stored for one in range(6) if (stored := store.find("", f"resp_{one}"))]
        assert len(kept) <= 3
        assert sum(stored.size for stored in kept) <= 1500
        assert store.size == sum(stored.size for stored in kept)


def test_thoughts_text_and_calls_of_a_turn_are_one_message() -> None:
    items: list[Item] = [
        message("Hello"),
        ReasoningItem("rs_1", "Hm."),
        message("I look.", role="assistant"),
        CallItem("fc_1", "c1", "f", "{}"),
        CallItem("fc_2", "c2", "g", "{}"),
        ResultItem("fco_1", "c2", (Part("input_text", "two"),)),
        message("Done.", role="assistant"),
        message("More.", role="assistant"),
    ]
    assert conversation("Be brief.", items) == (
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message(
            "assistant", "I look.", thinking="Hm.", tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}"))
        ),
        Message("tool", "two", tool_name="g", tool_call_id="c2"),
        Message("assistant", "Done."),
        Message("assistant", "More."),
    )


def test_instructions_and_the_systems_messages_behind_them_are_one() -> None:
    items = [message("Be kind.", role="system"), message("Hello"), message("Hurry.", role="system")]
    assert conversation("Be brief.", items) == (
        Message("system", "Be brief.\n\nBe kind."),
        Message("user", "Hello"),
        Message("system", "Hurry."),
    )


async def test_instructions_are_not_taken_over_from_an_earlier_response() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        first = await client.post("/v1/responses", json={"model": "m", "input": "Hello", "instructions": "Sing."})
        again = {"model": "m", "input": "And?", "previous_response_id": first.json()["id"]}
        await client.post("/v1/responses", json=again)
    prompt = list(daemon.supervisor.requests.values())[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "And?"))


async def test_an_item_can_be_referred_to_by_its_id() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        first = (await client.post("/v1/responses", json={"model": "m", "input": "Hello"})).json()
        sent = [{"type": "item_reference", "id": first["output"][0]["id"]}, {"role": "user", "content": "And?"}]
        assert (await client.post("/v1/responses", json={"model": "m", "input": sent})).status_code == 200
    prompt = list(daemon.supervisor.requests.values())[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == (Message("assistant", "Hi."), Message("user", "And?"))


async def test_an_item_is_read_once() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        first = (await client.post("/v1/responses", json={"model": "m", "input": "Hello"})).json()
        goes_on = {"model": "m", "previous_response_id": first["id"]}
        again = await client.post("/v1/responses", json={**goes_on, "input": first["output"]})
        named = {"role": "user", "content": "Hi", "id": "msg_mine"}
        doubled = await client.post("/v1/responses", json={"model": "m", "input": [named, named]})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "input[0].id")
    assert (doubled.status_code, doubled.json()["error"]["param"]) == (400, "input[1].id")
    assert len(daemon.supervisor.requests) == 1


async def test_what_is_asked_for_in_vain_is_told() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        made = (await client.post("/v1/responses", json={"model": "m", "input": "Hello"})).json()
        include = {"include": "reasoning.encrypted_content"}
        path = f"/v1/responses/{made['id']}"
        fetched = await client.get(path, params={**include, "include_obfuscation": "true"})
        listed = await client.get(f"{path}/input_items", params=include)
        plain = await client.get(path, params={"stream": "false"})
        unstreamed = await client.get(path, params={"starting_after": 1})
        wrong = await client.get(path, params={"stream": "yes"})
    assert fetched.headers["x-puna-ignored"] == "include[reasoning.encrypted_content], include_obfuscation"
    assert listed.headers["x-puna-ignored"] == "include[reasoning.encrypted_content]"
    assert "x-puna-ignored" not in plain.headers and plain.json() == fetched.json() == made
    assert unstreamed.headers["x-puna-ignored"] == "starting_after"
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "stream")


async def test_counting_takes_no_turn_that_could_be_an_early_one() -> None:
    daemon = FakeDaemon(FakeSupervisor([Rendered("Hello", (1, 2, 3), 100)]))
    asked = {"model": "m", "input": "Hello", "personality": "friendly"}
    async with daemon.client() as client:
        told = await client.post("/v1/responses/input_tokens", json=asked, headers={"X-Puna-Priority": "background"})
    assert told.json() == {"object": "response.input_tokens", "input_tokens": 3}
    assert told.headers["x-puna-ignored"] == "personality, X-Puna-Priority"


async def test_the_developers_role_is_told_as_it_was_sent() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    sent = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    async with daemon.client() as client:
        made = (await client.post("/v1/responses", json={"model": "m", "input": sent})).json()
        items = (await client.get(f"/v1/responses/{made['id']}/input_items", params={"order": "asc"})).json()["data"]
    assert [item["role"] for item in items] == ["developer", "user"]
    prompt = daemon.supervisor.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0] == Message("system", "Be brief.")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f", "mode": "auto"}}, "tool_choice.mode"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "name": "f"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}},
         "tool_choice.mode"),
        ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ],
)  # fmt: skip
async def test_a_part_without_a_meaning_there_is_refused(changes: Json, param: str) -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi."))).client() as client:
        refused = await client.post("/v1/responses", json={"model": "m", "input": "Hello", **changes})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_input_items_come_in_pages() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        sent = [{"role": "user", "content": str(number)} for number in range(5)]
        made = (await client.post("/v1/responses", json={"model": "m", "input": sent})).json()
        path = f"/v1/responses/{made['id']}/input_items"
        texts: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await client.get(path, params={"limit": "2", "order": "asc", **after})).json()
            texts += [item["content"][0]["text"] for item in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
        newest = (await client.get(path, params={"limit": 1})).json()
        refused = [await client.get(path, params=wrong) for wrong in ({"limit": "x"}, {"order": "x"}, {"after": "x"})]
    assert texts == ["0", "1", "2", "3", "4"]
    assert newest["data"][0]["content"][0]["text"] == "4" and newest["has_more"]
    assert [one.status_code for one in refused] == [400, 400, 400]


async def test_a_failed_response_can_be_fetched_and_says_so() -> None:
    daemon = FakeDaemon(FakeSupervisor([TextDelta("Hel"), Failed("engine_crashed", "The worker ended.")]))
    async with daemon.client() as client:
        stream = (await client.post("/v1/responses", json={"model": "m", "input": "Hello", "stream": True})).text
        response_id = stream.split('"id":"', 1)[1].split('"', 1)[0]
        kept = (await client.get(f"/v1/responses/{response_id}")).json()
    assert kept["status"] == "failed"
    assert kept["error"] == {"code": "server_error", "message": "The worker ended."}
    assert kept["output"][0]["content"][0]["text"] == "Hel"


async def test_a_response_that_has_ended_cannot_be_cancelled_nor_streamed() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    async with daemon.client() as client:
        made = (await client.post("/v1/responses", json={"model": "m", "input": "Hello"})).json()
        cancelled = await client.post(f"/v1/responses/{made['id']}/cancel")
        streamed = await client.get(f"/v1/responses/{made['id']}", params={"stream": "true"})
    assert (cancelled.status_code, streamed.status_code) == (400, 400)
    assert streamed.json()["error"]["code"] == "unsupported"


async def test_images_stand_where_they_were_among_the_texts() -> None:
    model = FakeModel(can=("completion", "vision"))
    daemon = FakeDaemon(FakeSupervisor(answer("A cat.")), FakeStore(model))
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG picture").decode()
    content = [
        {"type": "input_text", "text": "Look: "},
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": "What is it?"},
    ]
    async with daemon.client() as client:
        sent = {"model": "m", "input": [{"role": "user", "content": content}]}
        made = await client.post("/v1/responses", json=sent)
        items = (await client.get(f"/v1/responses/{made.json()['id']}/input_items")).json()["data"]
        content[1]["image_url"] = "data:image/png;base64,?"
        wrong = await client.post("/v1/responses", json=sent)
        content[1]["image_url"] = "https://example.com/cat.png"
        elsewhere = await client.post("/v1/responses", json=sent)
    prompt = daemon.supervisor.request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert [(one.data, one.at) for one in prompt.messages[0].media] == [(b"\x89PNG picture", 6)]
    assert prompt.messages[0].content == "Look: What is it?"
    assert items[0]["content"][1]["image_url"] == url
    field = "input[0].content[1].image_url"
    assert [(one.status_code, one.json()["error"]["param"]) for one in (wrong, elsewhere)] == [(400, field)] * 2


async def test_a_model_that_sees_nothing_is_sent_no_image() -> None:
    daemon = FakeDaemon(FakeSupervisor(answer("Hi.")))
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG picture").decode()
    sent = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    async with daemon.client() as client:
        refused = await client.post("/v1/responses", json={"model": "m", "input": sent})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")
    assert refused.json()["error"]["param"] == "input[0].content[0].image_url"
