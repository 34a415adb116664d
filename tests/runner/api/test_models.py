"""The paths about models: listing, showing, copying, deleting and creating."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from registry.errors import ModelInvalid
from registry.name import ModelName
from registry.progress import Progress
from registry.store import ModelStore
from runner.messages import Stats
from runner.supervisor.types import MemoryFacts, ModelSpec, ModelState, ModelStatus
from tests.fakes import LOADED, FakeModel, FakePuller, FakeStore, FakeSupervisor
from tests.runner.api.serving import FakeDaemon, connection
from tests.tiny_model import write_tiny_model

SPEC = ModelSpec(
    name="m:latest",
    digest="ab" * 32,
    weights_digest="sha256:" + "cd" * 32,
    path=Path("model"),
    memory=MemoryFacts(1000, 10, 8192),
    details={"family": "llama"},
)


def row(
    state: ModelState = ModelState.READY, *, is_loaded: bool = True, expires_at: datetime | None = None
) -> ModelStatus:
    return ModelStatus(
        spec=SPEC,
        state=state,
        loaded=LOADED if is_loaded else None,
        expires_at=expires_at,
        leases=1,
        restarts=2,
        last_reload_reason="num_ctx 2048 → 4096",
        stats=Stats(3, 4, 100, 5, 60, 7, 8_000_000_000, 7_900_000_000, 0) if is_loaded else None,
        load_fraction=1.0 if is_loaded else 0.25,
        largest_context=8192,
        memory={"weights": 600, "kv_cache": 400},
        growths=2,
        grown_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


@pytest.fixture
def tiny(tmp_path: Path) -> bytes:
    return write_tiny_model(tmp_path / "tiny.gguf").read_bytes()


@pytest.fixture
def real(tmp_path: Path) -> FakeDaemon:
    """A daemon with a real, empty store."""
    return FakeDaemon(store=ModelStore(tmp_path / "models"))


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# --- listing --------------------------------------------------------------------------------------


async def test_an_empty_store_is_an_empty_list() -> None:
    async with FakeDaemon(store=FakeStore()).client() as client:
        assert (await client.get("/api/tags")).json() == {"models": []}
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}


async def test_a_model_that_cannot_be_read_is_listed_all_the_same() -> None:
    store = FakeStore(FakeModel(damage=ModelInvalid("bad header")))
    async with FakeDaemon(store=store).client() as client:
        (entry,) = (await client.get("/api/tags")).json()["models"]
    assert entry["name"] == "m:latest"
    assert entry["details"]["family"] == ""
    assert "capabilities" not in entry
    assert entry["damaged"] is True


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/version"])
async def test_probes_by_head_are_answered_without_content(path: str) -> None:
    async with connection(FakeDaemon().app()) as client:
        response = await client.head(path)
    assert (response.status_code, response.content) == (200, b"")


async def test_loaded_models_are_told_with_all_that_is_known() -> None:
    expires = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    supervisor = FakeSupervisor()
    supervisor.rows = [row(expires_at=expires)]
    async with FakeDaemon(supervisor).client() as client:
        (entry,) = (await client.get("/api/ps")).json()["models"]
    assert entry == {
        "name": "m:latest",
        "model": "m:latest",
        "size": 1000,
        "digest": "ab" * 32,
        "details": {"family": "llama"},
        "expires_at": "2026-01-02T03:04:05+00:00",
        "size_vram": 0,
        "memory": {"weights": 600, "kv_cache": 400},
        "context_length": 4096,
        "largest_context_length": 8192,
        "grown": {"count": 2, "at": "2026-01-02T03:04:05+00:00"},
        "state": "ready",
        "restarts": 2,
        "last_reload_reason": "num_ctx 2048 → 4096",
        "devices": [
            {
                "name": "CPU", "kind": "cpu", "description": "a processor", "layers": 3,
                "memory_total": 64_000, "memory_free": 32_000,
            }
        ],
        "placement": "All 3 layers are on the CPU.",
        "options": None,
        "cache": {
            "memory_bytes": 0, "memory_used": 0, "segments": 0, "prompt_tokens": 0, "live": 0, "memory": 0, "disk": 0,
        },
        "sequences": {"running": 3, "waiting": 4, "max": 16},
        "threads": {"decode": 2, "prefill": 2, "max": 2},
        "steps": {"count": 5, "rows": 60, "sampled": 7, "step_seconds": 8.0, "native_seconds": 7.9},
    }  # fmt: skip


async def test_a_model_on_its_way_tells_how_far_it_is() -> None:
    supervisor = FakeSupervisor()
    supervisor.rows = [row(ModelState.LOADING, is_loaded=False)]
    async with FakeDaemon(supervisor).client() as client:
        (entry,) = (await client.get("/api/ps")).json()["models"]
    assert (entry["state"], entry["load_fraction"], entry["size"]) == ("loading", 0.25, 1000)
    assert "sequences" not in entry


async def test_a_model_that_stays_for_ever_still_has_a_time() -> None:
    supervisor = FakeSupervisor()
    supervisor.rows = [row()]
    async with FakeDaemon(supervisor).client() as client:
        (entry,) = (await client.get("/api/ps")).json()["models"]
    assert datetime.fromisoformat(entry["expires_at"]).year > 2200


# --- showing --------------------------------------------------------------------------------------


async def test_show_tells_parameters_texts_and_header() -> None:
    model = FakeModel(
        system="Be brief.",
        parameters={"temperature": 0.2, "stop": ["<end>", '"']},
        messages=[("user", "Hi")],
        licenses=["A", "B"],
        template="{{ messages }}",
    )
    async with FakeDaemon(store=FakeStore(model)).client() as client:
        shown = (await client.post("/api/show", json={"name": "m"})).json()
    assert shown["parameters"].splitlines() == [
        f"{'temperature':<30} 0.2",
        f'{"stop":<30} "<end>"',
        f'{"stop":<30} "\\""',
    ]
    assert (shown["license"], shown["system"], shown["template"]) == ("A\nB", "Be brief.", "{{ messages }}")
    assert shown["messages"] == [{"role": "user", "content": "Hi"}]
    assert "general.name" not in shown["model_info"] and "tokenizer.chat_template" not in shown["model_info"]
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert shown["tensors"] == [{"name": "output.weight", "type": "Q4_1", "shape": [64, 300]}]
    assert "PARAMETER temperature 0.2" in shown["modelfile"]


async def test_show_tells_arrays_when_asked() -> None:
    async with FakeDaemon().client() as client:
        shown = (await client.post("/api/show", json={"model": "m", "verbose": True})).json()
    assert shown["model_info"]["tokenizer.ggml.tokens"] == ["a", "b"]


async def test_show_lists_what_it_does_not_read() -> None:
    body = {"model": "m", "system": "x", "options": {"temperature": 1}}
    async with FakeDaemon().client() as client:
        response = await client.post("/api/show", json=body)
    assert response.headers["x-puna-ignored"] == "system, options"


@pytest.mark.parametrize("path", ["/api/show", "/api/pull"])
async def test_a_model_is_named_once(path: str) -> None:
    async with FakeDaemon().client() as client:
        nothing = await client.post(path, json={})
        two = await client.post(path, json={"model": "m", "name": "n"})
    assert (nothing.status_code, nothing.json()["error"]) == (400, "model is required")
    assert (two.status_code, two.json()["field"]) == (400, "name")


# --- copying and deleting -------------------------------------------------------------------------


async def test_a_copy_has_the_new_name() -> None:
    daemon = FakeDaemon()
    async with daemon.client() as client:
        response = await client.post("/api/copy", json={"source": "m", "destination": "n:1"})
        names = {entry["name"] for entry in (await client.get("/api/tags")).json()["models"]}
    assert (response.status_code, response.content) == (200, b"")
    assert names == {"m:latest", "n:1"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"source": "..", "destination": "n"}, 400, 'source ".." is invalid'),
        ({"source": "m", "destination": "a/b/c/d"}, 400, 'destination "a/b/c/d" is invalid'),
        ({"source": "x", "destination": "n"}, 404, 'model "x" not found'),
        ({"source": "m"}, 400, "destination is required"),
    ],
)
async def test_a_copy_that_cannot_be_is_refused(body: dict[str, str], status: int, text: str) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/copy", json=body)
    assert (response.status_code, response.json()["error"]) == (status, text)


async def delete(client: httpx.AsyncClient, name: str, **more: bool) -> httpx.Response:
    return await client.request("DELETE", "/api/delete", json={"model": name, **more})


async def test_deleting_unloads_first() -> None:
    daemon = FakeDaemon()
    async with daemon.client() as client:
        response = await delete(client, "m")
        again = await delete(client, "m")
    assert (response.status_code, response.content, again.status_code) == (200, b"", 404)
    assert daemon.supervisor.unloaded == [SPEC.weights_digest]
    assert not daemon.store.models()


async def test_a_model_that_answers_is_not_deleted() -> None:
    daemon = FakeDaemon()
    daemon.supervisor.answering.add(SPEC.weights_digest)
    async with daemon.client() as client:
        response = await delete(client, "m")
    assert (response.status_code, response.json()["code"]) == (409, "model_in_use")
    assert daemon.store.models() and not daemon.supervisor.unloaded


async def test_a_model_that_answers_is_deleted_by_force() -> None:
    daemon = FakeDaemon()
    daemon.supervisor.answering.add(SPEC.weights_digest)
    async with daemon.client() as client:
        response = await delete(client, "m", force=True)
    ((weights, error),) = daemon.supervisor.evicted
    assert (response.status_code, weights, error.code) == (200, SPEC.weights_digest, "model_not_found")
    assert not daemon.store.models()


async def test_a_download_is_ended_by_force_and_told_so() -> None:
    for name, left in (("m", set()), ("new", {"m:latest"})):
        daemon = FakeDaemon(puller=FakePuller(gate=asyncio.Event()))
        async with connection(daemon.app()) as client, client.stream("POST", "/api/pull", json={"model": name}) as pull:
            async with httpx.AsyncClient(base_url=client.base_url) as other:
                refused = await delete(other, name)
                response = await delete(other, name, force=True)
            records = [json.loads(line) async for line in pull.aiter_lines()]
        assert (refused.status_code, refused.json()["code"], response.status_code) == (409, "model_in_use", 200)
        assert records[-1]["code"] == "model_not_found" and "removed" in records[-1]["error"]
        assert daemon.puller.stopped.is_set()
        assert {model.name.short for model in daemon.store.models()} == left


async def test_a_second_name_may_go_while_the_first_answers() -> None:
    other = FakeModel(name=ModelName.parse("n"))
    daemon = FakeDaemon(store=FakeStore(FakeModel(), other))
    daemon.supervisor.answering.add(SPEC.weights_digest)
    async with daemon.client() as client:
        response = await delete(client, "n")
    assert response.status_code == 200
    assert not daemon.supervisor.unloaded


async def test_a_model_that_is_being_downloaded_is_not_deleted() -> None:
    gate = asyncio.Event()
    daemon = FakeDaemon(puller=FakePuller(gate=gate))
    async with connection(daemon.app()) as client, client.stream("POST", "/api/pull", json={"model": "m"}):
        async with httpx.AsyncClient(base_url=client.base_url) as other:
            response = await delete(other, "m")
        gate.set()
    assert (response.status_code, response.json()["code"]) == (409, "model_in_use")
    assert daemon.store.models()


# --- creating -------------------------------------------------------------------------------------


async def test_a_model_is_created_from_an_upload_and_used(real: FakeDaemon, tiny: bytes) -> None:
    body = {
        "model": "mine",
        "files": {"model.gguf": digest_of(tiny)},
        "system": "Be brief.",
        "license": "Mine",
        "parameters": {"temperature": 0.2, "stop": "<end>"},
        "messages": [{"role": "user", "content": "Hi"}],
    }
    async with real.client() as client:
        assert (await client.post(f"/api/blobs/{digest_of(tiny)}", content=tiny)).status_code == 201
        response = await client.post("/api/create", json=body)
        shown = (await client.post("/api/show", json={"model": "mine"})).json()
        (entry,) = (await client.get("/api/tags")).json()["models"]
    records = [json.loads(line)["status"] for line in response.text.splitlines()]
    assert records[0] == "parsing GGUF" and records[-2:] == ["writing manifest", "success"]
    assert shown["system"] == "Be brief."
    assert shown["parameters"].splitlines() == [f"{'temperature':<30} 0.2", f'{"stop":<30} "<end>"']
    assert entry["details"]["family"] == "llama"


async def test_an_unstreamed_creation_tells_its_end(real: FakeDaemon, tiny: bytes) -> None:
    body = {"model": "mine", "stream": False, "files": {"model.gguf": digest_of(tiny)}}
    async with real.client() as client:
        missing = await client.post("/api/create", json=body)
        await client.post(f"/api/blobs/{digest_of(tiny)}", content=tiny)
        response = await client.post("/api/create", json=body)
    assert missing.status_code == 400
    assert response.json() == {"status": "success"}


async def test_a_model_is_created_from_another(real: FakeDaemon, tiny: bytes) -> None:
    async with real.client() as client:
        await client.post(f"/api/blobs/{digest_of(tiny)}", content=tiny)
        await client.post("/api/create", json={"model": "base", "files": {"model.gguf": digest_of(tiny)}})
        response = await client.post("/api/create", json={"model": "pirate", "from": "base", "system": "Arr."})
        shown = (await client.post("/api/show", json={"model": "pirate"})).json()
    assert response.text.splitlines()[-1] == '{"status":"success"}'
    assert shown["system"] == "Arr."


async def test_a_base_that_is_not_here_is_pulled_first(real: FakeDaemon) -> None:
    real.puller = FakePuller(steps=(Progress("pulling manifest"), Progress("success")))
    async with real.client() as client:
        response = await client.post("/api/create", json={"model": "mine", "from": "far"})
    records = [json.loads(line) for line in response.text.splitlines()]
    assert real.puller.pulled == [ModelName.parse("far")]
    assert records[0] == {"status": "pulling manifest"}
    assert records[-1]["code"] == "model_not_found"  # the fake brings nothing


async def test_a_draft_model_that_is_named_is_pulled_as_a_base_is(real: FakeDaemon, tiny: bytes) -> None:
    real.puller = FakePuller(steps=(Progress("pulling manifest"), Progress("success")))
    body = {"model": "mine", "files": {"model.gguf": digest_of(tiny)}, "parameters": {"draft_model": "far:1b"}}
    async with real.client() as client:
        await client.post(f"/api/blobs/{digest_of(tiny)}", content=tiny)
        wrong = await client.post("/api/create", json={**body, "quantize": "q4_X"})
        assert wrong.status_code == 400 and real.puller.pulled == []
        response = await client.post("/api/create", json=body)
    assert real.puller.pulled == [ModelName.parse("far:1b")]
    assert json.loads(response.text.splitlines()[-1])["code"] == "model_not_found"  # the fake brings nothing


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"model": "mine"}, "invalid_request", "neither 'from' or 'files' was specified"),
        ({"model": "..", "from": "m"}, "invalid_request", "invalid model name"),
        ({"model": "mine", "from": ".."}, "invalid_request", "invalid model name"),
        ({"model": "mine", "files": {"../x": "sha256:" + "0" * 64}}, "invalid_request", "file path must be relative"),
        ({"model": "mine", "files": {"x": "sha256:0"}}, "invalid_request", "invalid digest format"),
        (
            {"model": "mine", "from": "m", "parameters": {"temperature": "hot"}},
            "invalid_request",
            "temperature must be",
        ),
        (
            {"model": "mine", "from": "m", "draft_quantize": "q4_X"},
            "invalid_request",
            "unsupported quantization type q4_X",
        ),
        (
            {"model": "mine", "from": "m", "adapters": {"a/x.safetensors": f"sha256:{'0' * 64}"}},
            "invalid_request",
            "with its adapter_config.json beside it",
        ),
        ({"model": "mine", "from": "m", "quantize": "q4_X"}, "invalid_request", "unsupported quantization type q4_X"),
        ({"model": "mine", "from": "m", "quantize": "iq2_xs"}, "invalid_request", "needs an importance matrix"),
        ({"model": "mine", "from": "m", "quantize": "iq2_xs", "imatrix": "x"}, "invalid_request", "invalid digest"),
        (
            {"model": "mine", "from": "m", "adapters": {"../a": f"sha256:{'0' * 64}"}},
            "invalid_request",
            "must be relative",
        ),
        ({"model": "mine", "from": "m", "requires": "new"}, "invalid_request", "valid semver"),
        (
            {"model": "mine", "from": "m", "template": "{{ .Prompt }}\n{{ end }}"},
            "invalid_request",
            "line 2: unexpected",
        ),
        ({"model": "mine", "from": "m", "template": "{% if %}"}, "invalid_request", "not valid Jinja: line 1"),
    ],
)
async def test_a_creation_that_cannot_be_is_refused_before_it_begins(
    body: dict[str, object], code: str, text: str
) -> None:
    async with FakeDaemon().client() as client:
        response = await client.post("/api/create", json=body)
    assert response.status_code == 400
    assert response.json()["code"] == code
    assert text in response.json()["error"]
