"""Every code has its status, and every dialect its shape."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runner.errors import InsufficientMemory, QueueFull, ReportedError, ServerShutdown
from tests.fakes import FakeModel, FakeStore, FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STATUSES = {
    "invalid_request": 400, "invalid_json": 400, "invalid_encoding": 400, "too_deep": 400, "unsupported": 400,
    "constraint_invalid": 400, "context_length_exceeded": 400, "unauthorized": 401, "forbidden": 403,
    "host_forbidden": 403, "origin_forbidden": 403, "registry_forbidden": 403, "body_too_large": 413,
    "rate_limited": 429, "queue_full": 503, "server_shutdown": 503, "model_not_found": 404, "model_invalid": 422,
    "model_corrupt": 500, "insufficient_memory": 507, "disk_full": 507, "store_read_only": 409, "model_in_use": 409,
    "registry_unreachable": 502, "registry_error": 502, "digest_mismatch": 502, "engine_crashed": 500, "internal": 500,
    "deadline_exceeded": 504, "some_future_code": 500,
}  # fmt: skip


@pytest.mark.parametrize(("code", "status"), STATUSES.items())
async def test_a_code_has_its_status_in_both_dialects(code: str, status: int) -> None:
    daemon = FakeDaemon()
    daemon.supervisor.lease_error = ReportedError(code, "What happened.", {"needed": 7, "error": "x", "code": "y"})
    async with daemon.client() as client:
        ollama = await client.post("/api/chat", json=CHAT, headers={"x-request-id": "my-id"})
        openai = await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "my-id"})
    assert (ollama.status_code, openai.status_code) == (status, status)
    told = ollama.json()
    assert (told["error"], told["code"], told["request_id"], told["needed"]) == ("What happened.", code, "my-id", 7)
    kinds = {400: "invalid_request", 401: "authentication", 403: "permission", 404: "not_found"}
    kind = f"{kinds.get(status, 'api')}_error"
    assert openai.json() == {
        "error": {
            "message": "What happened.", "type": kind, "param": None, "code": code, "request_id": "my-id",
            "needed": 7, "error": "x",
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (QueueFull("full"), "2"),
        (ServerShutdown("x", retry_after_seconds=7), "7"),
        (InsufficientMemory("x"), None),
    ],
)
async def test_what_passes_says_when_to_come_back(error: Exception, seconds: str | None) -> None:
    daemon = FakeDaemon()
    daemon.supervisor.lease_error = error
    async with daemon.client() as client:
        response = await client.post("/api/chat", json=CHAT)
    assert response.headers.get("retry-after") == seconds


@pytest.mark.parametrize("path", ["/api/nothing", "/nothing", "/api/chat/", "/v1/nothing", "/api/../etc/passwd"])
async def test_an_unknown_path_is_told_in_its_dialect(path: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.get(path)
    body: dict[str, Any] = response.json()
    error = body["error"] if path.startswith("/v1/") else body
    assert (response.status_code, error["code"]) == (404, "not_found")


@pytest.mark.parametrize(("path", "allow"), [("/api/chat", "POST"), ("/api/delete", "DELETE")])
async def test_a_wrong_method_tells_the_right_one(path: str, allow: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.json()["code"] == "method_not_allowed"


async def test_a_request_id_is_kept_when_it_is_sound() -> None:
    async with FakeDaemon().client() as client:
        for given in ("abc-123", "x" * 128, "a:b/c_d.e"):
            response = await client.get("/api/version", headers={"x-request-id": given})
            assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"\xc3\xa4", b"a\tb"])
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    async with FakeDaemon().client() as client:
        response = await client.get("/api/version", headers={b"x-request-id": given})
    assert re.fullmatch(r"req_[0-9a-f]{24}", response.headers["x-request-id"])


async def test_every_answer_has_a_different_id() -> None:
    async with FakeDaemon(FakeSupervisor(answer("Hi"))).client() as client:
        answers = [await client.post("/v1/chat/completions", json=CHAT) for _ in range(20)]
    assert len({response.json()["id"] for response in answers}) == 20
    assert len({response.headers["x-request-id"] for response in answers}) == 20


async def test_a_fault_of_ours_anywhere_is_told_without_details(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenStore(FakeStore):
        def models(self) -> list[FakeModel]:
            raise OSError("/home/somebody/secret")

    async with FakeDaemon(store=BrokenStore()).client() as client:
        for path in ("/api/tags", "/v1/models"):
            response = await client.get(path)
            assert response.status_code == 500
            assert "secret" not in response.text
            body = response.json()
            error = body["error"] if path == "/v1/models" else body
            assert (error["code"], error["request_id"]) == ("internal", response.headers["x-request-id"])
            assert response.headers["x-request-id"] in caplog.text
    assert caplog.text.count("secret") >= 2


async def test_a_host_without_a_name_in_the_settings_is_healthy() -> None:
    async with FakeDaemon().client() as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/api/status")).json() == {"cloud": {"disabled": True, "source": "none"}}
