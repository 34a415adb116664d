"""API keys at the door: who is let in, for what, and that nobody meets what another has left here."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from fastapi import FastAPI

from runner.api.key_scopes import PATHS, scope_of
from runner.api_keys import KEY_FILE, KeyFile, KeyScope
from runner.chat.types import Priority
from runner.notation import parse_host
from runner.settings import AccessSettings, ServerSettings, Settings
from tests.fakes import FakeModel, FakeStore, FakeSupervisor, answer
from tests.runner.api.serving import FakeDaemon, serve
from tests.runner.api.test_standing import BODIES

OPEN = Settings(server=ServerSettings(address=parse_host("0.0.0.0:11434")))
INSECURE = Settings(server=OPEN.server, access=AccessSettings(insecure=True))
ALL = tuple(KeyScope)
SOUNDS = ("/v1/audio/transcriptions", "/v1/audio/translations")
WRONG = f"puna_{'0' * 8}_{'0' * 48}"


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / KEY_FILE)


def make(keys: KeyFile, name: str = "all", *scopes: KeyScope, is_background: bool = False) -> dict[str, str]:
    """A new key, as the header that carries it."""
    return bearer(keys.create(name, scopes or ALL, is_background=is_background)[1])


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def daemon(keys: KeyFile, settings: Settings = OPEN) -> FakeDaemon:
    return FakeDaemon(FakeSupervisor(answer("Hi")), settings=settings, keys=keys)


async def endpoint_of(app: FastAPI, method: str, path: str) -> object:
    """The function that takes a request, as the application itself finds it; None when there is none."""
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "root_path": "", "query_string": b"", "headers": [],
        "http_version": "1.1", "scheme": "http", "server": ("localhost", 11434), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return body.pop() if body else {"type": "http.disconnect"}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return None if statuses == [405] else scope.get("endpoint")


# --- who is let in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/api/tags", "/v1/models", "/v1/messages", "/openapi.json", "/nothing"]
)
@pytest.mark.parametrize(
    "headers", [{}, bearer(WRONG), bearer("none"), {"x-api-key": "sk-1"}, {"Authorization": "Basic eA=="}]
)
async def test_where_others_can_come_every_path_needs_a_key(keys: KeyFile, path: str, headers: dict[str, str]) -> None:
    make(keys)
    async with daemon(keys).client() as client:
        answered = await client.get(path, headers=headers)
    body = answered.json()
    error = body["error"] if path.startswith("/v1/") else body
    assert (answered.status_code, error["code"]) == (401, "unauthorized")
    assert answered.headers["www-authenticate"].startswith("Bearer")
    assert answered.headers["x-request-id"]
    message = error["message"] if path.startswith("/v1/") else error["error"]
    assert ("needed" in message) == (not headers or "Basic" in str(headers))
    assert "puna key create" in message


async def test_each_dialect_says_it_in_its_own_words(keys: KeyFile) -> None:
    infer = make(keys, "infer", KeyScope.INFER)
    asked = {"messages": [{"role": "user", "content": "Hi"}], "model": "m", "max_tokens": 9}
    async with daemon(keys).client() as client:
        plain, theirs, other = [
            await client.post(path, json=asked) for path in ("/api/chat", "/v1/chat/completions", "/v1/messages")
        ]
        no_list = await client.get("/api/tags", headers=infer)
        no_models = await client.get("/v1/models", headers=infer)
        no_page = await client.get("/v1/models", headers={**infer, "anthropic-version": "2023-06-01"})
    assert plain.json()["code"] == "unauthorized"
    assert theirs.json()["error"]["type"] == "authentication_error"
    assert other.json()["error"]["type"] == "authentication_error"
    assert {answered.status_code for answered in (no_list, no_models, no_page)} == {403}
    assert (no_list.json()["code"], no_list.json()["scope"]) == ("forbidden", "read")
    assert (no_models.json()["error"]["type"], no_models.json()["error"]["scope"]) == ("permission_error", "read")
    assert (no_page.json()["error"]["type"], no_page.json()["error"]["code"]) == ("permission_error", "forbidden")


async def test_a_key_counts_under_either_name_and_beside_others(keys: KeyFile) -> None:
    text = make(keys)["Authorization"].removeprefix("Bearer ")
    shown = [
        bearer(text), {"authorization": f"bearer   {text} "}, {"x-api-key": text}, {"X-API-Key": f" {text}"},
        {**bearer("none"), "x-api-key": text}, {**bearer(text), "x-api-key": "none"},
    ]  # fmt: skip
    async with daemon(keys).client() as client:
        assert [(await client.get("/api/tags", headers=headers)).status_code for headers in shown] == [200] * len(shown)
        for headers in ({"Authorization": text}, {"Authorization": f"Basic {text}"}, {"api-key": text}):
            assert (await client.get("/api/tags", headers=headers)).status_code == 401
        assert (await client.get(f"/api/tags?api_key={text}")).status_code == 401


async def test_hosts_and_origins_are_checked_with_a_key_too_and_pages_may_read_what_is_refused(keys: KeyFile) -> None:
    key = make(keys)
    async with daemon(keys).client() as client:
        stranger = await client.get("/api/tags", headers={**key, "host": "evil.example.com"})
        page = await client.get("/api/tags", headers={**key, "origin": "https://evil.example.com"})
        refused = await client.get("/api/tags", headers={"origin": "http://localhost:3000"})
        preflight = await client.options("/api/tags", headers={"origin": "http://localhost:3000"})
    assert (stranger.status_code, page.status_code, refused.status_code, preflight.status_code) == (403, 403, 401, 204)
    assert refused.headers["access-control-allow-origin"] == "http://localhost:3000"


@pytest.mark.parametrize("settings", [Settings(), INSECURE])
@pytest.mark.parametrize("headers", [{}, bearer("none"), bearer(WRONG), {"x-api-key": "ollama"}])
async def test_where_none_is_needed_any_text_will_do(
    keys: KeyFile, settings: Settings, headers: dict[str, str]
) -> None:
    make(keys)
    async with daemon(keys, settings).client() as client:
        assert (await client.get("/api/tags", headers=headers)).status_code == 200


async def test_a_known_key_is_itself_where_none_is_needed(keys: KeyFile) -> None:
    infer = make(keys, "infer", KeyScope.INFER)
    async with daemon(keys, Settings()).client() as client:
        assert (await client.get("/api/tags", headers=infer)).status_code == 403
        keys.remove("infer")
        assert (await client.get("/api/tags", headers=infer)).status_code == 200


async def test_a_key_is_good_until_it_is_removed(keys: KeyFile) -> None:
    other = make(keys, "other")
    async with daemon(keys).client() as client:
        key = make(keys, "new")
        assert (await client.get("/api/tags", headers=key)).status_code == 200
        keys.remove("new")
        assert (await client.get("/api/tags", headers=key)).status_code == 401
        assert (await client.get("/api/tags", headers=other)).status_code == 200
        keys.path.unlink()
        assert (await client.get("/api/tags", headers=other)).status_code == 401


async def test_keys_that_cannot_be_read_let_nobody_in_and_name_no_path(
    keys: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    key = make(keys)
    keys.path.write_text("{")
    async with daemon(keys).client() as client:
        refused, unknown = await client.get("/api/tags", headers=key), await client.get("/api/tags")
    assert (refused.status_code, refused.json()["code"], unknown.status_code) == (500, "internal", 401)
    assert str(keys.path) not in refused.text
    assert str(keys.path) in caplog.text


# --- what for --------------------------------------------------------------------------------------


async def test_every_path_says_what_it_needs_and_none_that_is_not_there_does() -> None:
    app = FakeDaemon().app()
    document: dict[str, dict[str, object]] = app.openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in document.items() for method in methods}
    listed = [line for lines in PATHS.values() for line in lines]
    plain = {line.replace("{model}", "{model:path}") for line in served} | {"GET /openapi.json"}
    assert len(set(listed)) == len(listed)
    assert set(listed) - plain == {"POST /api/bench"}, "which is there where speed can be measured"
    assert plain <= set(listed)


def test_what_changes_something_here_cannot_be_done_with_a_key_for_reading() -> None:
    harmless = {"POST /api/show"}
    for line in PATHS[KeyScope.READ]:
        assert line.startswith("GET ") or line in harmless


LINES = {line: scope for scope, lines in PATHS.items() for line in lines if line != "POST /api/bench"}
PARTS = (
    "api", "v1", "models", "delete", "chat", "blobs", "conversations", "items", "responses", "x", "", ".", "..", "\n",
    "%0a", "completions", "cancel", "sha256:0", "a b", "\u00e4", "tags\n", "delete\n", "pull\n", "m\n", "input_items",
)  # fmt: skip
ENDS = ("", "\n", "/", " ", "\n\n", "\r\n", "\u2028", "/x", "\x00")


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


async def test_however_a_path_is_spelled_it_needs_what_its_route_needs() -> None:
    app = FakeDaemon().app()
    needs: dict[object, KeyScope | None] = {}
    for line, scope in LINES.items():
        method, _, path = line.partition(" ")
        endpoint = await endpoint_of(app, method, filled(path))
        assert endpoint is not None and needs.setdefault(endpoint, scope) == scope, line
    assert None not in needs
    paths = {filled(line.partition(" ")[2]) + end for line in LINES for end in ENDS}
    chance = random.Random(1)
    paths |= {"/" + "/".join(chance.choices(PARTS, k=chance.randint(0, 6))) for _ in range(300)}
    spelled = 0
    for path in sorted(paths):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            endpoint = await endpoint_of(app, method, path)
            if endpoint in needs:
                assert scope_of(method, path) == needs[endpoint], (method, path)
                spelled += 1
    assert spelled > len(LINES), "a line's end can be spelled in more ways than one"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (KeyScope.INFER, {"/api/chat"}),
        (KeyScope.READ, {"/api/ps"}),
        (KeyScope.MANAGE, {"/api/delete", "/api/blobs/sha256:0", "/api/delete%0A"}),
    ],
)
async def test_a_key_opens_what_it_is_for_and_nothing_else(keys: KeyFile, scope: KeyScope, allowed: set[str]) -> None:
    headers = make(keys, "one", scope)
    tries = {"/api/chat": "POST", "/api/ps": "GET", "/api/delete": "DELETE", "/api/blobs/sha256:0": "HEAD"}
    async with daemon(keys).client() as client:
        for path, method in {**tries, "/api/delete%0A": "DELETE"}.items():
            status = (await client.request(method, path, headers=headers)).status_code
            assert (status == 403) == (path not in allowed), (path, status)
        for path in ("/", "/api/version", "/healthz"):
            assert (await client.get(path, headers=headers)).status_code == 200
        assert (await client.get("/nothing", headers=headers)).status_code == 404


async def test_the_official_clients_come_in_with_a_key_and_tell_that_they_cannot(keys: KeyFile) -> None:
    text = make(keys)["Authorization"].removeprefix("Bearer ")
    turn: list[Any] = [{"role": "user", "content": "Hello"}]
    async with serve(daemon(keys).app()) as base:
        for key, is_known in ((text, True), (WRONG, False)):
            async with (
                openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0) as theirs,
                anthropic.AsyncAnthropic(base_url=base, api_key=key, max_retries=0) as by_header,
                anthropic.AsyncAnthropic(base_url=base, auth_token=key, max_retries=0) as by_token,
                ollama.AsyncClient(host=base, headers=bearer(key)) as ollamas,
            ):
                first = theirs.chat.completions.create(model="m", messages=turn)
                second = by_header.messages.create(model="m", max_tokens=9, messages=turn)
                third = by_token.messages.create(model="m", max_tokens=9, messages=turn)
                fourth = ollamas.chat("m", turn)
                if is_known:
                    assert (await first).choices[0].message.content == "Hi"
                    assert [part.text for part in (await second).content if part.type == "text"] == ["Hi"]
                    assert (await third).usage.output_tokens == 2
                    assert (await fourth).message.content == "Hi"
                    continue
                with pytest.raises(openai.AuthenticationError) as openai_error:
                    await first
                assert openai_error.value.code == "unauthorized"
                for asked in (second, third):
                    with pytest.raises(anthropic.AuthenticationError):
                        await asked
                with pytest.raises(ollama.ResponseError, match="not known here") as ollama_error:
                    await fourth
                assert ollama_error.value.status_code == 401


# --- nobody meets what another has left here -------------------------------------------------------


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("settings", [OPEN, Settings()])
async def test_what_a_request_may_share_is_said_by_its_key(keys: KeyFile, path: str, settings: Settings) -> None:
    headers = make(keys, "first")
    fake = daemon(keys, settings)
    async with fake.client() as client:
        answered = await client.post(path, json={"model": "m", "stream": False, **BODIES[path]}, headers=headers)
    assert answered.status_code == 200, answered.text
    assert fake.supervisor.request.cache_scope == keys.read()[0].id


@pytest.mark.parametrize("path", BODIES)
async def test_a_text_that_is_no_key_chooses_nothing(keys: KeyFile, path: str) -> None:
    key_id = keys.create("somebody", ALL)[0].id
    for text in ("none", key_id, WRONG, f"puna_{key_id}_{'0' * 48}"):
        fake = daemon(keys, Settings())
        async with fake.client() as client:
            body = {"model": "m", "stream": False, **BODIES[path]}
            answered = await client.post(path, json=body, headers={**bearer(text), "x-api-key": text})
        assert answered.status_code == 200, answered.text
        assert fake.supervisor.request.cache_scope == ""


@pytest.mark.parametrize("path", SOUNDS)
async def test_what_a_sound_may_share_is_said_by_its_key(keys: KeyFile, path: str) -> None:
    headers = make(keys)
    fake = daemon(keys)
    fake.store = FakeStore(FakeModel(can=("completion", "audio")))
    sound = {"file": ("a.wav", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav")}
    async with fake.client() as client:
        answered = await client.post(path, data={"model": "m"}, files=sound, headers=headers)
    assert answered.status_code == 200, answered.text
    assert fake.supervisor.request.cache_scope == keys.read()[0].id


def test_every_path_that_answers_with_a_model_has_been_looked_at() -> None:
    without_an_answer = {
        "/api/detokenize", "/api/embed", "/api/embeddings", "/api/render", "/api/rerank", "/api/tokenize",
        "/v1/conversations", "/v1/embeddings", "/v1/messages/count_tokens", "/v1/rerank", "/v1/responses/input_tokens",
    }  # fmt: skip
    posts = {line.removeprefix("POST ") for line in PATHS[KeyScope.INFER] if line.startswith("POST ")}
    assert {path for path in posts if "{" not in path} == {*without_an_answer, *SOUNDS, *BODIES}


async def test_kept_responses_and_conversations_are_found_with_their_own_key_alone(keys: KeyFile) -> None:
    mine, theirs = make(keys, "mine"), make(keys, "theirs")
    async with daemon(keys).client() as client:
        response = (await client.post("/v1/responses", json={"model": "m", "input": "Hi"}, headers=mine)).json()
        conversation = (await client.post("/v1/conversations", json={}, headers=mine)).json()
        for path in (f"/v1/responses/{response['id']}", f"/v1/conversations/{conversation['id']}"):
            assert (await client.get(path, headers=mine)).status_code == 200
            for call in (client.get(path, headers=theirs), client.delete(path, headers=theirs)):
                assert (await call).status_code == 404
        body = {"model": "m", "input": "And?", "previous_response_id": response["id"]}
        assert (await client.post("/v1/responses", json=body, headers=theirs)).status_code == 404
        assert (await client.post("/v1/responses", json=body, headers=mine)).status_code == 200


@pytest.mark.parametrize("path", BODIES)
async def test_a_key_for_the_background_lets_others_go_first(keys: KeyFile, path: str) -> None:
    headers = make(keys, "batch", is_background=True)
    fake = daemon(keys)
    body = {"model": "m", "stream": False, **BODIES[path]}
    async with fake.client() as client:
        assert (await client.post(path, json=body, headers=headers)).status_code == 200
        assert fake.supervisor.request.priority is Priority.BACKGROUND
        urged = await client.post(path, json=body, headers={**headers, "X-Puna-Priority": "interactive"})
        same = await client.post(path, json=body, headers={**headers, "X-Puna-Priority": "background"})
    assert (urged.status_code, same.status_code) == (403, 200)
