"""What a daemon clears away when it starts, and what it leaves."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import StoreReadOnly
from registry.file_system import Abilities
from registry.paths import Paths
from registry.store import ModelStore
from runner.tidying import MIN_AGE_SECONDS, is_own_store, look_at, tidy, tidy_in_background


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """With an old and a new blob that no model names, and an old and a new partial."""
    store = ModelStore(tmp_path / "models")
    (store.root / "partials").mkdir(parents=True)
    for age in ("old", "new"):
        store.add_blob([age.encode()])
        (store.root / "partials" / age).write_text(age)
    long_ago = time.time() - MIN_AGE_SECONDS - 60
    for path in (store.blob_path(Digest.of(b"old")), store.root / "partials" / "old"):
        os.utime(path, (long_ago, long_ago))
    return store


def left(store: ModelStore) -> tuple[set[str], set[str]]:
    blobs = {age for age in ("old", "new") if store.blob_path(Digest.of(age.encode())).exists()}
    return blobs, {path.name for path in (store.root / "partials").iterdir()}


def test_old_leftovers_go_and_young_ones_stay(store: ModelStore) -> None:
    tidy_in_background(store, is_own=True).join(20)
    assert left(store) == ({"new"}, {"new"})


def test_of_a_store_that_others_may_use_only_our_partials_go(store: ModelStore) -> None:
    tidy(store, is_own=False)
    assert left(store) == ({"old", "new"}, {"new"})


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for is_own in (True, False):
        tidy(ModelStore(tmp_path / "models"), is_own=is_own)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_left_in_silence(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: float) -> None:
        raise StoreReadOnly("read-only")

    monkeypatch.setattr(store, "prune", refuse)
    tidy(store, is_own=True)
    assert left(store) == ({"old", "new"}, {"old", "new"})
    assert not caplog.records


def test_what_goes_wrong_is_logged_and_harms_nothing(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: float) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(store, "prune", fail)
    with caplog.at_level(logging.WARNING):
        tidy(store, is_own=True)
    assert "the disk is gone" in caplog.text


def test_a_store_is_our_own_where_nobody_named_another_folder(tmp_path: Path) -> None:
    home = {"PUNA_HOME": str(tmp_path)}
    named = home | {"PUNA_MODELS": str(tmp_path / "ollama")}
    assert is_own_store(Paths.from_environment(home), home)
    assert not is_own_store(Paths.from_environment(named), named)
    same = home | {"PUNA_MODELS": str(tmp_path / "models")}
    assert is_own_store(Paths.from_environment(same), same)


def test_what_is_wrong_with_the_disk_is_told_once_when_the_daemon_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models", [tmp_path / "unplugged"])
    store.root.mkdir()
    look_at(store)
    assert [record.message for record in caplog.records] == [
        f"There is no model store at {tmp_path / 'unplugged'} (store.layers)."
    ]
    caplog.clear()
    for abilities, said in ((None, "can only be read"), (Abilities(locks=False), "no locks between processes")):
        monkeypatch.setattr("runner.tidying.probe", lambda _, abilities=abilities: abilities)
        look_at(ModelStore(store.root))
        assert said in caplog.records[-1].message
    assert len(caplog.records) == 2
