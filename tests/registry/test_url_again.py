"""Models behind plain addresses that are pulled again: nothing comes twice that its server says is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.fetched_addresses import FetchedAddresses, FetchedFile
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.registries import Registries, RegistryEntry
from registry.sources.model_url import ModelUrl
from registry.sources.resolved import ResolvedModel
from registry.sources.url import UrlSource
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer

OTHER = ModelName.parse("host.test/some/model:2")
EARLIER, LATER = "Fri, 01 May 2026 10:00:00 GMT", "Fri, 01 May 2026 10:00:01 GMT"
NEW = model_bytes(500_000, seed=2)
"""As long as the first one is."""


class UrlRig(Rig):
    """One model behind an address of a server that may be asked."""

    @property
    def source(self) -> UrlSource:
        host = self.server.url.removeprefix("http://")
        listed = Registries({host: RegistryEntry(host, insecure=True)})
        return UrlSource(lambda: listed, self.options, self.store.blobs.unchanged)

    async def find(self) -> ResolvedModel:
        return await self.source.resolve(ModelUrl(f"{self.server.url}/model"), lambda notice: None)

    async def pull_url(self, name: ModelName = NAME) -> tuple[list[Progress], int]:
        """Every step, and how many bytes of the file were sent."""
        before = self.server.sent
        pull = Puller(self.store, [], self.options, {}).pull(name, find=lambda notice: self.find())
        return [step async for step in pull], self.server.sent - before

    def has(self, content: bytes, name: ModelName = NAME) -> bool:
        return self.store.find(name).model_path.read_bytes() == content


pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[UrlRig]:
    with FileServer().running() as server:
        yield UrlRig(tmp_path, server, model_bytes(500_000))


@pytest.mark.parametrize(("tag", "modified"), [('"a"', None), ('"a"', EARLIER), ('W/"a"', EARLIER), (None, EARLIER)])
async def test_what_is_here_and_unchanged_there_is_not_sent_again(
    rig: UrlRig, tag: str | None, modified: str | None
) -> None:
    rig.server.behaviour = Behaviour(tag=tag, modified=modified)
    await rig.pull_url()
    steps, sent = await rig.pull_url()
    assert sent == 0
    size = len(rig.content)
    assert [(step.total, step.completed) for step in steps if step.digest] == [(size, size)]
    assert steps[-1].status == "success"
    _, sent = await rig.pull_url(OTHER)
    assert sent == 0 and rig.has(rig.content, OTHER)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Behaviour(tag='"a"', modified=EARLIER), Behaviour(tag='"b"', modified=EARLIER)),
        (Behaviour(tag=None, modified=EARLIER), Behaviour(tag=None, modified=LATER)),
        (Behaviour(tag='W/"a"'), Behaviour(tag='W/"a"')),
        (Behaviour(tag=None), Behaviour(tag=None)),
    ],
)
async def test_what_may_have_changed_is_fetched(rig: UrlRig, before: Behaviour, after: Behaviour) -> None:
    rig.server.behaviour = before
    await rig.pull_url()
    rig.server.behaviour, rig.server.files["/model"] = after, NEW
    _, sent = await rig.pull_url()
    assert sent == len(NEW) and rig.has(NEW)


async def test_what_is_damaged_or_gone_here_is_fetched(rig: UrlRig) -> None:
    await rig.pull_url()
    path = rig.store.find(NAME).model_path
    path.write_bytes(rig.content[:-1])
    _, sent = await rig.pull_url()
    assert sent == len(rig.content) and rig.has(rig.content)
    rig.store.delete(NAME)
    _, sent = await rig.pull_url()
    assert sent == len(rig.content) and rig.has(rig.content)


async def test_a_file_that_changed_after_it_was_asked_for_is_not_taken_for_the_one_that_was_told(rig: UrlRig) -> None:
    def change(path: str) -> None:
        rig.server.files["/model"], rig.server.behaviour.tag = NEW, '"two"'

    rig.server.behaviour = Behaviour(tag='"one"', seen=change)
    await rig.pull_url()
    assert rig.has(NEW)
    rig.server.behaviour = Behaviour(tag='"one"')
    rig.server.files["/model"] = rig.content
    await rig.pull_url()
    assert rig.has(rig.content)


async def test_a_plan_knows_that_nothing_is_to_be_fetched(rig: UrlRig) -> None:
    puller = Puller(rig.store, [], rig.options, {})
    assert (await puller.plan(NAME, find=lambda notice: rig.find())).to_fetch == len(rig.content)
    await rig.pull_url()
    assert (await puller.plan(NAME, find=lambda notice: rig.find())).to_fetch == 0


async def test_records_of_files_that_are_gone_go_too(rig: UrlRig) -> None:
    await rig.pull_url()
    records = rig.store.root / "addresses"
    rig.store.prune(0)
    assert len(list(records.iterdir())) == 1
    rig.store.delete(NAME)
    rig.store.prune(0)
    assert list(records.iterdir()) == []


@pytest.mark.parametrize(
    ("noted", "version", "size", "is_same"),
    [
        ('"a"', '"a"', 5, True),
        ('"a"', '"a"', None, True),
        ('"a"', '"a"', 6, False),
        ('"a"', '"b"', 5, False),
        ('"a"', None, 5, False),
        (EARLIER, EARLIER, 5, True),
        (EARLIER, EARLIER, None, False),
        (EARLIER, LATER, 5, False),
    ],
)
def test_a_time_alone_is_not_enough(noted: str, version: str | None, size: int | None, is_same: bool) -> None:
    assert FetchedFile(noted, Digest.of(b"x"), 5).is_still(version, size) is is_same


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version":1,"digest":"sha256:x","size":"5"}', b"\xff"])
def test_a_record_that_cannot_be_read_is_none_and_goes(tmp_path: Path, content: bytes) -> None:
    addresses = FetchedAddresses(tmp_path)
    addresses.remember("http://a/b", FetchedFile('"a"', Digest.of(b"x"), 5))
    assert addresses.find("http://a/b") == FetchedFile('"a"', Digest.of(b"x"), 5)
    assert addresses.find("http://a/c") is None
    [record] = (tmp_path / "addresses").iterdir()
    assert b"http" not in record.read_bytes() + record.name.encode()
    record.write_bytes(content)
    assert addresses.find("http://a/b") is None
    addresses.forget(lambda digest: False)
    assert not record.exists()
