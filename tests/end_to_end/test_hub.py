"""Models of a hub on this machine, from finding them to fetching them again when they have changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Daemon, running_daemon
from tests.registry.fake_hub import TOKEN, FakeHub
from tests.registry.model_parts import projector
from tests.tiny_model import write_tiny_model

NAME = "hf.co/owner/tiny-GGUF:Q4_0"


def tiny(folder: Path, seed: int) -> bytes:
    return write_tiny_model(folder / f"{seed}.gguf", seed=seed).read_bytes()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub().running() as hub:
        files = {"tiny-Q4_0.gguf": tiny(tmp_path, 1), "tiny-Q8_0.gguf": tiny(tmp_path, 2), "LICENSE": b"free"}
        hub.add("owner/tiny-GGUF", files, gguf={"total": 90_000, "context_length": 512})
        yield hub


@pytest.fixture
def daemon(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    home = tmp_path / "home"
    home.mkdir()
    cdn = hub.cdn.removeprefix("http://")
    (home / "config.toml").write_text(f'[registries."{cdn}"]\ninsecure = true\n[pull]\nkeep_free_bytes = 0\n')
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_daemon(home, tmp_path / "models") as daemon:
        yield daemon


def puna(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", *arguments],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def pull(daemon: Daemon, **body: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.client.post("/api/pull", json=body).text.splitlines()]


def states(daemon: Daemon) -> dict[str, str]:
    return {one["name"]: one["state"] for one in daemon.client.get("/api/outdated").json()["models"]}


def test_a_model_of_the_hub_is_pulled_run_and_updated(hub: FakeHub, daemon: Daemon, tmp_path: Path) -> None:
    assert puna(daemon, "pull", NAME).returncode == 0
    answer = puna(daemon, "run", NAME, "hello", "-o", "num_predict=4")
    assert answer.returncode == 0, answer.stderr
    assert puna(daemon, "show", NAME, "--license").stdout.strip() == "free"
    assert states(daemon) == {NAME: "current"}
    assert "up to date" in puna(daemon, "update", NAME).stdout

    hub.repositories["owner/tiny-GGUF"].commit({"tiny-Q4_0.gguf": tiny(tmp_path, 3)})
    assert states(daemon) == {NAME: "outdated"}
    told = puna(daemon, "outdated")
    assert "changed at its source: weights" in told.stdout and "puna update" in told.stderr
    assert puna(daemon, "update", "--all").returncode == 0
    assert states(daemon) == {NAME: "current"}
    assert "Nothing to update." in puna(daemon, "update", "--all").stdout

    # The token is the hub's own; the host with the files has never seen it.
    assert all(one.headers.get("authorization") == f"Bearer {TOKEN}" for one in hub.asked)
    assert hub.asked_cdn and not any("authorization" in one.headers for one in hub.asked_cdn)


def test_a_model_in_shards_is_one_model(hub: FakeHub, daemon: Daemon, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "big-Q4_K_M.gguf", max_tensors=8)
    shards = sorted(tmp_path.glob("big-Q4_K_M-*.gguf"))
    assert len(shards) == 3
    hub.add("owner/big", {f"Q4_K_M/{shard.name}": shard.read_bytes() for shard in shards})
    assert pull(daemon, model="hf.co/owner/big")[-1] == {"status": "success"}
    greedy = ("hello", "-o", "num_predict=4", "-o", "temperature=0")
    answer = puna(daemon, "run", "hf.co/owner/big", *greedy)
    assert answer.returncode == 0, answer.stderr
    assert states(daemon) == {"hf.co/owner/big:latest": "current"}
    folder = tmp_path / "folder"
    folder.mkdir()
    for shard in shards:
        shard.rename(folder / shard.name)
    assert puna(daemon, "pull", str(folder), "--as", "from-folder").returncode == 0
    assert puna(daemon, "run", "from-folder", *greedy).stdout == answer.stdout


def test_a_copy_and_a_model_under_another_name_remember_where_they_came_from(hub: FakeHub, daemon: Daemon) -> None:
    assert pull(daemon, model=NAME, **{"as": "mine"})[-1] == {"status": "success"}
    assert puna(daemon, "cp", "mine", "yours").returncode == 0
    assert states(daemon) == {"mine:latest": "current", "yours:latest": "current"}
    url = f"{hub.endpoint}/owner/tiny-GGUF/resolve/{hub.repositories['owner/tiny-GGUF'].sha}/tiny-Q8_0.gguf"
    created = daemon.client.post("/api/create", json={"model": "own", "from": "mine", "system": "Be kind."})
    assert json.loads(created.text.splitlines()[-1]) == {"status": "success"}
    assert states(daemon)["own:latest"] == "unknown"
    assert pull(daemon, model=url)[-1]["code"] == "registry_forbidden"
    assert pull(daemon, model=NAME, **{"as": "../up"})[-1]["code"] == "invalid_request"


def test_a_file_behind_an_address_becomes_a_model(hub: FakeHub, daemon: Daemon) -> None:
    """The CDN's host is listed; what it serves needs no hub."""
    [entry] = [file for file in hub.repositories["owner/tiny-GGUF"].files.items() if file[0] == "tiny-Q8_0.gguf"]
    hub.plain["/files/Tiny Model-Q8_0.gguf"] = entry[1]
    steps = pull(daemon, model=f"{hub.cdn}/files/Tiny%20Model-Q8_0.gguf")
    assert steps[-1] == {"status": "success"}, steps
    assert states(daemon) == {"tiny-model:Q8_0": "unknown"}
    answer = puna(daemon, "run", "tiny-model:q8_0", "hello", "-o", "num_predict=4")
    assert answer.returncode == 0, answer.stderr
    hub.plain["/files/Tiny Model-Q8_0.gguf"] = entry[1] + b"\0" * 32
    assert states(daemon) == {"tiny-model:Q8_0": "outdated"}
    missing = pull(daemon, model=f"{hub.cdn}/files/none.gguf")
    assert missing[-1]["code"] == "model_not_found"


def test_the_search_tells_what_there_is_and_what_is_here(hub: FakeHub, daemon: Daemon) -> None:
    assert puna(daemon, "pull", NAME).returncode == 0
    found = {one["name"]: one for one in daemon.client.get("/api/search", params={"q": "tiny"}).json()["models"]}
    [model] = found.values()
    assert model["name"] == "hf.co/owner/tiny-GGUF"
    assert model["quantizations"] == ["Q4_0", "Q8_0"] and model["installed"] == [NAME]
    assert model["size_is_estimate"] and model["fit"] in ("memory", "gpu")
    shown = puna(daemon, "search", "tiny")
    assert "hf.co/owner/tiny-GGUF" in shown.stdout and "~" in shown.stdout
    everything = puna(daemon, "search", "--offline")
    assert "smollm2:135m" in everything.stdout and "hf.co" not in everything.stdout


def test_without_the_hub_the_search_has_the_catalog_and_says_so(hub: FakeHub, daemon: Daemon) -> None:
    hub.behaviour.statuses = [503] * 20
    shown = puna(daemon, "search", "smollm2")
    assert shown.returncode == 0
    assert "smollm2:135m" in shown.stdout
    assert shown.stderr.startswith("Only the catalog was searched: ") and len(shown.stderr.splitlines()) == 1


def test_a_file_of_this_machine_becomes_a_model(daemon: Daemon, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "Some-Model.Q4_1.gguf")
    taken = puna(daemon, "pull", str(tmp_path / "Some-Model.Q4_1.gguf"))
    assert taken.returncode == 0, taken.stderr
    assert states(daemon) == {"some-model:Q4_1": "unknown"}
    assert puna(daemon, "pull", "./absent.gguf").returncode == 2
    refused = puna(daemon, "update", "some-model:q4_1")
    assert refused.returncode == 1 and "it is not known where it came from" in refused.stderr


def test_a_projector_comes_along_and_a_gated_model_says_what_to_do(
    hub: FakeHub, daemon: Daemon, tmp_path: Path
) -> None:
    files = {"m-Q4_K_M.gguf": tiny(tmp_path, 4), "mmproj-F16.gguf": projector(), "mmproj-F32.gguf": projector()}
    hub.add("owner/seeing", files)
    steps = pull(daemon, model="hf.co/owner/seeing")
    assert steps[-1] == {"status": "success"}, steps
    assert len({step["digest"] for step in steps if "digest" in step}) == 2
    answer = puna(daemon, "run", "hf.co/owner/seeing", "hello", "-o", "num_predict=4")
    assert answer.returncode == 0, answer.stderr

    hub.add("owner/gated", {"m-Q4_K_M.gguf": tiny(tmp_path, 5)}, gated=True)
    hub.behaviour.granted = False
    refused = puna(daemon, "pull", "hf.co/owner/gated")
    assert refused.returncode == 77
    assert f"open {hub.endpoint}/owner/gated with that account, accept them" in refused.stderr
