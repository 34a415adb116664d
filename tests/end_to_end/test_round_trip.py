"""A model from the package index, made into another, sent to a real registry and fetched into an empty store."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.manifests import Manifests
from registry.name import ModelName
from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon, running_daemon
from tests.registry import real_registry
from tests.registry.real_registry import RealRegistry

MODELFILE = f"""# A model made of another.
FROM {MODEL}
SYSTEM You are a lighthouse keeper.
PARAMETER temperature 0
PARAMETER stop "<|end|>"
MESSAGE user What do you keep?
MESSAGE assistant The light.
LICENSE \"\"\"As you like it.\"\"\"
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry.running(tmp_path / "registry") as registry:
        yield registry


def puna(daemon: Daemon, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "cli", *arguments]
    done = subprocess.run(command, env=daemon.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


def manifest_bytes(daemon: Daemon, name: str) -> bytes:
    found = Manifests(daemon.models).find(ModelName.parse(name))
    assert found is not None
    return found[1].read_bytes()


def blobs(daemon: Daemon, manifest: bytes) -> dict[str, str]:
    """Each digest a manifest names, and the one its file really has."""
    told = json.loads(manifest)
    names = [part["digest"] for part in (told["config"], *told["layers"])]
    found = {}
    for name in names:
        with (daemon.models / "blobs" / name.replace(":", "-")).open("rb") as file:
            found[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return found


def answer(daemon: Daemon, name: str) -> str:
    # Without guesses, which are made or not by how long things took, every step has the same shape.
    options = ("-o", "num_predict=12", "-o", "draft_num_predict=0")
    return puna(daemon, "run", name, "Say where you are.", *options)


def test_pull_verify_create_push_and_pull_elsewhere_keep_every_byte(
    daemon: Daemon, registry: RealRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/me/keeper:v1"
    assert "sound" in puna(daemon, "verify", MODEL)
    recipe = tmp_path / "Modelfile"
    recipe.write_text(MODELFILE)
    puna(daemon, "create", name, "-f", str(recipe))
    puna(daemon, "registry", "add", registry.host, "--insecure")
    puna(daemon, "push", name)
    made = manifest_bytes(daemon, name)
    assert registry.blob_bytes(f"sha256:{hashlib.sha256(made).hexdigest()}") == made
    said = answer(daemon, name)
    shown = puna(daemon, "show", name, "--modelfile")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with running_daemon(elsewhere, elsewhere / "models") as other:
        puna(other, "registry", "add", registry.host, "--insecure")
        puna(other, "pull", name)
        fetched = manifest_bytes(other, name)
        assert fetched == made
        assert blobs(other, fetched) == blobs(daemon, made)
        assert all(name == digest for name, digest in blobs(other, fetched).items())
        assert "sound" in puna(other, "verify", name)
        assert answer(other, name) == said
        assert puna(other, "show", name, "--modelfile").splitlines()[-10:] == shown.splitlines()[-10:]
