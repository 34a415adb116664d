"""The paths about the store's health: verifying, repairing, garbage, partials, and pulls that are only planned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from registry.digest import Digest
from registry.manifest import MODEL_LAYER
from registry.name import ModelName
from registry.progress import Notice
from registry.sources.resolved import Find, ResolvedModel
from registry.stored_model import StoredModel
from runner.supervisor.likely_fit import LikelyFit
from tests.fakes import FakePuller
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer
from tests.registry.other_puller import mortal_puller
from tests.runner.api.serving import FakeDaemon

MODEL = NAME.short


class OneFinder:
    """Finds every model again where the rig has it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def begun_from(self, name: ModelName) -> None:
        return None

    def finds(self, model: StoredModel) -> list[Find]:
        async def resolve(notice: Notice) -> ResolvedModel:
            return ResolvedModel((self.rig.file,))

        return [resolve]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with FileServer().running() as server:
        yield Rig(tmp_path, server, model_bytes(2_000_000))


@pytest.fixture
def daemon(rig: Rig) -> FakeDaemon:
    daemon = FakeDaemon(store=rig.store, puller=cast("Any", rig.puller()), finder=cast("Any", OneFinder(rig)))
    daemon.supervisor.likely_fit = lambda size: LikelyFit.TIGHT  # type: ignore[attr-defined]
    return daemon


def records(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200
    return [json.loads(line) for line in response.text.splitlines()]


def damage(rig: Rig) -> None:
    with rig.store.find(NAME).model_path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")


async def break_off(rig: Rig) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 200e3)
    async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > 300_000:
                break
    rig.server.behaviour = Behaviour()


async def test_a_plan_tells_files_disk_and_memory_and_fetches_nothing(rig: Rig, daemon: FakeDaemon) -> None:
    async with daemon.client() as client:
        plan = (await client.post("/api/pull", json={"model": MODEL, "dry_run": True})).json()
    assert rig.server.requests == []
    size = len(rig.content)
    assert plan["files"] == [
        {
            "title": "model",
            "type": MODEL_LAYER,
            "digest": str(Digest.of(rig.content)),
            "size": size,
            "here": 0,
            "to_fetch": size,
        }
    ]
    assert (plan["size"], plan["to_fetch"]) == (size, size)
    assert plan["disk"]["fits"] is True
    assert plan["memory"].pop("most_tokens_per_second") > 0
    assert plan["memory"] == {"weights": size, "fit": "tight"}
    assert not rig.store.root.exists()


async def test_a_plan_counts_what_is_here(rig: Rig, daemon: FakeDaemon) -> None:
    await break_off(rig)
    async with daemon.client() as client:
        begun = (await client.post("/api/pull", json={"model": MODEL, "dry_run": True})).json()
        await rig.pull()
        done = (await client.post("/api/pull", json={"model": MODEL, "dry_run": True})).json()
    assert 300_000 < begun["files"][0]["here"] < len(rig.content)
    assert done["to_fetch"] == 0


async def test_verifying_tells_how_far_it_is_and_then_what_was_found(rig: Rig, daemon: FakeDaemon) -> None:
    await rig.pull()
    async with daemon.client() as client:
        *steps, sound = records(await client.post("/api/verify", json={"model": MODEL}))
        assert all(step["status"].startswith("verifying ") for step in steps)
        assert (sound["status"], sound["damaged"], sound["models"]) == ("verified", 0, [MODEL])
        damage(rig)
        found = (await client.post("/api/verify", json={"all": True, "stream": False})).json()
        tags = (await client.get("/api/tags")).json()
    assert found["damaged"] == 1
    (file,) = [one for one in found["files"] if one["state"] != "sound"]
    assert file == {
        "digest": str(Digest.of(rig.content)),
        "size": len(rig.content),
        "state": "damaged",
        "damaged_bytes": len(rig.content),
        "models": [MODEL],
    }
    assert tags["models"][0]["damaged"] is True


async def test_a_repair_makes_a_model_whole(rig: Rig, daemon: FakeDaemon) -> None:
    await rig.pull()
    damage(rig)
    async with daemon.client() as client:
        told = records(await client.post("/api/repair", json={"model": MODEL}))
    assert told[-1] == {"status": "success"}
    assert [one["damaged"] for one in told if one["status"] == "verified"] == [1]
    rig.check_installed()


async def test_garbage_is_told_before_it_goes(rig: Rig, daemon: FakeDaemon) -> None:
    blob = await asyncio.to_thread(rig.store.add_blob, [b"unneeded"])
    path = rig.store.blob_path(blob.digest)
    long_ago = time.time() - 7200
    os.utime(path, (long_ago, long_ago))
    async with daemon.client() as client:
        planned = (await client.post("/api/gc", json={"dry_run": True})).json()
        assert path.exists()
        done = (await client.post("/api/gc", json={})).json()
    assert not path.exists()
    assert planned["files"] == [{"path": str(path), "bytes": 8, "kind": "blob", "digest": str(blob.digest)}]
    assert (planned["dry_run"], planned["bytes"]) == (True, 8)
    assert (done["dry_run"], done["bytes"], done["files"]) == (False, 8, planned["files"])


async def test_partials_are_listed_and_thrown_away(rig: Rig, daemon: FakeDaemon) -> None:
    await break_off(rig)
    async with daemon.client() as client:
        (partial,) = (await client.get("/api/partials")).json()["partials"]
        assert (partial["model"], partial["size"], partial["active"]) == (MODEL, len(rig.content), False)
        assert partial["completed"] == rig.kept() > 300_000
        gone = await client.request("DELETE", "/api/partials", json={"partial": MODEL})
        assert gone.json()["completed"] == partial["completed"]
        assert (await client.get("/api/partials")).json() == {"partials": []}
        unknown = await client.request("DELETE", "/api/partials", json={"partial": MODEL})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")
    assert rig.kept() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
async def test_what_another_process_downloads_is_removed_by_force_alone(rig: Rig, daemon: FakeDaemon) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 200e3)
    with mortal_puller(rig) as puller:
        await asyncio.to_thread(puller.start)
        await asyncio.to_thread(puller.until_shown, 100_000)
        async with daemon.client() as client:
            refused = await client.request("DELETE", "/api/delete", json={"model": MODEL})
            forced = await client.request("DELETE", "/api/delete", json={"model": MODEL, "force": True})
            await asyncio.to_thread(puller.wait)
            again = await client.request("DELETE", "/api/delete", json={"model": MODEL, "force": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "model_in_use")
    assert "puna rm --force" in refused.json()["error"]
    assert forced.status_code == 200
    assert not puller.is_done
    assert again.status_code == 404
    assert rig.store.models() == []


async def test_a_process_that_does_not_stop_downloading_is_told(rig: Rig) -> None:
    class Deaf(FakePuller):
        def processes(self, name: ModelName) -> list[int]:
            return [4711]

        end = processes

    async with FakeDaemon(store=rig.store, puller=Deaf()).client() as client:
        forced = await client.request("DELETE", "/api/delete", json={"model": MODEL, "force": True})
    assert (forced.status_code, forced.json()["code"], forced.json()["process"]) == (409, "model_in_use", 4711)
    assert "end that process" in forced.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/api/verify", {}, 400, "invalid_request"),
        ("/api/verify", {"model": "m", "all": True}, 400, "invalid_request"),
        ("/api/verify", {"model": "unheard-of"}, 404, "model_not_found"),
        ("/api/repair", {"model": "unheard-of"}, 404, "model_not_found"),
        ("/api/gc", {"everything": True}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_is_refused(
    daemon: FakeDaemon, path: str, body: dict[str, object], status: int, code: str
) -> None:
    async with daemon.client() as client:
        refused = await client.post(path, json=body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
