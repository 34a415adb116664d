"""Where manifests lie: any case is one name, and a port's colon is written as the disk allows."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from registry.file_system import Abilities, probe
from registry.manifests import Manifests
from registry.name import ModelName
from registry.store import ModelStore
from tests.registry.stores import A, install

PORT = ModelName.parse("localhost:5000/me/x:1")


def folds_case(store: ModelStore) -> None:
    """Let the disk look like one where case does not count."""
    (store.root / "MANIFESTS").symlink_to(store.root / "manifests")


@pytest.fixture
def no_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses colons in names, as exFAT does."""
    real = Path.mkdir

    def mkdir(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if ":" in str(self):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
        real(self, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no colons in names")
def test_a_port_is_written_as_other_programs_expect_it(store: ModelStore) -> None:
    install(store, PORT)
    assert (store.root / "manifests" / "localhost:5000" / "me" / "x" / "1").is_file()


@pytest.mark.usefixtures("no_colons")
def test_a_port_is_written_otherwise_where_colons_are_refused_and_found_all_the_same(store: ModelStore) -> None:
    install(store, PORT)
    path = store.root / "manifests" / "localhost%3A5000" / "me" / "x" / "1"
    assert path.is_file()
    assert [model.name for model in store.models()] == [PORT]
    assert store.find(ModelName.parse("LocalHost:5000/me/X:1")).name == PORT
    store.copy(PORT, A)
    install(store, PORT)
    store.delete(PORT)
    assert not path.exists()
    assert [model.name for model in store.models()] == [A]


def test_on_a_disk_where_case_does_not_count_a_name_keeps_its_spelling(store: ModelStore) -> None:
    install(store, ModelName.parse("SmolLM2"))
    folds_case(store)
    again = ModelStore(store.root)
    assert again.find(ModelName.parse("smollm2")).name.model == "SmolLM2"
    again.copy(ModelName.parse("smollm2"), ModelName.parse("SMOLLM2"))
    assert [model.name.model for model in again.models()] == ["SmolLM2"]
    again.delete(ModelName.parse("SMOLlm2"))
    assert again.models() == []


def test_names_that_no_system_could_have_are_passed_over(tmp_path: Path) -> None:
    for part in ("con", "x y", ".hidden", "a."):
        folder = tmp_path / "manifests" / "host" / "me" / part
        folder.mkdir(parents=True)
        (folder / "latest").write_bytes(b"{}")
    assert list(Manifests(tmp_path).names()) == []
    assert len(list(Manifests(tmp_path).files())) == 3


def test_what_a_disk_can_do_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    assert probe(tmp_path) == Abilities()
    assert list((tmp_path / "partials").iterdir()) == []
    assert Abilities().lacks == ()
    assert len(Abilities(locks=False, shares=False).lacks) == 2


def test_a_disk_that_cannot_be_written_is_told_apart(as_reader: Path) -> None:
    assert probe(as_reader) is None
