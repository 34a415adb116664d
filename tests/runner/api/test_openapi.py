"""The OpenAPI document against a live server: no answer is a server error or untold, and what it forbids is refused."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from registry.store import ModelStore
from runner.chat.types import ChatEvent, ChatRequest, Rendered
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon, serve
from tests.tiny_model import write_tiny_model

EXAMPLES = 10
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
)


@contextmanager
def live(daemon: FakeDaemon) -> Iterator[str]:
    """The app on a socket, in a thread of its own."""
    address: list[str] = []
    is_up, is_over = threading.Event(), threading.Event()

    async def run() -> None:
        async with serve(daemon.app()) as base:
            address.append(base)
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert is_up.wait(20)
        yield address[0]
    finally:
        is_over.set()
        thread.join()


def told(request: ChatRequest) -> list[ChatEvent]:
    """What the model tells, whatever it is asked."""
    return [Rendered("Hello", (1, 2), 100)] if request.is_render else answer("Hel", "lo")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    store = ModelStore(folder / "models")
    with live(FakeDaemon(FakeSupervisor(told), store)) as base, httpx.Client(base_url=base) as client:
        data = write_tiny_model(folder / "tiny.gguf").read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert client.post(f"/api/blobs/{digest}", content=data).status_code == 201
        created = client.post("/api/create", json={"model": "m", "files": {"m.gguf": digest}, "stream": False})
        assert created.status_code == 200, created.text
        yield base


DOCUMENT = schemathesis.openapi.from_dict(FakeDaemon().app().openapi())
OPERATIONS: dict[str, Any] = {
    operation.label: operation for found in DOCUMENT.get_all_operations() if (operation := cast("Any", found).ok())
}

HAS_MORE_RULES = frozenset(
    {
        "HEAD /api/blobs/{digest}",
        "POST /api/blobs/{digest}",
        "POST /api/chat",
        "POST /api/copy",
        "POST /api/create",
        "DELETE /api/delete",
        "POST /api/detokenize",
        "POST /api/embed",
        "POST /api/embeddings",
        "POST /api/generate",
        "GET /api/outdated",
        "POST /api/pull",
        "POST /api/push",
        "POST /api/render",
        "POST /api/rerank",
        "POST /api/show",
        "POST /api/tokenize",
        "POST /api/verify",
        "POST /v1/audio/transcriptions",
        "POST /v1/audio/translations",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/conversations",
        "POST /v1/embeddings",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "DELETE /v1/models/{model}",
        "POST /v1/rerank",
        "POST /v1/responses",
        "POST /v1/responses/input_tokens",
    }
)
"""Operations that refuse some of what their description allows, by rules that no schema can tell."""


def takes_anything_wrong(operation: Any) -> bool:
    """Whether there is a request for it that its description forbids."""
    media_types = operation.definition.raw.get("requestBody", {}).get("content", {})
    return bool(operation.query or "application/json" in media_types)


def ask_for_all_of(label: str, mode: GenerationMode, base: str, *checks: Any) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "m"  # else nothing gets further than the look for the model
        case.call_and_validate(base_url=base, checks=(*CHECKS, *checks))

    ask()


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_makes_a_server_error_or_gets_an_answer_that_was_not_described(label: str, base: str) -> None:
    checks = () if label in HAS_MORE_RULES else (positive_data_acceptance,)
    ask_for_all_of(label, GenerationMode.POSITIVE, base, *checks)


def test_only_operations_that_are_there_have_more_rules() -> None:
    assert OPERATIONS.keys() >= HAS_MORE_RULES


@pytest.mark.parametrize("label", [label for label in OPERATIONS if takes_anything_wrong(OPERATIONS[label])])
def test_what_the_description_forbids_is_refused(label: str, base: str) -> None:
    ask_for_all_of(label, GenerationMode.NEGATIVE, base)
