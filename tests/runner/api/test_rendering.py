"""The prompt in place of an answer: Puna's own path, and the field of Ollama's that asks for the same."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from runner.chat.types import ChatPrompt, Rendered
from tests.fakes import FakeModel, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon

PICTURE = base64.b64encode(b"\x89PNG and more").decode()
TURN = {"role": "user", "content": "Hello"}
CHAT: dict[str, Any] = {"model": "m", "messages": [TURN]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "Hello"}


def fake_daemon() -> FakeDaemon:
    return FakeDaemon(
        FakeSupervisor([Rendered("<user>Hello", (1, 2), 4096)]),
        FakeStore(FakeModel(can=("completion", "vision", "insert"))),
    )


@pytest.mark.parametrize("body", [CHAT, COMPLETION], ids=["a chat", "a completion"])
async def test_the_prompt_is_told_with_its_tokens(body: dict[str, Any]) -> None:
    daemon = fake_daemon()
    async with daemon.client() as client:
        told = (await client.post("/api/render", json=body)).json()
    assert told == {
        "model": "m",
        "prompt": "<user>Hello",
        "tokens": [1, 2],
        "prompt_tokens": 2,
        "context_length": 4096,
    }
    assert [request.is_render for request in daemon.supervisor.requests.values()] == [True]


OF_COMPLETIONS: list[dict[str, Any]] = [
    {"system": "Be brief."},
    {"template": "x"},
    {"raw": True},
    {"raw": False},
    {"context": [1]},
    {"suffix": "x"},
    {"images": [PICTURE]},
]
OF_CHATS: list[dict[str, Any]] = [{"tools": []}, {"tool_choice": "none"}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m"}, "messages"),
        (CHAT | COMPLETION, "messages"),
        *((CHAT | more, next(iter(more))) for more in OF_COMPLETIONS),
        *((COMPLETION | more, next(iter(more))) for more in OF_CHATS),
    ],
    ids=repr,
)
async def test_what_belongs_to_the_other_kind_of_request_is_refused(body: dict[str, Any], field: str) -> None:
    daemon = fake_daemon()
    async with daemon.client() as client:
        answer = await client.post("/api/render", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "invalid_request", field)
    assert daemon.supervisor.requests == {}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/api/chat", CHAT, {}),
        ("/api/chat", CHAT | {"messages": [TURN | {"images": [PICTURE, PICTURE]}, TURN]}, {"image_count": 2}),
        ("/api/generate", COMPLETION, {}),
        ("/api/generate", COMPLETION | {"images": [PICTURE]}, {"image_count": 1}),
    ],
)
async def test_ollamas_field_gives_one_record_with_the_prompt(
    path: str, body: dict[str, Any], count: dict[str, int], streams: bool
) -> None:
    daemon = fake_daemon()
    async with daemon.client() as client:
        answer = await client.post(path, json={**body, "stream": streams, "_debug_render_only": True})
    told = answer.json()
    assert told.pop("created_at")
    assert told == {"model": "m", "_debug_info": {"rendered_template": "<user>Hello", **count}}
    assert [request.is_render for request in daemon.supervisor.requests.values()] == [True]


async def test_without_anything_to_render_ollamas_field_loads_as_ever() -> None:
    daemon = fake_daemon()
    async with daemon.client() as client:
        told = (await client.post("/api/generate", json={"model": "m", "_debug_render_only": True})).json()
        refused = await client.post("/api/generate", json=COMPLETION | {"_debug_render_only": "yes"})
    assert told["done_reason"] == "load"
    assert refused.json()["field"] == "_debug_render_only"


async def test_a_text_that_is_only_to_be_led_up_to_is_no_empty_request() -> None:
    daemon = fake_daemon()
    async with daemon.client() as client:
        told = await client.post("/api/render", json={"model": "m", "prompt": "", "suffix": "return 1"})
    assert told.status_code == 200
    [request] = daemon.supervisor.requests.values()
    assert "return 1" in repr(request.prompt)


@pytest.mark.parametrize(
    ("text", "images", "shown", "places"),
    [
        ("What is it?", 2, "What is it?", [(0, 0), (0, 1)]),
        ("Is [img] like [img]?", 2, "Is  like ?", [(3, 0), (9, 1)]),
        ("Is [img] odd?", 2, "Is  odd?", [(0, 1), (3, 0)]),
        ("[img][img] and [img]", 2, " and [img]", [(0, 0), (0, 1)]),
        ("[img] is text", 0, "[img] is text", []),
    ],
)
@pytest.mark.parametrize("is_chat", [True, False])
async def test_an_image_stands_at_its_mark_or_in_front(
    text: str, images: int, shown: str, places: list[tuple[int, int]], is_chat: bool
) -> None:
    daemon = fake_daemon()
    files = [base64.b64encode(b"\x89PNG %d" % number).decode() for number in range(images)]
    body = {"messages": [{"role": "user", "content": text, "images": files}]} if is_chat else {"prompt": text}
    more = {} if is_chat else {"images": files}
    async with daemon.client() as client:
        answer = await client.post("/api/render", json={"model": "m", **body, **more})
    assert answer.status_code == 200, answer.text
    prompt = daemon.supervisor.request.prompt
    assert isinstance(prompt, ChatPrompt)
    [message] = prompt.messages
    assert message.content == shown
    path = "messages[0].images" if is_chat else "images"
    assert [(medium.at, medium.field) for medium in message.media] == [
        (at, f"{path}[{number}]") for at, number in places
    ]
