"""Every method of the official clients: found in the clients themselves, and which of them make no sense here."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import ollama
import openai


@dataclass(frozen=True, order=True)
class Method:
    """One method of a client, by the names that lead to it."""

    client: str
    path: str
    can_stream: bool
    """Whether the caller says if the answer comes as a stream."""


@functools.cache
def methods() -> tuple[Method, ...]:
    """Those of the clients that wait; the test of this module holds the asynchronous ones to the same."""
    with openai.OpenAI(api_key="none") as first, anthropic.Anthropic(api_key="none") as second:
        found = [*_resources("openai", first), *_resources("anthropic", second)]
    return tuple(sorted([*_own("ollama", ollama.Client, ""), *found]))


@functools.cache
def async_methods() -> tuple[Method, ...]:
    async def find() -> list[Method]:
        async with openai.AsyncOpenAI(api_key="none") as first, anthropic.AsyncAnthropic(api_key="none") as second:
            return [*_resources("openai", first), *_resources("anthropic", second)]

    return tuple(sorted([*_own("ollama", ollama.AsyncClient, ""), *asyncio.run(find())]))


def _resources(client: str, root: object) -> Iterator[Method]:
    """Walks level by level, so that a resource with two names is found under the shorter one."""
    seen: set[type] = set()
    level = [("", root)]
    while level:
        deeper = []
        for prefix, holder in level:
            for name, child in _children(holder):
                if type(child) not in seen:
                    seen.add(type(child))
                    deeper.append((f"{prefix}{name}.", child))
                    yield from _own(client, type(child), f"{prefix}{name}.")
        level = deeper


def _children(holder: object) -> Iterator[tuple[str, object]]:
    for name in sorted(dir(type(holder))):
        found = inspect.getattr_static(type(holder), name)
        if isinstance(found, functools.cached_property) and not name.startswith(("_", "with_")):
            yield name, getattr(holder, name)


def _own(client: str, holder: type[Any], prefix: str) -> Iterator[Method]:
    for name in sorted(dir(holder)):
        found = inspect.getattr_static(holder, name)
        if name.startswith("_") or not inspect.isfunction(found):
            continue
        yield Method(client, prefix + name, "stream" in inspect.signature(found).parameters)


_ELSEWHERE = "an account and a service of its own that is not a model"
_NO_WEIGHTS = "no model that runs here can do it"
_LATER = "work for later; requests with `X-Puna-Priority: background` stand back here"
_SEALED = "gives a text that only its maker's servers can read"
_SOCKET = "a second way to do the same, over a web socket"

NOT_HERE: dict[str, dict[str, str]] = {
    "ollama": {
        "close": "sends nothing",
        "systemone": "wants a kind of model that the engine does not have",
        "web_fetch": "asks a service on the Internet",
        "web_search": "asks a service on the Internet",
    },
    "openai": {
        "admin": _ELSEWHERE,
        "audio.speech": _NO_WEIGHTS,
        "audio.voice_consents": _NO_WEIGHTS,
        "audio.voices": _NO_WEIGHTS,
        "batches": _LATER,
        "beta.agents": _ELSEWHERE,
        "beta.assistants": "withdrawn by its maker in favour of responses",
        "beta.chatkit": _ELSEWHERE,
        "beta.realtime": "sound in both directions over a socket",
        "beta.threads": "withdrawn by its maker in favour of responses",
        "chat.completions.delete": "chat completions are not kept; responses are",
        "chat.completions.list": "chat completions are not kept; responses are",
        "chat.completions.messages": "chat completions are not kept; responses are",
        "chat.completions.retrieve": "chat completions are not kept; responses are",
        "chat.completions.update": "chat completions are not kept; responses are",
        "beta.responses.compact": _SEALED,
        "beta.responses.connect": _SOCKET,
        "containers": _ELSEWHERE,
        "content_provenance_checks": _ELSEWHERE,
        "decisions": _ELSEWHERE,
        "evals": _ELSEWHERE,
        "files": _ELSEWHERE,
        "fine_tuning": "models are not trained here",
        "images": _NO_WEIGHTS,
        "live": "sound in both directions over a socket",
        "moderations": _NO_WEIGHTS,
        "realtime": "sound in both directions over a socket",
        "responses.compact": _SEALED,
        "responses.connect": _SOCKET,
        "safety": _ELSEWHERE,
        "skills": _ELSEWHERE,
        "uploads": _ELSEWHERE,
        "vector_stores": _ELSEWHERE,
        "videos": _NO_WEIGHTS,
        "webhooks": _ELSEWHERE,
    },
    "anthropic": {
        "beta": _ELSEWHERE,
        "beta.messages.batches": _LATER,
        "beta.messages.thread": "conversations are the client's to keep",
        "files": _ELSEWHERE,
        "messages.batches": _LATER,
        "organization": _ELSEWHERE,
        "skills": _ELSEWHERE,
        "user_profiles": _ELSEWHERE,
    },
}
"""Methods, or all below a name, that have no place here, and why."""


HERE: dict[str, tuple[str, ...]] = {
    "ollama": (),
    "openai": (),
    "anthropic": ("beta.messages", "beta.models"),
}
"""What is built, below a name that is not."""


def entry_of(method: Method) -> str | None:
    """The longest name in NOT_HERE that stands for a method; None for one that has to be tried."""
    parts = method.path.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in NOT_HERE[method.client]:
            return name
        if name in HERE[method.client]:
            return None
    return None


def rendered() -> str:
    """What the page on compatibility says of whole methods."""
    lines = [
        "",
        "## Methods that are not built",
        "",
        "Every other method of the clients, asynchronous or not, is called in `tests/end_to_end` against a real model,",
        "streamed and not. A test fails when a client gains a method that is neither called there nor told here.",
        "",
        "| client | methods | why |",
        "| --- | --- | --- |",
    ]
    for client, entries in NOT_HERE.items():
        for reason in dict.fromkeys(entries.values()):
            names = ", ".join(_told(client, name) for name, why in entries.items() if why == reason)
            lines.append(f"| {client} | {names} | {reason} |")
    return "\n".join(lines) + "\n"


def _told(client: str, name: str) -> str:
    if any(method.client == client and method.path == name for method in methods()):
        return f"`{name}`"
    kept = [f"`{one}`" for one in HERE[client] if one.startswith(f"{name}.")]
    return f"`{name}.*`" + (f" (but {' and '.join(kept)})" if kept else "")
