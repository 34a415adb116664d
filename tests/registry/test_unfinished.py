"""What is kept of a pull that broke off: where it was fetching from, so that its name alone goes on with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from registry.finder import Finder
from registry.name import ModelName
from registry.sources.model_url import ModelUrl
from registry.unfinished import UnfinishedPulls
from tests.registry.downloads_rig import NAME, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer

URL = "https://example.com/files/m.gguf"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with FileServer().running() as server:
        yield Rig(tmp_path, server, model_bytes(2_000_000))


def finder(rig: Rig) -> Finder:
    nobody = cast("Any", None)
    return Finder(rig.store, nobody, (), nobody, nobody)


async def break_off(rig: Rig, source: str | None) -> None:
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 500e3)
    async with contextlib.aclosing(rig.puller().pull(NAME, source=source)) as steps:
        async for step in steps:
            if step.completed:
                break
    rig.server.behaviour = Behaviour()


async def test_a_pull_that_broke_off_tells_where_it_was_fetching_from(rig: Rig) -> None:
    await break_off(rig, URL)
    assert await finder(rig).begun_from(NAME) == ModelUrl(URL)
    await rig.pull()
    assert await finder(rig).begun_from(NAME) is None


@pytest.mark.parametrize("source", [None, "http://[", "a/b/c/d/e"])
async def test_a_pull_by_its_own_name_or_from_an_impossible_place_goes_on_by_its_name(
    rig: Rig, source: str | None
) -> None:
    await break_off(rig, source)
    assert await finder(rig).begun_from(NAME) is None


def test_records_of_an_older_kind_are_read(tmp_path: Path) -> None:
    pulls = UnfinishedPulls(tmp_path)
    pulls.remember(NAME, ())
    [record] = (tmp_path / "pulls").iterdir()
    record.write_text(record.read_text().replace(', "source": null', "").replace('"source": null, ', ""))
    assert "source" not in record.read_text()
    found = pulls.find(NAME)
    assert found is not None and (found.name, found.source) == (NAME, None)
    assert pulls.find(ModelName.parse("other")) is None
