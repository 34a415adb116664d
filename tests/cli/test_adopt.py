"""`puna adopt` and `puna export` on the command line: what is printed, and the exit codes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.originals import tell_original
from cli.outcome import exit_code_of
from registry.name import ModelName
from registry.store import ModelStore
from tests.cli.fake_daemon import SMOL, FakeDaemon
from tests.registry.other_programs import gguf, write_ollama_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PUNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("PUNA_HOST", "PUNA_MODELS", "PUNA_STORE_LAYERS", "OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "one.gguf").write_bytes(gguf(1))
    return folder


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this system has no second file system")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def store(home: Path) -> ModelStore:
    return ModelStore(home / "models")


def test_a_dry_run_shows_names_and_changes_nothing(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["adopt", str(folder), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (model,) = shown["models"]
    assert (model["name"], model["how"], model["state"]) == ("one:latest", "shared", "new")
    assert shown["unusable"] == []
    assert not home.exists()


def test_what_was_adopted_is_listed_and_again_it_is_known(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["adopt", str(folder), "--name", "me/mine:1"]) == 0
    assert store(home).find(ModelName.parse("me/mine:1")).model_path.read_bytes() == gguf(1)
    assert "adopted" in capsys.readouterr().out
    assert exit_code_of(["adopt", str(folder), "--name", "me/mine:1"]) == 0
    assert "already here" in capsys.readouterr().out


def test_a_taken_name_and_a_file_that_is_no_model_make_it_fail(
    home: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["adopt", str(folder)]) == 0
    (folder / "one.gguf").unlink()
    (folder / "one.gguf").write_bytes(gguf(2))
    assert exit_code_of(["adopt", str(folder)]) == 1
    assert "another model has the name. Replace it with --force" in capsys.readouterr().err
    assert exit_code_of(["adopt", str(folder), "--force"]) == 0
    (folder / "bad.gguf").write_bytes(b"bad")
    assert exit_code_of(["adopt", str(folder)]) == 1
    assert "Not adopted" in capsys.readouterr().err


def test_without_a_path_the_usual_places_are_looked_through(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(["adopt", "--dry-run"]) == 1
    assert "name a folder" in capsys.readouterr().err
    write_ollama_model(tmp_path / "ollama", "tiny", gguf())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    assert exit_code_of(["adopt"]) == 0
    assert [model.name.short for model in store(home).models()] == ["tiny:latest"]


@pytest.mark.parametrize("arguments", [["adopt"], ["export", "x", "out"]])
def test_a_daemon_on_another_machine_is_told_apart(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setenv("PUNA_HOST", "192.0.2.1:11434")
    assert exit_code_of(arguments) == 2
    assert "works on files of this machine, and PUNA_HOST names another one" in capsys.readouterr().err
    assert not home.exists()


def test_an_export_prints_its_files_and_refuses_to_overwrite(
    home: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code_of(["adopt", str(folder)])
    assert exit_code_of(["export", "ONE", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "one.gguf") in capsys.readouterr().out
    assert exit_code_of(["export", "one", str(tmp_path / "out")]) == 2
    assert "There is a one.gguf" in capsys.readouterr().err
    assert exit_code_of(["export", "one", str(tmp_path / "out"), "--force"]) == 0
    assert exit_code_of(["export", "two", str(tmp_path / "out")]) == 66


def test_layers_of_the_store_are_exported_too(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ollama_model(tmp_path / "below", "tiny", gguf())
    monkeypatch.setenv("PUNA_STORE_LAYERS", str(tmp_path / "below"))
    assert exit_code_of(["export", "tiny", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tiny.gguf").read_bytes() == gguf()


def test_the_file_that_is_gone_is_named_to_its_user(
    home: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "one.gguf").write_bytes(gguf(1))
    assert exit_code_of(["adopt", str(elsewhere)]) == 0
    assert exit_code_of(["adopt", "--status"]) == 0
    (elsewhere / "one.gguf").unlink()
    capsys.readouterr()
    assert exit_code_of(["adopt", "--status"]) == 1
    assert f"gone {elsewhere / 'one.gguf'}" in " ".join(capsys.readouterr().out.split())
    digest = str(store(home).find(ModelName.parse("one")).model_digest)
    tell_original(digest)
    assert capsys.readouterr().err == f"The file is {elsewhere / 'one.gguf'}\n"
    tell_original("nonsense")
    assert capsys.readouterr().err == ""


def test_verifying_and_listing_name_the_file_that_is_gone_and_what_helps(
    home: Path, elsewhere: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "one.gguf").write_bytes(gguf(1))
    assert exit_code_of(["adopt", str(elsewhere)]) == 0
    digest = str(store(home).find(ModelName.parse("one")).model_digest)
    monkeypatch.setenv("PUNA_HOST", daemon.host)
    file = {
        "digest": digest, "size": 9, "state": "missing", "damaged_bytes": 9, "models": ["one:latest"], "in_place": True
    }  # fmt: skip
    daemon.routes["POST /api/verify"] = lambda _: [
        {"status": "verified", "models": ["one:latest"], "damaged": 1, "files": [file]}
    ]
    entry = {**SMOL, "name": "one:latest", "damaged": True, "damaged_in_place": [digest]}
    daemon.routes["GET /api/tags"] = lambda _: {"models": [entry]}
    capsys.readouterr()
    for command, state in (["verify", "one"], "has changed"), (["list"], "is gone"):
        if state == "is gone":
            (elsewhere / "one.gguf").unlink()
        assert exit_code_of(command) == (1 if command[0] == "verify" else 0)
        told = capsys.readouterr().err
        assert f"one:latest uses {elsewhere / 'one.gguf'}, which {state}: put it back as it was" in told
        assert "`puna rm one:latest`" in told
        assert "repair" not in told
    monkeypatch.setenv("PUNA_MODELS", str(elsewhere))
    assert exit_code_of(["list"]) == 0
    assert "`puna adopt --status` on the daemon's machine names it" in capsys.readouterr().err
