"""The requests of a soak: what clients of all dialects send, and what each answer has to be."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_SUBJECTS = ("bread", "the sea", "a clock", "llamas", "rain", "a bridge", "old books", "the moon", "glass", "a harbour")
_WORDS = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state", "night")
_SYSTEMS = tuple(f"You are assistant number {number}. " + " ".join(_WORDS) * 8 + "." for number in range(4))
_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer"},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
_TOOL: Json = {
    "name": "weather",
    "description": "Tells the weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}


class Wrong(Exception):
    """An answer is not what it has to be."""


@dataclass(frozen=True)
class Request:
    """One request, and how its client behaves."""

    number: int
    kind: str
    path: str
    body: Json
    check: Callable[[list[Json]], str | None] = lambda records: None
    """Of the records of the answer; raises Wrong, and may return a text that is the same for equal requests."""
    leaves_after: int | None = None
    """The client goes away after so many records."""
    status: int = 200


Maker = Callable[[random.Random, int, str], Request]


def make_requests(seed: int, count: int, model: str, embedder: str | None) -> list[Request]:
    """The same list for the same arguments; kinds in proportion to their weights, mixed."""
    choice = random.Random(seed)
    kinds = {kind: weight for kind, weight in WEIGHTS.items() if embedder or kind not in _EMBEDDINGS}
    chosen = choice.choices(list(kinds), weights=list(kinds.values()), k=count)
    names = {kind: embedder or model if kind in _EMBEDDINGS else model for kind in kinds}
    return [MAKERS[kind](choice, number, names[kind]) for number, kind in enumerate(chosen)]


# --- the dialects --------------------------------------------------------------------------------


def openai_chat(choice: random.Random, number: int, model: str) -> Request:
    body = {**_openai(choice, model), "stream": choice.random() < 0.7}
    return Request(number, "openai", "/v1/chat/completions", body, _openai_ends)


def ollama_chat(choice: random.Random, number: int, model: str) -> Request:
    body: Json = {"model": model, "messages": _messages(choice), "options": _options(choice)}
    if choice.random() < 0.3:
        body["stream"] = False
    return Request(number, "ollama chat", "/api/chat", body, _ollama_ends)


def ollama_generate(choice: random.Random, number: int, model: str) -> Request:
    body = {"model": model, "prompt": _question(choice), "options": _options(choice)}
    return Request(number, "ollama generate", "/api/generate", body, _ollama_ends)


def anthropic(choice: random.Random, number: int, model: str) -> Request:
    body: Json = {
        "model": model,
        "max_tokens": choice.randint(4, 32),
        "system": choice.choice(_SYSTEMS),
        "messages": [{"role": "user", "content": _question(choice)}],
        "stream": choice.random() < 0.7,
    }
    return Request(number, "anthropic", "/v1/messages", body, _anthropic_ends)


def completion(choice: random.Random, number: int, model: str) -> Request:
    body = {
        "model": model,
        "prompt": f"Once upon a time there was {choice.choice(_SUBJECTS)}",
        "max_tokens": choice.randint(2, 24),
        "stream": choice.random() < 0.5,
        "logprobs": choice.choice([None, 0, 3]),
        "echo": choice.random() < 0.2,
    }
    return Request(number, "completion", "/v1/completions", body, _openai_ends)


# --- what is special -----------------------------------------------------------------------------


def cancelled(choice: random.Random, number: int, model: str) -> Request:
    body = {**_openai(choice, model), "max_tokens": 200, "stream": True}
    return Request(number, "cancelled", "/v1/chat/completions", body, leaves_after=choice.choice([0, 1, 2, 5, 20]))


def schema(choice: random.Random, number: int, model: str) -> Request:
    body = {**_openai(choice, model), "max_tokens": choice.randint(8, 60), "stream": choice.random() < 0.5}
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA}}
    return Request(number, "schema", "/v1/chat/completions", body, _fits_schema)


def json_mode(choice: random.Random, number: int, model: str) -> Request:
    body: Json = {"model": model, "messages": _messages(choice), "options": _options(choice), "format": _SCHEMA}
    return Request(number, "ollama format", "/api/chat", body, _ollama_ends)


def tools(choice: random.Random, number: int, model: str) -> Request:
    body = {**_openai(choice, model), "max_tokens": 48, "stream": choice.random() < 0.5}
    body["tools"] = [{"type": "function", "function": _TOOL}]
    body["tool_choice"] = choice.choice(["auto", "required"])
    return Request(number, "tools", "/v1/chat/completions", body, _openai_ends)


def long_prompt(choice: random.Random, number: int, model: str) -> Request:
    words = " ".join(choice.choice(_WORDS) for _ in range(choice.randint(500, 2500)))
    body = {**_openai(choice, model), "messages": [{"role": "user", "content": words}], "max_tokens": 4, "stream": True}
    return Request(number, "long prompt", "/v1/chat/completions", body, _openai_ends)


def shared_system(choice: random.Random, number: int, model: str) -> Request:
    messages = [{"role": "system", "content": choice.choice(_SYSTEMS) * 3}]
    for _ in range(choice.randint(0, 3)):
        messages += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Nothing much."}]
    messages.append({"role": "user", "content": _question(choice)})
    body = {**_openai(choice, model), "messages": messages, "stream": True}
    return Request(number, "shared prefix", "/v1/chat/completions", body, _openai_ends)


def deterministic(choice: random.Random, number: int, model: str) -> Request:
    subject = choice.choice(_SUBJECTS[:3])
    messages = [{"role": "user", "content": f"Tell me about {subject}."}]
    body = {"model": model, "messages": messages, "deterministic": True, "seed": 7, "max_tokens": 12}
    return Request(number, f"deterministic {subject}", "/v1/chat/completions", body, _text_of)


def several(choice: random.Random, number: int, model: str) -> Request:
    count = choice.randint(2, 4)
    body = {**_openai(choice, model), "max_tokens": 12, "n": count}

    def check(records: list[Json]) -> None:
        _openai_ends(records)
        if len(records[0]["choices"]) != count:
            raise Wrong(f"{len(records[0]['choices'])} choices instead of {count}")

    return Request(number, "several answers", "/v1/chat/completions", body, check)


def refused(choice: random.Random, number: int, model: str) -> Request:
    wrong: Json = choice.choice(
        [{"temperature": "hot"}, {"no_such_field": 1}, {"max_tokens": -5}, {"messages": "hello"}, {"messages": []}]
    )
    return Request(number, "refused", "/v1/chat/completions", {**_openai(choice, model), **wrong}, status=400)


def embed(choice: random.Random, number: int, model: str) -> Request:
    inputs = [_question(choice) for _ in range(choice.randint(1, 6))]
    return Request(number, "embed", "/api/embed", {"model": model, "input": inputs}, _has_vectors(len(inputs)))


def embeddings(choice: random.Random, number: int, model: str) -> Request:
    inputs = [_question(choice) for _ in range(choice.randint(1, 6))]
    return Request(number, "embeddings", "/v1/embeddings", {"model": model, "input": inputs}, _has_vectors(len(inputs)))


MAKERS: Mapping[str, Maker] = {
    "openai": openai_chat,
    "ollama chat": ollama_chat,
    "ollama generate": ollama_generate,
    "anthropic": anthropic,
    "completion": completion,
    "cancelled": cancelled,
    "schema": schema,
    "ollama format": json_mode,
    "tools": tools,
    "long prompt": long_prompt,
    "shared prefix": shared_system,
    "deterministic": deterministic,
    "several answers": several,
    "refused": refused,
    "embed": embed,
    "embeddings": embeddings,
}
WEIGHTS: Mapping[str, int] = {
    "openai": 14, "ollama chat": 10, "ollama generate": 8, "anthropic": 10, "completion": 6, "cancelled": 14,
    "schema": 6, "ollama format": 4, "tools": 6, "long prompt": 4, "shared prefix": 8, "deterministic": 2,
    "several answers": 4, "refused": 4, "embed": 4, "embeddings": 4,
}  # fmt: skip
_EMBEDDINGS = ("embed", "embeddings")


def _openai(choice: random.Random, model: str) -> Json:
    return {
        "model": model,
        "messages": _messages(choice),
        "max_tokens": choice.randint(1, 40),
        "temperature": choice.choice([0, 0.7, 1.2]),
    }


def _options(choice: random.Random) -> Json:
    return {"num_predict": choice.randint(1, 40), "temperature": choice.choice([0, 0.8]), "seed": choice.randint(0, 99)}


def _messages(choice: random.Random) -> list[Json]:
    messages = [{"role": "user", "content": _question(choice)}]
    return [{"role": "system", "content": choice.choice(_SYSTEMS)}, *messages] if choice.random() < 0.4 else messages


def _question(choice: random.Random) -> str:
    return f"What do you know about {choice.choice(_SUBJECTS)}, in {choice.randint(1, 500)} words?"


# --- what answers have to be ---------------------------------------------------------------------


def _openai_ends(records: list[Json]) -> None:
    """Every choice has a reason why it ended, and a stream its last word."""
    is_stream = len(records) > 1
    if is_stream and records[-1] != {"done": True}:
        raise Wrong("the stream ended without [DONE]")
    wanted = {choice["index"] for record in records for choice in record.get("choices", ())}
    ended = {
        choice["index"] for record in records for choice in record.get("choices", ()) if choice.get("finish_reason")
    }
    if not wanted or wanted != ended:
        raise Wrong(f"of the choices {sorted(wanted)} only {sorted(ended)} have ended")


def _ollama_ends(records: list[Json]) -> None:
    if [record.get("done") for record in records].count(True) != 1 or records[-1].get("done") is not True:
        raise Wrong("the last record is not the one that says done")
    if not records[-1].get("done_reason"):
        raise Wrong("the last record gives no reason")


def _anthropic_ends(records: list[Json]) -> None:
    if len(records) == 1:
        if not records[0].get("stop_reason"):
            raise Wrong("the message has no stop_reason")
    elif records[0].get("type") != "message_start" or records[-1].get("type") != "message_stop":
        raise Wrong("the stream is not one whole message")


def _fits_schema(records: list[Json]) -> None:
    """Valid against the schema, or cut by its length."""
    _openai_ends(records)
    reasons = [choice.get("finish_reason") for record in records for choice in record.get("choices", ())]
    if "length" in reasons:
        return
    text = _content(records)
    try:
        person = json.loads(text)
    except ValueError:
        raise Wrong(f"this is no JSON: {text[:100]!r}") from None
    if (
        person.keys() != {"name", "age", "kind"}
        or person["kind"] not in ("a", "b")
        or not isinstance(person["age"], int)
    ):
        raise Wrong(f"this does not fit the schema: {text[:100]!r}")


def _text_of(records: list[Json]) -> str:
    _openai_ends(records)
    return _content(records)


def _content(records: Sequence[Json]) -> str:
    pieces = []
    for record in records:
        for choice in record.get("choices", ()):
            part = choice.get("delta") or choice.get("message") or {}
            pieces.append(part.get("content") or "")
    return "".join(pieces)


def _has_vectors(count: int) -> Callable[[list[Json]], None]:
    def check(records: list[Json]) -> None:
        [record] = records
        found = record.get("embeddings") or [entry["embedding"] for entry in record.get("data", ())]
        if len(found) != count or not all(found):
            raise Wrong(f"{len(found)} vectors instead of {count}")

    return check
