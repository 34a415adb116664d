"""What becomes of each field that the official clients can send: honoured, refused, or ignored with a header."""

from __future__ import annotations

import asyncio
import enum
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from runner.chat.types import ChatEvent, ChatRequest, Finished, FinishReason, Rendered, Started, TextDelta, Usage
from runner.tasks import EmbedTask, Encoded, Task, Vectors
from tests.compatibility.samples import Method
from tests.fakes import PATIENCE, FakeModel, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon


class Outcome(enum.StrEnum):
    HONOURED = "honoured"
    REFUSED = "refused"
    IGNORED = "ignored, and told so"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Row:
    """One value of one field."""

    field: str
    value: str
    outcome: Outcome
    reason: str = ""


async def rows_of(method: Method) -> list[Row]:
    """A row for every sample of a method, in the order of the fields' names."""
    rows = []
    async with Asker(method) as asker:
        for name in sorted(method.fields):
            base = method.base | method.context.get(name, {})
            without = await asker.ask(base)
            for value in method.samples[name]:
                rows.append(_row(name, value, base, without, await asker.ask(base | {name: value})))  # noqa: PERF401
    return rows


def rendered(tables: list[tuple[Method, list[Row]]], nested: list[tuple[Method, list[Row]]]) -> str:
    """The matrix as a page of Markdown."""
    lines = [
        "# Compatibility",
        "",
        "What becomes of every field that the official Python clients can send. This page is written by",
        "`tests/compatibility`, which sends each of these values and fails for any that is dropped in silence.",
        "",
        "* **honoured**: it changes what is asked of the model, or what is answered; but for the parts that are named,",
        "  which are ignored, and told so.",
        "* **refused**: the request ends with an error that names the field.",
        "* **ignored, and told so**: it cannot matter here; the response lists it in `X-Puna-Ignored`.",
    ]
    for method, rows in tables:
        lines += ["", f"## {method.client}: `{method.name}`", "", "| field | value | outcome |", "| --- | --- | --- |"]
        lines += [f"| `{row.field}` | `{row.value}` | {row.outcome.value}{row.reason} |" for row in rows]
    for method, rows in nested:
        lines += ["", f"## {method.client}: within the fields of `{method.name}`", ""]
        lines += ["Each is taken out of a request that has it, and something changes.", ""]
        lines += ["| field | outcome |", "| --- | --- |"]
        lines += [f"| `{row.field}` | {row.outcome.value} |" for row in rows]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Answer:
    status: int
    ignored: tuple[str, ...]
    code: str
    told: object
    """What the model was asked, how it was loaded and what came back; without what differs from run to run."""


class Asker:
    """Sends bodies to one daemon and keeps what each came to."""

    def __init__(self, method: Method, also: tuple[str, ...] = ()) -> None:
        """`also`: what the model can beside what every model of these tests can."""
        self._path = method.path
        self._is_form = method.is_form
        self._supervisor = FakeSupervisor(_script)
        self._supervisor.task_script = _vectors
        also = ("audio",) if method.is_form else also
        model = FakeModel(can=("completion", "tools", "thinking", *also))
        self._client = FakeDaemon(self._supervisor, FakeStore(model)).client()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, body: dict[str, Any]) -> _Answer:
        supervisor = self._supervisor
        for recorded in (supervisor.requests, supervisor.tasks, supervisor.specs, supervisor.keep_alives):
            recorded.clear()
        how: dict[str, Any] = {"files": _form(body)} if self._is_form else {"json": body}
        response = await self._client.post(self._path, **how)
        if body.get("background") and response.status_code == 200:
            await self._until_made(response.json()["id"])
        ignored = response.headers.get("x-puna-ignored", "")
        asked = [msgspec.to_builtins(one) for one in (*supervisor.requests.values(), *supervisor.tasks.values())]
        how_loaded = ([spec.wishes for spec in supervisor.specs], list(supervisor.keep_alives))
        told = (asked, how_loaded, _kind(response), await self._items_read(response))
        return _Answer(response.status_code, tuple(filter(None, ignored.split(", "))), _code(response), told)

    async def _items_read(self, response: httpx.Response) -> object:
        """What a response of the Responses API says that it has read."""
        if response.status_code != 200 or (found := _RESPONSE_ID.search(response.text)) is None:
            return None
        listed = (await self._client.get(f"/v1/responses/{found['id']}/input_items")).text
        return _MADE_ID.sub("", listed)

    async def _until_made(self, response_id: str) -> None:
        """What is asked of the model in the background is not to be taken for what the next body asks."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if (await self._client.get(f"{self._path}/{response_id}")).json()["status"] == "completed":
                    return
                await asyncio.sleep(0)


def _form(body: dict[str, Any]) -> list[tuple[str, tuple[str | None, str]]]:
    """The fields as the client writes them: items of arrays and objects each under the name with brackets."""
    fields: list[tuple[str, tuple[str | None, str]]] = []
    for name, value in body.items():
        if isinstance(value, dict):
            fields += [(f"{name}[{key}]", (None, str(one))) for key, one in value.items()]
        elif isinstance(value, list):
            fields += [(f"{name}[]", (None, str(one))) for one in value]
        else:
            text = json.dumps(value) if isinstance(value, bool) else str(value)
            fields.append((name, ("a.wav" if name == "file" else None, text)))
    return fields


def _script(request: ChatRequest) -> list[ChatEvent]:
    if request.is_render:
        return [Rendered("Hello", (1, 2, 3), 100)]
    usage = Usage(prompt_tokens=3, cached_tokens=0, completion_tokens=1, queued_ns=1, prompt_ns=1, decode_ns=1)
    return [Started(3, 0), TextDelta("Hi"), Finished(reason=FinishReason.STOP, usage=usage, seed=1)]


def _vectors(task: Task) -> list[ChatEvent]:
    assert isinstance(task, EmbedTask)
    vector = struct.pack("<2f", 1.0, 0.0)
    return [Vectors(tuple((index, vector) for index in range(len(task.inputs)))), Encoded(prompt_tokens=3)]


def _row(name: str, value: Any, base: dict[str, Any], without: _Answer, with_field: _Answer) -> Row:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 90 else f"{shown[:87]}…"
    shown = shown.replace("|", "\\|")
    assert with_field.status < 500, (name, value, with_field.told)
    if with_field.status >= 400:
        return Row(name, shown, Outcome.REFUSED, f" (`{with_field.code}`)")
    vain = [listed for listed in with_field.ignored if _is_in(listed, name)]
    is_default = value == base.get(name) or value in _DEFAULTS.get(name, ())
    if name in vain or (vain and with_field.told == without.told):
        return Row(name, shown, Outcome.IGNORED)
    if with_field.told != without.told or is_default:
        return Row(name, shown, Outcome.HONOURED, f", but {', '.join(f'`{one}`' for one in vain)}" if vain else "")
    return Row(name, shown, Outcome.DROPPED)


def _is_in(path: str, name: str) -> bool:
    """Whether what a path stands for is a field of this name, or within it."""
    return path == name or path.startswith((f"{name}.", f"{name}["))


_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "model": ("m",),
    "think": (False,),
    "reasoning_effort": ("none",),
    "thinking": ({"type": "disabled"},),
    "response_format": ({"type": "text"}, "json"),
    "text": ({"format": {"type": "text"}},),
    "tool_choice": ("auto", {"type": "auto"}),
    "function_call": ("auto",),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "encoding_format": ("float",),
    "truncate": (False,),
    "truncation": ("disabled",),
    "background": (False,),
    "store": (True,),
    "context_management": ([],),
    "mcp_servers": ([],),
    "metadata": ({},),
    "reasoning": ({"effort": "none"},),
    "chunking_strategy": ("auto",),
}
"""Values that ask for what happens anyway."""


def _kind(response: httpx.Response) -> tuple[str, object]:
    """What of an answer a field may change: its type, and what is in it."""
    text = response.text
    try:
        content: object = _lasting(response.json())
    except ValueError:
        content = (sorted({line.split(":", 1)[0] for line in text.splitlines()}), '"usage"' in text)
    return response.headers.get("content-type", ""), content


def _lasting(value: object) -> object:
    """A document without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in _FLEETING}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


_RESPONSE_ID = re.compile(r'"id":"(?P<id>resp_[0-9a-f]{48})"')
_MADE_ID = re.compile(r"[a-z]+_[0-9a-f]{48}")
_FLEETING = frozenset({"id", "created", "created_at", "completed_at", "total_duration", "load_duration", "request_id"})


def _code(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return ""
    found = body.get("code") or (body.get("error", {}).get("code") if isinstance(body.get("error"), dict) else "")
    return str(found)
