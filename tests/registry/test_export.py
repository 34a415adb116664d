"""Exporting: a model as plain files, from which it can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry import export as export_module
from registry.create import create_model
from registry.digest import Digest
from registry.errors import DiskFull, InvalidRequest, ModelCorrupt
from registry.export import MODELFILE, Export, export_model
from registry.linking import Way
from registry.manifest import PARAMS_LAYER, PROJECTOR_LAYER, Layer, Manifest
from registry.modelfile import parse_modelfile
from registry.modelfile_text import decode_modelfile
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from registry.stored_model import StoredModel
from tests.registry.other_programs import gguf, projector, shards

NAME = ModelName.parse("Acme/Tiny:q8")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def quietly(_what: str, _done: int, _total: int) -> None:
    pass


async def make(store: ModelStore, name: ModelName = NAME, *files: bytes, **said: object) -> StoredModel:
    uploaded = {f"{number}.gguf": store.add_blob([content]).digest for number, content in enumerate(files or (gguf(),))}
    async for _ in create_model(store, Recipe(name, files=uploaded, **said)):  # type: ignore[arg-type]
        pass
    return store.find(name)


async def make_again(store: ModelStore, folder: Path, name: ModelName) -> StoredModel:
    """As `puna create -f` does: upload what the Modelfile names, and send what it says."""
    modelfile = parse_modelfile(decode_modelfile((folder / MODELFILE).read_bytes()))
    files = {
        text: store.add_blob([(folder / text).read_bytes()]).digest for text in (modelfile.from_, *modelfile.also_from)
    }
    recipe = Recipe(
        name,
        files=files,
        template=modelfile.template,
        system=modelfile.system,
        parameters=modelfile.parameters,
        messages=modelfile.messages,
        licenses=modelfile.licenses,
    )
    async for _ in create_model(store, recipe):
        pass
    return store.find(name)


def export(model: StoredModel, folder: Path, *, force: bool = False) -> Export:
    return export_model(model, folder, quietly, force=force)


async def test_an_exported_model_can_be_made_again(store: ModelStore, tmp_path: Path) -> None:
    model = await make(
        store,
        template='{{ messages[0].content }}\n"""\n',
        system='Say "yes".\r\n',
        parameters={"temperature": 0.25, "stop": ["\n", " x "], "num_ctx": 64},
        messages=[("user", "hi"), ("assistant", "")],
        licenses=["MIT\n\n", "other"],
    )
    done = export(model, tmp_path / "out")
    assert [file.name for file in done.files] == ["Tiny-q8.gguf", MODELFILE]
    assert done.left_out == ()
    again = await make_again(ModelStore(tmp_path / "second"), tmp_path / "out", ModelName.parse("again"))
    assert again.model_digest == model.model_digest
    for part in ("template", "system", "parameters", "messages", "licenses"):
        assert getattr(again, part) == getattr(model, part), part


async def test_shards_and_projectors_are_files_of_their_own(store: ModelStore, tmp_path: Path) -> None:
    model = await make(store, ModelName.parse("big"), *shards(2), projector())
    done = export(model, tmp_path / "out")
    assert [file.name for file in done.files] == [
        "big-00001-of-00002.gguf",
        "big-00002-of-00002.gguf",
        "mmproj-big.gguf",
        MODELFILE,
    ]
    again = await make_again(ModelStore(tmp_path / "second"), tmp_path / "out", ModelName.parse("again"))
    assert again.model_digest == model.model_digest
    assert again.manifest.of_type(PROJECTOR_LAYER) == model.manifest.of_type(PROJECTOR_LAYER)


async def test_an_export_is_independent_of_the_store(store: ModelStore, tmp_path: Path) -> None:
    model = await make(store)
    file, _ = export(model, tmp_path / "out").files
    assert not file.samefile(model.model_path)
    with file.open("r+b") as opened:
        opened.write(b"XXXX")
    model.verify_unchanged()
    assert Digest.of(model.model_path.read_bytes()) == model.model_digest


async def test_nothing_is_overwritten_unless_forced(store: ModelStore, tmp_path: Path) -> None:
    model = await make(store)
    out = tmp_path / "out"
    out.mkdir()
    (out / MODELFILE).write_text("mine")
    with pytest.raises(InvalidRequest, match="There is a Modelfile in"):
        export(model, out)
    assert [file.name for file in out.iterdir()] == [MODELFILE]
    assert (out / MODELFILE).read_text() == "mine"
    export(model, out, force=True)
    assert "FROM ./Tiny-q8.gguf" in (out / MODELFILE).read_text()
    (out / "Tiny-q8.gguf").unlink()
    (out / "Tiny-q8.gguf").mkdir()
    with pytest.raises(InvalidRequest, match="in the way"):
        export(model, out, force=True)


async def test_a_dangling_link_is_not_written_through(store: ModelStore, tmp_path: Path) -> None:
    model = await make(store)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Tiny-q8.gguf").symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidRequest, match="There is a Tiny"):
        export(model, tmp_path / "out")
    assert not (tmp_path / "victim").exists()


async def test_damage_and_a_full_disk_leave_no_file(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await make(store)
    content = bytearray(model.model_path.read_bytes())

    def fail(*_: object) -> Way:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "_write_text", fail)
        with pytest.raises(DiskFull):
            export(model, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    content[-1] ^= 1
    model.model_path.write_bytes(content)
    os.utime(model.model_path, (1, 1))
    with pytest.raises(ModelCorrupt):
        export(store.find(NAME), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


async def test_what_a_modelfile_cannot_tell_is_told(store: ModelStore, tmp_path: Path) -> None:
    model = await make(store)
    params = store.add_blob([b'{"temperature": 1, "mirostat_new": 3}'])
    layers = (*model.manifest.layers, Layer(PARAMS_LAYER, params.digest, params.size))
    store.write_manifest(NAME, Manifest(model.manifest.config, layers))
    done = export(store.find(NAME), tmp_path / "out")
    assert done.left_out == ("the parameter mirostat_new 3",)
    assert parse_modelfile(done.files[-1].read_text()).parameters == {"temperature": 1.0}
