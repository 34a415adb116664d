"""Debian's `docker-registry`, on loopback, with a storage folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.registry.token_server import CERTIFICATE_PEM, ISSUER, SERVICE

USER, PASSWORD = "me", "open sesame"
_HTPASSWD = "me:$2b$04$gcz9a8LVDZsYDXpvhjONnuWczaH2sRHt1hKWNv3YclIuzJIlrNmX.\n"
_LISTENING = re.compile(rb"listening on (127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class RealRegistry:
    host: str
    """As it stands in a model's name."""
    storage: Path

    def blob_bytes(self, digest: str) -> bytes:
        """A blob as the registry has it on its disk."""
        name = digest.removeprefix("sha256:")
        return (self.storage / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data").read_bytes()


def program() -> str:
    """The registry's program; without it tests fail where it can be installed, and are skipped elsewhere."""
    path = os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ.get("PATH", "")))
    found = shutil.which("docker-registry", path=path)
    if found is not None:
        return found
    advice = "Debian's package docker-registry is not here; scripts/test fetches it where there is apt-get"
    if sys.platform == "linux" and (os.environ.get("CI") or shutil.which("apt-get")):
        pytest.fail(f"{advice}, and `apt-get install docker-registry` does.", pytrace=False)
    pytest.skip(advice)


@contextlib.contextmanager
def running(folder: Path, *, htpasswd: bool = False, realm: str | None = None) -> Iterator[RealRegistry]:
    """A registry that anyone may use, or one with a password, or with a token server at `realm`."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / "storage"
    config = folder / "config.yml"
    config.write_text(_config(folder, storage, htpasswd=htpasswd, realm=realm), encoding="utf-8")
    process = subprocess.Popen(
        [program(), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    )
    assert process.stderr is not None
    try:
        said = b""
        while (match := _LISTENING.search(said)) is None:
            line = process.stderr.readline()
            assert line, f"docker-registry did not start: {said.decode(errors='replace')}"
            said += line
        # A full pipe would stop the registry.
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield RealRegistry(match[1].decode(), storage)
        finally:
            process.kill()
            drain.join()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}


def _config(folder: Path, storage: Path, *, htpasswd: bool, realm: str | None) -> str:
    text = (
        "version: 0.1\n"
        "log: {level: info}\n"
        f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        "http: {addr: '127.0.0.1:0', secret: for tests}\n"
    )
    if htpasswd:
        (folder / "htpasswd").write_text(_HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}}}\n"
    if realm is not None:
        (folder / "certificate.pem").write_text(CERTIFICATE_PEM)
        bundle = folder / "certificate.pem"
        text += f"auth: {{token: {{realm: {realm}, service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {bundle}}}}}\n"
    return text
