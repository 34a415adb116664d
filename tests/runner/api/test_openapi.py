"""The OpenAPI document is asked against a live server: whatever is sent, no answer is a server error or untold."""

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
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from registry.store import ModelStore
from tests.fakes import FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon, serve
from tests.tiny_model import write_tiny_model

EXAMPLES = 12
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance)


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


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    store = ModelStore(folder / "models")
    with live(FakeDaemon(FakeSupervisor(answer("Hel", "lo")), store)) as base, httpx.Client(base_url=base) as client:
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


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_makes_a_server_error_or_gets_an_answer_that_was_not_described(label: str, base: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(OPERATIONS[label].as_strategy())
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "m"  # else nothing gets further than the look for the model
        case.call_and_validate(base_url=base, checks=CHECKS)

    ask()
