"""Downloads over bad networks: they only move forward, and never mix what does not belong together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from registry.blobs import Blob
from registry.digest import Digest
from registry.errors import (
    DigestMismatch,
    DiskFull,
    RegistryForbidden,
    SourceError,
    SourceUnreachable,
    Unauthorized,
)
from registry.sources.http import HttpClient, HttpOptions
from registry.sources.resolved import HttpFile
from tests.registry.downloads_rig import NAME, Received, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer

MEGABYTE = 1_000_000


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as server:
        yield server


@pytest.fixture
def rig(tmp_path: Path, server: FileServer) -> Rig:
    return Rig(tmp_path, server, model_bytes(6 * MEGABYTE))


@pytest.mark.usefixtures("unhurried")
async def test_a_file_comes_over_several_connections_at_once(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(bytes_per_second=lambda _: 4e6)
    await rig.pull()
    rig.check_installed()
    assert 4 <= server.connections <= rig.options.parallel
    assert server.sent == len(rig.content)
    sums = rig.store.blobs.chunks(Digest.of(rig.content))
    assert sums is not None
    assert (sums.size, len(sums.sums)) == (len(rig.content), 1)


@pytest.mark.parametrize("resets", [False, True])
async def test_a_network_that_cuts_everything_short_costs_little_more_than_the_file(
    tmp_path: Path, server: FileServer, resets: bool
) -> None:
    rig = Rig(tmp_path, server, model_bytes(48 * MEGABYTE))
    server.behaviour = Behaviour(cut_between=(1 * MEGABYTE, 5 * MEGABYTE), resets=resets)
    await rig.pull()
    rig.check_installed()
    assert server.connections > 10
    assert server.sent <= 1.05 * len(rig.content)


async def test_connections_that_go_silent_are_overtaken(tmp_path: Path, server: FileServer) -> None:
    rig = Rig(tmp_path, server, model_bytes(12 * MEGABYTE))
    server.behaviour = Behaviour(cut_between=(500_000, 2 * MEGABYTE), stall_chance=0.3)
    begun = time.monotonic()
    await rig.pull()
    rig.check_installed()
    assert server.sent <= 1.05 * len(rig.content)
    assert time.monotonic() - begun < 19  # the reads themselves would wait longer


async def test_a_slow_connection_does_not_hold_up_the_end(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(bytes_per_second=lambda connection: 60e3 if connection == 2 else None)
    begun = time.monotonic()
    await rig.pull()
    rig.check_installed()
    assert time.monotonic() - begun < 16  # alone it would take the slow one 17 s and more
    assert server.sent <= 1.1 * len(rig.content)


async def test_a_late_answer_is_taken_though_others_have_begun_with_the_rest_of_it(
    tmp_path: Path, server: FileServer
) -> None:
    rig = Rig(tmp_path, server, model_bytes(2 * MEGABYTE))
    asked = itertools.count()
    server.behaviour = Behaviour(seen=lambda path: time.sleep(2.2) if next(asked) == 1 else None)
    await rig.pull()
    rig.check_installed()
    assert len(server.requests) > 3


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("is_size_known", [True, False])
async def test_a_server_without_ranges_is_read_from_the_start(
    tmp_path: Path, server: FileServer, length: bool, is_size_known: bool
) -> None:
    rig = Rig(tmp_path, server, model_bytes(6 * MEGABYTE), is_size_known=is_size_known)
    server.behaviour = Behaviour(ranges=False, length=length, cut_between=(2 * MEGABYTE, 9 * MEGABYTE))
    await rig.pull()
    rig.check_installed()


async def test_a_server_that_stops_giving_ranges_is_gone_on_with(rig: Rig, server: FileServer) -> None:
    def forget_ranges(path: str) -> None:
        if len(server.requests) == 4:
            server.behaviour.ranges = False

    server.behaviour = Behaviour(seen=forget_ranges)
    await rig.pull()
    rig.check_installed()


@pytest.mark.parametrize("is_size_known", [True, False])
async def test_a_file_of_unknown_digest_gets_it_from_its_bytes(
    tmp_path: Path, server: FileServer, is_size_known: bool
) -> None:
    rig = Rig(tmp_path, server, model_bytes(3 * MEGABYTE), is_digest_known=False, is_size_known=is_size_known)
    steps = await rig.pull()
    rig.check_installed()
    assert [step.digest for step in steps if step.completed][-1] == str(Digest.of(rig.content))


async def test_a_pull_given_up_is_gone_on_with_and_fetches_nothing_twice(
    rig: Rig, server: FileServer, received: Received
) -> None:
    server.behaviour = Behaviour(bytes_per_second=lambda _: 500e3)
    shown = 0
    async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
        async for step in steps:
            shown = step.completed or 0
            if shown > 2 * MEGABYTE:
                break
    kept = rig.kept()
    assert kept >= shown
    server.behaviour = Behaviour()
    again = await rig.pull()
    rig.check_installed()
    assert next(step.completed for step in again if step.completed is not None) >= kept
    assert received.total == len(rig.content)


@pytest.mark.usefixtures("unhurried")
async def test_a_redirect_may_lead_elsewhere_the_next_time(rig: Rig, server: FileServer) -> None:
    """As signed addresses do, which are good for some minutes."""
    current = "/one"
    server.files |= {"/one": rig.content, "/two": rig.content}
    server.behaviour = Behaviour(redirect=lambda path: current if path == "/model" else None, tag='"of one"')

    def expire(path: str) -> None:
        nonlocal current
        if len(server.requests) == 6:
            current = "/two"
            server.behaviour.tag = '"of two"'
            del server.files["/one"]

    server.behaviour.seen = expire
    await rig.pull()
    rig.check_installed()
    assert server.sent == len(rig.content)
    # Where it led is remembered: not every request asks again.
    asked = [request.path for request in server.requests]
    assert asked.count("/model") < len(asked) / 2


@pytest.mark.parametrize("is_digest_known", [True, False])
async def test_two_versions_of_a_file_are_never_mixed(
    tmp_path: Path, server: FileServer, is_digest_known: bool
) -> None:
    rig = Rig(tmp_path, server, model_bytes(6 * MEGABYTE), is_digest_known=is_digest_known)
    old = model_bytes(6 * MEGABYTE, seed=2)
    assert len(old) == len(rig.content)
    server.files["/model"] = old

    def change(path: str) -> None:
        if len(server.requests) == 5:
            server.files["/model"] = rig.content
            server.behaviour.tag = '"two"'

    server.behaviour = Behaviour(seen=change)
    steps = await rig.pull()
    rig.check_installed()
    assert any("changed" in step.status or "damaged" in step.status for step in steps)


async def test_a_file_that_changed_between_two_pulls_is_begun_anew(tmp_path: Path, server: FileServer) -> None:
    rig = Rig(tmp_path, server, model_bytes(6 * MEGABYTE), is_digest_known=False, is_size_known=False)
    new = rig.content
    server.files["/model"] = model_bytes(5 * MEGABYTE, seed=2)
    server.behaviour = Behaviour(bytes_per_second=lambda _: 300e3)
    async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > MEGABYTE:
                break
    assert rig.kept() > MEGABYTE
    server.files["/model"] = new
    server.behaviour = Behaviour(tag='"two"')
    await rig.pull()
    rig.check_installed()


async def test_a_wrong_file_is_never_installed(rig: Rig, server: FileServer) -> None:
    server.files["/model"] = model_bytes(6 * MEGABYTE, seed=2)
    with pytest.raises(DigestMismatch):
        await rig.pull()
    assert rig.blobs == []
    assert rig.kept() == 0


async def test_a_file_of_another_size_is_refused_at_once(rig: Rig, server: FileServer) -> None:
    server.files["/model"] = rig.content[:-1]
    with pytest.raises(SourceError, match=f"{len(rig.content)} are expected"):
        await rig.pull()
    assert server.sent < len(rig.content) / 2


async def test_the_next_place_goes_on_where_the_first_broke_off(rig: Rig, server: FileServer) -> None:
    rig.options = replace(rig.options, idle_timeout_seconds=0.5)
    rig.places = (HttpFile(f"{server.url}/model"), HttpFile(f"{server.url}/other"))
    server.files["/other"] = rig.content

    def break_down(path: str) -> None:
        if path == "/model" and len(server.requests) > 3:
            server.behaviour.statuses.append((500, {}))

    server.behaviour = Behaviour(seen=break_down)
    steps = await rig.pull()
    rig.check_installed()
    assert any("Trying" in step.status for step in steps)
    assert server.sent <= 1.1 * len(rig.content)


async def test_what_an_earlier_process_left_damaged_is_found_and_fetched_again(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(bytes_per_second=lambda _: 500e3)
    async with contextlib.aclosing(rig.puller().pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > 2 * MEGABYTE:
                break
    (status,) = rig.store.blobs.partials.all()
    with rig.store.blobs.partials.path(status.key).open("r+b") as file:
        file.write(b"power was lost here")
    server.behaviour = Behaviour()
    steps_again = await rig.pull()
    rig.check_installed()
    assert any("damaged" in step.status for step in steps_again)


async def test_a_busy_server_is_asked_by_fewer_and_as_late_as_it_wants(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(statuses=[(503, {"Retry-After": "1"})])
    begun = time.monotonic()
    await rig.pull()
    rig.check_installed()
    assert time.monotonic() - begun >= 1


async def test_a_server_that_asks_for_too_much_patience_is_given_up_at_once(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(statuses=[(429, {"Retry-After": "3600"})])
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match="3600 s"):
        await rig.pull()
    assert time.monotonic() - begun < 60


async def test_a_dead_network_is_told_and_given_up_with_what_is_kept(
    rig: Rig, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.download_ranged._FIRST_NOTICE_SECONDS", 0.2)
    rig.options = replace(rig.options, idle_timeout_seconds=1.5)

    def die(path: str) -> None:
        if len(server.requests) > 3:
            server.behaviour.statuses.append((502, {}))

    server.behaviour = Behaviour(seen=die)
    notices = []
    with pytest.raises(SourceUnreachable, match="pull again to go on"):
        async for step in rig.puller().pull(NAME):
            notices.append(step.status)  # noqa: PERF401 - those before the error count
    assert any("waiting for network" in notice and "MB kept" in notice for notice in notices)
    assert rig.kept() > 0


class Login:
    """Knows a token that has run out, and gets a new one when it is refused."""

    def __init__(self) -> None:
        self.token = "old"
        self.asked: list[str] = []

    async def headers(self, url: str) -> Mapping[str, str]:
        self.asked.append(url)
        return {"Authorization": f"Bearer {self.token}"}

    async def refused(self, url: str, status: int, headers: Mapping[str, str]) -> bool:
        was, self.token = self.token, "new"
        return was == "old"


async def test_a_refused_login_is_renewed_and_stays_with_its_host(rig: Rig, server: FileServer) -> None:
    with FileServer().running() as other:
        other.files["/model"] = rig.content
        login = Login()
        server.behaviour = Behaviour(
            statuses=[(401, {"WWW-Authenticate": "Bearer"})], redirect=lambda path: f"{other.url}/model"
        )
        rig.places = (HttpFile(f"{server.url}/model", login),)
        await rig.pull()
        rig.check_installed()
        assert [request.headers["authorization"] for request in server.requests][:2] == ["Bearer old", "Bearer new"]
        assert all("authorization" not in request.headers for request in other.requests)
        assert all(url.startswith(server.url) for url in login.asked)


async def test_a_login_that_stays_refused_is_told(rig: Rig, server: FileServer) -> None:
    server.behaviour = Behaviour(statuses=[(401, {}), (401, {})])
    rig.places = (HttpFile(f"{server.url}/model", Login()),)
    with pytest.raises(Unauthorized, match="refuses access"):
        await rig.pull()


class OnlyHost:
    """Allows one server, and notes whom else it was asked about."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        self.refused: list[str] = []

    async def check(self, url: str) -> None:
        if not url.startswith(self.allowed):
            self.refused.append(url)
            raise RegistryForbidden(f"{url} may not be asked.")

    def verifies_tls(self, url: str) -> bool:
        return True


async def test_a_redirect_to_a_forbidden_host_is_not_followed(rig: Rig, server: FileServer) -> None:
    with FileServer().running() as other:
        server.behaviour = Behaviour(redirect=lambda path: f"{other.url}/model")
        rig.places = (HttpFile(f"{server.url}/model", hosts=OnlyHost(server.url)),)
        with pytest.raises(RegistryForbidden):
            await rig.pull()
        assert other.requests == []


@pytest.mark.usefixtures("unhurried")
async def test_a_disk_that_fills_up_keeps_what_has_come(
    rig: Rig, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    written = 0
    really = os.pwrite

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        nonlocal written
        written += len(content)
        if written > 2 * MEGABYTE:
            raise OSError(errno.ENOSPC, "full")
        return really(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskFull):
        await rig.pull()
    monkeypatch.setattr(os, "pwrite", really)
    kept = rig.kept()
    assert kept > MEGABYTE
    assert rig.blobs == []
    before = server.sent
    await rig.pull()
    rig.check_installed()
    assert server.sent - before == len(rig.content) - kept


async def test_all_files_together_must_fit_before_the_first_is_begun(rig: Rig, server: FileServer) -> None:
    rig.options = replace(rig.options, keep_free_bytes=1 << 60)
    with pytest.raises(DiskFull) as refused:
        await rig.pull()
    assert refused.value.facts["needed"] == len(rig.content)
    assert server.requests == []


@pytest.mark.usefixtures("unhurried")
async def test_two_pulls_in_one_process_share_a_download_and_their_connections(
    rig: Rig, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, closed = [], []

    class Client(HttpClient):
        def __init__(self, options: HttpOptions) -> None:
            super().__init__(options)
            made.append(self)

        async def aclose(self) -> None:
            closed.append(self)
            await super().aclose()

    monkeypatch.setattr("registry.sources.http.HttpClient", Client)
    puller = rig.puller()
    await asyncio.gather(rig.pull(puller), rig.pull(puller))
    rig.check_installed()
    assert server.sent == len(rig.content)
    assert len(made) == 1 and closed == made


async def test_a_pull_given_up_while_its_file_gets_its_name_ends_when_it_has_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be called back: whoever came next would meet it."""
    adopting, may_adopt = threading.Event(), threading.Event()
    really = rig.store.blobs.adopt

    def adopt(partial: Path, digest: Digest) -> Blob:
        adopting.set()
        assert may_adopt.wait(20)
        return really(partial, digest)

    monkeypatch.setattr(rig.store.blobs, "adopt", adopt)
    pull = asyncio.create_task(rig.pull())
    assert await asyncio.to_thread(adopting.wait, 20)
    pull.cancel()
    await asyncio.wait((pull,), timeout=0.1)
    assert not pull.done()
    assert rig.store.blobs.try_lock(Digest.of(rig.content).file_name) is None
    may_adopt.set()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert [path.read_bytes() for path in rig.blobs] == [rig.content]
    assert not any((rig.store.root / "partials").iterdir())
    lock = rig.store.blobs.try_lock(Digest.of(rig.content).file_name)
    assert lock is not None
    lock.release()
