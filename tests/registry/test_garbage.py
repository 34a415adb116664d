"""What nothing needs is told byte by byte and removed; what a pull under way needs is not garbage."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import ModelInUse, ModelNotFound
from registry.garbage import Kind, collect_garbage, find_garbage
from registry.manifest import LICENSE_LAYER, MODEL_LAYER
from registry.partial_models import list_partial_models, remove_partial
from registry.pull import Puller
from registry.sources.resolved import HttpFile, ResolvedFile
from registry.store import ModelStore
from tests.registry.downloads_rig import NAME, FixedSource, Received, Rig, model_bytes
from tests.registry.file_server import Behaviour, FileServer

LICENCE = b"be good"


def age(store: ModelStore) -> None:
    """Make everything in the store two hours old."""
    then = time.time() - 7200
    for folder in ("blobs", "partials"):
        for path in (store.root / folder).glob("*"):
            os.utime(path, (then, then))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A model of two files, of which only the first can be had."""
    with FileServer().running() as server:
        yield Rig(tmp_path, server, model_bytes(2_000_000))


def puller(rig: Rig) -> Puller:
    licence = ResolvedFile(
        LICENSE_LAYER, (HttpFile(f"{rig.server.url}/licence"),), Digest.of(LICENCE), len(LICENCE), "licence"
    )
    weights = ResolvedFile(
        MODEL_LAYER, (HttpFile(f"{rig.server.url}/model"),), Digest.of(rig.content), len(rig.content), "model"
    )
    return Puller(rig.store, [FixedSource((licence, weights))], rig.options, {})


async def break_off(rig: Rig) -> None:
    """Pull until the licence and a part of the weights are here."""
    rig.server.files["/licence"] = LICENCE
    rig.server.behaviour = Behaviour(bytes_per_second=lambda _: 300e3)
    async with contextlib.aclosing(puller(rig).pull(NAME)) as steps:
        async for step in steps:
            if (step.completed or 0) > 300_000:
                break
    rig.server.behaviour = Behaviour()


def test_each_file_is_told_with_what_it_would_free(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    blob = store.add_blob([b"nobody needs this"])
    (tmp_path / "partials" / "left").write_bytes(b"by a writer that died")
    age(store)
    young = store.add_blob([b"perhaps of a creation under way"])
    found = find_garbage(store)
    assert {(one.kind, one.path.name, one.size) for one in found.files} == {
        (Kind.BLOB, blob.digest.file_name, 17),
        (Kind.LEFTOVER, "left", 21),
    }
    assert (found.size, found.too_young_size) == (38, young.size)
    assert store.has_blob(blob.digest)
    collected = collect_garbage(store)
    assert {one.path for one in collected.files} == {one.path for one in found.files}
    assert not any(one.path.exists() for one in found.files)
    assert store.has_blob(young.digest)
    assert find_garbage(store).files == ()


def test_a_file_with_another_name_elsewhere_frees_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    blob = store.add_blob([b"shared"])
    os.link(store.blob_path(blob.digest), tmp_path / "elsewhere")
    age(store)
    (garbage,) = find_garbage(store).files
    assert garbage.size == 0


async def test_what_an_unfinished_pull_has_fetched_is_no_garbage(rig: Rig, received: Received) -> None:
    await break_off(rig)
    age(rig.store)
    assert find_garbage(rig.store).files == ()
    rig.store.prune(0)
    kept = rig.kept()
    async for _ in puller(rig).pull(NAME):
        pass
    assert rig.store.find(NAME).licenses == [LICENCE.decode()]
    assert kept >= 300_000
    assert received.total == len(LICENCE) + len(rig.content)
    assert list(rig.store.blobs.pulls.all()) == []


async def test_unfinished_pulls_are_listed_and_thrown_away_by_name(rig: Rig) -> None:
    await break_off(rig)
    (model,) = list_partial_models(rig.store)
    assert model.name == NAME
    assert model.size == len(LICENCE) + len(rig.content)
    assert model.completed == len(LICENCE) + rig.kept()
    assert not model.is_active
    with pytest.raises(ModelNotFound):
        remove_partial(rig.store, "another/model")
    remove_partial(rig.store, NAME.short.upper())
    assert list_partial_models(rig.store) == []
    assert rig.kept() == 0
    age(rig.store)
    assert [one.digest for one in find_garbage(rig.store).files] == [Digest.of(LICENCE)]


async def test_a_partial_is_thrown_away_by_the_beginning_of_its_digest(rig: Rig) -> None:
    await break_off(rig)
    remove_partial(rig.store, Digest.of(rig.content).short)
    assert rig.kept() == 0


async def test_what_is_being_fetched_is_not_thrown_away(rig: Rig) -> None:
    await break_off(rig)
    lock = rig.store.blobs.try_lock(Digest.of(rig.content).file_name)
    assert lock is not None
    try:
        (model,) = list_partial_models(rig.store)
        assert model.is_active
        with pytest.raises(ModelInUse):
            remove_partial(rig.store, NAME.short)
    finally:
        lock.release()
    assert rig.kept() > 0


async def test_a_pull_of_which_nothing_came_leaves_no_trace(rig: Rig) -> None:
    rig.server.files.clear()
    with pytest.raises(Exception, match="404"):
        async for _ in puller(rig).pull(NAME):
            pass
    assert list(rig.store.blobs.pulls.all()) == []
    assert list_partial_models(rig.store) == []
