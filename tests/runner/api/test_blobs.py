"""The paths of blobs: uploaded whole, once, under their own digest, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.blob_writer import BlobWriter
from registry.digest import Digest
from registry.store import ModelStore
from runner.settings import ServerSettings, Settings
from tests.fakes import PATIENCE
from tests.runner.api.serving import FakeDaemon, connection
from tests.runner.api.test_models import digest_of


@pytest.fixture
def real(tmp_path: Path) -> FakeDaemon:
    """A daemon with a real, empty store."""
    return FakeDaemon(store=ModelStore(tmp_path / "models"))


async def test_a_blob_is_uploaded_once(real: FakeDaemon) -> None:
    content = b"x" * 3_000_000
    path = f"/api/blobs/{digest_of(content)}"
    async with real.client() as client:
        statuses = [
            (await client.head(path)).status_code,
            (await client.post(path, content=content)).status_code,
            (await client.head(path)).status_code,
            (await client.post(path, content=content)).status_code,
            (await client.head(path.replace(":", "-"))).status_code,
        ]
    assert statuses == [404, 201, 200, 200, 200]
    assert isinstance(real.store, ModelStore)
    assert real.store.read_blob(Digest.of(content)) == content


async def test_a_blob_may_be_larger_than_any_body(tmp_path: Path) -> None:
    settings = Settings(server=ServerSettings(max_body_bytes=1000))
    daemon = FakeDaemon(store=ModelStore(tmp_path / "models"), settings=settings)
    content = b"x" * 5000

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1000

    async with connection(daemon.app()) as client:
        response = await client.post(f"/api/blobs/{digest_of(content)}", content=pieces())
    assert response.status_code == 201


async def test_a_blob_of_another_digest_is_refused_and_not_kept(real: FakeDaemon) -> None:
    path = f"/api/blobs/{digest_of(b'this')}"
    async with real.client() as client:
        response = await client.post(path, content=b"that")
        after = await client.head(path)
    assert response.status_code == 400
    assert response.json()["error"].startswith("digest mismatch")
    assert after.status_code == 404


@pytest.mark.parametrize("digest", ["sha256:12", "md5:" + "0" * 32, "..%2F..%2Fetc", "sha256:" + "g" * 64])
async def test_what_is_no_digest_is_no_path(real: FakeDaemon, digest: str) -> None:
    async with real.client() as client:
        response = await client.post(f"/api/blobs/{digest}", content=b"x")
    assert response.status_code in (400, 404)
    if response.status_code == 400:
        assert response.json()["error"] == "invalid digest format"


class WatchedStore(ModelStore):
    """Tells what happens to the blob that is written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.has_written = asyncio.Event()
        self.has_aborted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def blob_writer(self, expected: Digest | None = None) -> BlobWriter:
        writer = super().blob_writer(expected)
        write, abort = writer.write, writer.abort

        def told_write(chunk: bytes) -> None:
            write(chunk)
            self._loop.call_soon_threadsafe(self.has_written.set)

        def told_abort() -> None:
            abort()
            self._loop.call_soon_threadsafe(self.has_aborted.set)

        writer.write, writer.abort = told_write, told_abort  # type: ignore[method-assign]
        return writer


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        await asyncio.Event().wait()

    store = WatchedStore(tmp_path / "models")
    partials = tmp_path / "models" / "partials"
    async with connection(FakeDaemon(store=store).app()) as client, asyncio.timeout(PATIENCE):
        uploading = asyncio.create_task(client.post(f"/api/blobs/{digest_of(b'x')}", content=pieces()))
        await store.has_written.wait()
        assert list(partials.iterdir())
        uploading.cancel()
        await store.has_aborted.wait()
        assert not list(partials.iterdir())
