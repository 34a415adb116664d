"""Uploads: in chunks that go on where they broke off, in one piece where chunks are not taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.errors import RegistryError, SourceUnreachable
from registry.name import ModelName
from tests.registry.hostile_registry import HostileRegistry, Reply, Request
from tests.registry.oci_rig import CHUNK_BYTES, Site, amounts

SIZE = 2_000_000


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry(blobs={}).running() as registry:
        yield registry


@pytest.fixture
def site(registry: HostileRegistry, tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.allow(registry.host)
    return site


@pytest.fixture
def name(registry: HostileRegistry, site: Site) -> str:
    name = f"{registry.host}/me/mine"
    site.install(name, size=SIZE)
    return name


def has_all(registry: HostileRegistry, site: Site, name: str) -> bool:
    is_there = all(registry.blobs.get(digest) == content for digest, content in site.blobs(name).items())
    return is_there and registry.pushed[-1] == site.manifest_bytes(name)


async def test_a_large_file_is_sent_in_chunks(registry: HostileRegistry, site: Site, name: str) -> None:
    await site.push(name)
    assert has_all(registry, site, name)
    sizes = [int(one.headers["content-length"]) for one in registry.asked("PATCH", "/uploads/")]
    assert max(sizes) == CHUNK_BYTES
    assert len(sizes) == -(-site.store.models()[0].manifest.layers[0].size // CHUNK_BYTES)


async def test_an_upload_goes_on_where_it_broke_off(registry: HostileRegistry, site: Site, name: str) -> None:
    registry.cuts = [1000, 200_000, 0, 70_000]
    steps = await site.push(name)
    assert has_all(registry, site, name)
    total = sum(len(content) for content in site.blobs(name).values())
    assert registry.uploaded == total, "nothing was sent twice that had arrived"
    for counts in amounts(steps, "pushing").values():
        assert counts == sorted(counts)


async def test_an_upload_whose_place_is_forgotten_begins_anew(registry: HostileRegistry, site: Site, name: str) -> None:
    registry.cuts = [100_000]
    registry.interfere = lambda request: Reply(404) if request.method == "GET" and "/uploads/" in request.path else None
    steps = await site.push(name)
    assert has_all(registry, site, name)
    for counts in amounts(steps, "pushing").values():
        assert counts == sorted(counts), "what is shown never goes back"


@pytest.mark.parametrize("status", [400, 404, 405, 501])
async def test_a_registry_that_takes_no_chunks_gets_files_whole(
    registry: HostileRegistry, site: Site, name: str, status: int
) -> None:
    registry.interfere = lambda request: Reply(status) if request.method == "PATCH" else None
    await site.push(name)
    assert has_all(registry, site, name)


async def test_the_least_size_of_chunks_is_heeded(registry: HostileRegistry, site: Site, name: str) -> None:
    least = 3 * CHUNK_BYTES

    def tell(request: Request) -> Reply | None:
        if request.method != "POST":
            return None
        return Reply(202, headers={"Location": registry.open_upload(), "OCI-Chunk-Min-Length": str(least)})

    registry.interfere = tell
    await site.push(name)
    assert has_all(registry, site, name)
    assert int(registry.asked("PATCH", "/uploads/")[0].headers["content-length"]) == least


async def test_a_busy_registry_is_tried_again(registry: HostileRegistry, site: Site, name: str) -> None:
    busy = [503, 429, 502]

    def be_busy(request: Request) -> Reply | None:
        return Reply(busy.pop()) if busy and request.method in ("PATCH", "PUT") else None

    registry.interfere = be_busy
    await site.push(name)
    assert has_all(registry, site, name)
    assert busy == []


async def test_a_registry_that_always_breaks_off_is_given_up(
    registry: HostileRegistry, tmp_path: Path, name: str
) -> None:
    site = Site(tmp_path, idle_seconds=1)
    site.allow(registry.host)
    registry.cuts = [0] * 100
    with pytest.raises(SourceUnreachable):
        await site.push(name)
    assert registry.pushed == []


async def test_a_registry_that_always_forgets_is_given_up(registry: HostileRegistry, tmp_path: Path, name: str) -> None:
    site = Site(tmp_path, idle_seconds=1)
    site.allow(registry.host)
    registry.interfere = lambda request: Reply(416) if request.method == "PATCH" else None
    with pytest.raises(RegistryError) as failed:
        await site.push(name)
    assert failed.value.code == "registry_error"


@pytest.mark.parametrize("told", ["0-999999999", "0-300000"])
async def test_a_registry_that_claims_more_than_was_sent_is_not_believed(
    registry: HostileRegistry, site: Site, name: str, told: str
) -> None:
    registry.interfere = lambda request: (
        Reply(202, headers={"Location": registry.open_upload(), "Range": told}) if request.method == "PATCH" else None
    )
    with pytest.raises(RegistryError) as failed:
        await site.push(name)
    assert failed.value.code == "registry_error"


async def test_a_registry_that_says_no_is_quoted(registry: HostileRegistry, site: Site, name: str) -> None:
    no = b'{"errors":[{"code":"DENIED","message":"quota is used up"}]}'
    registry.interfere = lambda request: Reply(413, no) if request.method == "POST" else None
    with pytest.raises(RegistryError, match=r"quota is used up \(DENIED\)"):
        await site.push(name)


async def test_a_refused_mount_is_followed_by_an_upload(registry: HostileRegistry, site: Site, name: str) -> None:
    site.rename(name, f"{registry.host}/you/other")
    registry.interfere = lambda request: Reply(403) if "mount" in request.query else None
    await site.push(name)
    assert has_all(registry, site, name)
    assert [one.query["from"] for one in registry.requests if "mount" in one.query] == ["you/other"] * 5


async def test_what_the_registry_has_in_another_size_is_told(registry: HostileRegistry, site: Site, name: str) -> None:
    weights = site.store.models()[0].manifest.layers[0]
    registry.blobs[str(weights.digest)] = b"short"
    with pytest.raises(RegistryError, match="with 5 bytes"):
        await site.push(name)


async def test_a_push_that_is_given_up_sends_no_more(registry: HostileRegistry, site: Site, name: str) -> None:
    steps = site.pusher.push(ModelName.parse(name))
    async for step in steps:
        if step.digest is not None:
            break
    await steps.aclose()
    sent = len(registry.requests)
    assert registry.pushed == []
    await site.push(name)
    assert has_all(registry, site, name)
    assert len(registry.requests) > sent
