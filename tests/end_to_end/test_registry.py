"""A model on its way to a registry and back, by the command line and by the official client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.end_to_end.conftest import TIMEOUT, Daemon, running_daemon
from tests.registry import real_registry
from tests.registry.real_registry import PASSWORD, USER, RealRegistry
from tests.tiny_model import write_tiny_model

NOT_ALLOWED = 77


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry.running(tmp_path / "registry", htpasswd=True) as registry:
        yield registry


@pytest.fixture
def empty_daemon(tmp_path: Path) -> Iterator[Daemon]:
    home = tmp_path / "home"
    home.mkdir()
    with running_daemon(home, tmp_path / "models") as daemon:
        yield daemon


@pytest.fixture
def client(empty_daemon: Daemon) -> Iterator[ollama.Client]:
    client = ollama.Client(host=empty_daemon.url)
    yield client
    client._client.close()


def puna(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-P", "-m", "cli", *arguments]
    done = subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_model_goes_to_a_registry_and_comes_back_the_same(empty_daemon: Daemon, registry: RealRegistry) -> None:
    daemon = empty_daemon
    name = f"{registry.host}/me/tiny:v1"
    puna(daemon, "create", name, "--from", str(write_tiny_model(daemon.home / "tiny.gguf")))
    [made] = daemon.client.get("/api/tags").json()["models"]
    assert f"puna registry add {registry.host}" in puna(daemon, "push", name, code=NOT_ALLOWED)
    # The daemon that runs already learns of it.
    puna(daemon, "registry", "add", registry.host, "--insecure")
    assert "wants a login" in puna(daemon, "push", name, code=NOT_ALLOWED)
    config = daemon.home / "config.toml"
    config.write_text(f'{config.read_text()}credentials = "{USER}:{PASSWORD}"\n')
    assert puna(daemon, "push", name).rstrip().endswith("success")
    puna(daemon, "rm", name)
    assert puna(daemon, "pull", name).rstrip().endswith("success")
    [fetched] = daemon.client.get("/api/tags").json()["models"]
    assert (fetched["name"], fetched["digest"], fetched["size"]) == (name, made["digest"], made["size"])
    answer = daemon.client.post("/api/generate", json={"model": name, "prompt": "a", "options": {"num_predict": 1}})
    assert answer.status_code == 200


def test_the_official_client_pushes_and_pulls(
    empty_daemon: Daemon, client: ollama.Client, registry: RealRegistry
) -> None:
    daemon = empty_daemon
    name = f"{registry.host}/me/theirs"
    puna(daemon, "create", name, "--from", str(write_tiny_model(daemon.home / "tiny.gguf")))
    puna(daemon, "registry", "add", registry.host)
    config = daemon.home / "config.toml"
    config.write_text(f'{config.read_text()}credentials = "{USER}:{PASSWORD}"\n')
    told = [step.status for step in client.push(name, insecure=True, stream=True)]
    assert (told[0], told[-2:]) == ("retrieving manifest", ["pushing manifest", "success"])
    client.delete(name)
    assert client.pull(name, insecure=True).status == "success"
    with pytest.raises(ollama.ResponseError) as refused:
        client.push(f"{registry.host}/me/absent", insecure=True)
    assert refused.value.status_code == 404
