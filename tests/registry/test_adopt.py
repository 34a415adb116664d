"""Adopting: models of other programs become the store's own, without a second copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import bringing
from registry.adopt import Adoption, State, adopt, foresee
from registry.adopt_places import default_places, find_models
from registry.digest import Digest
from registry.errors import (
    DigestMismatch,
    InvalidRequest,
    ModelCorrupt,
    ModelInvalid,
    ModelNotFound,
    RegistryError,
    SourceUnreachable,
)
from registry.found_models import FoundModel
from registry.linking import Way
from registry.manifest import MODEL_LAYER, PROJECTOR_LAYER
from registry.name import ModelName
from registry.progress import Notice
from registry.pull import Puller
from registry.repair import repair
from registry.sources.resolved import ResolvedModel
from registry.store import ModelStore
from tests.registry.other_programs import LARGE, gguf, projector, shards, write_hub_file, write_ollama_model

SHARED = {Way.CLONE, Way.HARD_LINK}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another disk than the store's."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this system has no second file system")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def quietly(_what: str, _done: int, _total: int) -> None:
    pass


def found(place: Path) -> dict[str, FoundModel]:
    findings = find_models(place)
    assert findings.unusable == ()
    return {model.name.short: model for model in findings.models}


def adopt_all(store: ModelStore, place: Path) -> list[Adoption]:
    return [adopt(store, model, quietly) for model in find_models(place).models]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_of_files_is_shared_and_not_copied(store: ModelStore, tmp_path: Path) -> None:
    file = write(tmp_path / "files" / "Some Model-Q4_0.gguf", gguf())
    (done,) = adopt_all(store, file.parent)
    assert done.state is State.NEW
    assert set(done.ways) <= SHARED
    model = store.find(ModelName.parse("some-model:Q4_0"))
    assert model.model_path.read_bytes() == gguf()
    assert model.config.model_family == "llama"
    if done.ways == (Way.HARD_LINK,):
        assert model.model_path.samefile(file)
    file.unlink()
    store.find(ModelName.parse("some-model:Q4_0")).verify_unchanged()


def test_every_layout_gives_the_names_people_know(tmp_path: Path) -> None:
    write_ollama_model(tmp_path / "ollama", "tiny", gguf(1))
    write(tmp_path / ".lmstudio" / "models" / "acme" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf", gguf(2))
    write_hub_file(tmp_path / "hub", "acme/Tiny-GGUF", "Tiny-Q8_0.gguf", gguf(3))
    write_hub_file(tmp_path / "hub", "acme/Tiny-GGUF", "old/Tiny-Q4_0.gguf", gguf(4), snapshot="b" * 40)
    write_hub_file(tmp_path / "hub", "acme/Tiny-GGUF", "Tiny-Q8_0.gguf", gguf(3), snapshot="c" * 40)
    write(tmp_path / "files" / "a" / "x.gguf", gguf(5))
    write(tmp_path / "files" / "b" / "x.gguf", gguf(6))
    assert set(found(tmp_path / "ollama")) == {"tiny:latest"}
    assert set(found(tmp_path / ".lmstudio")) == {"hf.co/acme/Tiny-GGUF:Q4_K_M"}
    assert set(found(tmp_path / "hub")) == {"hf.co/acme/Tiny-GGUF:Q8_0", "hf.co/acme/Tiny-GGUF:Q4_0"}
    assert set(found(tmp_path / "files")) == {"x:latest", "b-x:latest"}


def test_the_usual_places_are_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    (tmp_path / "moved" / "hub").mkdir(parents=True)
    places = default_places({"HF_HOME": str(tmp_path / "moved"), "OLLAMA_MODELS": str(tmp_path / "none")}, tmp_path)
    assert [place for place in places if place.is_relative_to(tmp_path)] == [
        tmp_path / ".ollama" / "models",
        tmp_path / "moved" / "hub",
    ]


def test_a_model_of_ollama_stays_what_it_was(store: ModelStore, tmp_path: Path) -> None:
    manifest = write_ollama_model(tmp_path / "ollama", "tiny", gguf())
    adopt_all(store, tmp_path / "ollama")
    model = store.find(ModelName.parse("tiny"))
    assert model.digest == Digest.of(manifest).hex
    assert (model.system, model.parameters) == ("Be brief.", {"temperature": 0.5})
    shutil.rmtree(tmp_path / "ollama")
    model = store.find(ModelName.parse("tiny"))
    model.verify_unchanged()
    assert model.system == "Be brief."


def test_shards_are_one_model_and_a_projector_is_attached(store: ModelStore, tmp_path: Path) -> None:
    for number, content in enumerate(shards(3), 1):
        write(tmp_path / "files" / f"big-0000{number}-of-00003.gguf", content)
    write(tmp_path / "files" / "mmproj-big-f16.gguf", projector())
    adopt_all(store, tmp_path / "files")
    (model,) = store.models()
    assert model.name.short == "big:latest"
    assert [path.read_bytes() for path in model.model_paths] == shards(3)
    assert len(model.manifest.of_type(PROJECTOR_LAYER)) == 1
    assert model.config.model_families == ("llama", "clip")


def test_a_projector_is_not_given_to_a_model_of_another_name(tmp_path: Path) -> None:
    for name in ("cat-Q4_0", "cat-Q8_0", "dog-Q4_0"):
        write(tmp_path / "files" / f"{name}.gguf", gguf())
    write(tmp_path / "files" / "mmproj-cat.gguf", projector())
    with_projector = {
        name for name, model in found(tmp_path / "files").items() if model.files[-1].media_type == PROJECTOR_LAYER
    }
    assert with_projector == {"cat:Q4_0", "cat:Q8_0"}


def test_what_is_no_model_is_told_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "f" / "bad.gguf", b"nonsense")
    write(tmp_path / "f" / "part-00001-of-00002.gguf", shards(2)[0])
    write(tmp_path / "f" / "good.gguf", gguf())
    findings = find_models(tmp_path / "f")
    assert [model.name.short for model in findings.models] == ["good:latest"]
    reasons = {one.path.name: one.reason for one in findings.unusable}
    assert "does not begin with GGUF" in reasons["bad.gguf"]
    assert "1 of its 2 shards are missing" in reasons["part-00001-of-00002.gguf"]
    with pytest.raises(InvalidRequest, match="There is no"):
        find_models(tmp_path / "nowhere")


def test_one_file_takes_its_shards_with_it(tmp_path: Path) -> None:
    for number, content in enumerate(shards(2), 1):
        write(tmp_path / "f" / f"big-0000{number}-of-00002.gguf", content)
    write(tmp_path / "f" / "other.gguf", gguf())
    (model,) = find_models(tmp_path / "f" / "big-00002-of-00002.gguf").models
    assert len(model.files) == 2
    (model,) = find_models(tmp_path / "f" / "other.gguf").models
    assert model.name.short == "other:latest"


def test_a_file_that_is_not_what_its_name_promises_is_not_adopted(store: ModelStore, tmp_path: Path) -> None:
    link = write_hub_file(tmp_path / "hub", "acme/x", "x-Q4_0.gguf", gguf())
    damaged = bytearray(gguf())
    damaged[-1] ^= 1
    link.resolve().write_bytes(damaged)
    with pytest.raises(DigestMismatch):
        adopt_all(store, tmp_path / "hub")
    assert store.models() == []
    assert not (store.root / "blobs").exists()


def test_adopting_again_changes_nothing_and_names_are_not_taken_from_others(store: ModelStore, tmp_path: Path) -> None:
    file = write(tmp_path / "f" / "x.gguf", gguf(1))
    adopt_all(store, file.parent)
    (again,) = adopt_all(store, file.parent)
    assert (again.state, again.ways) == (State.KNOWN, ())
    write(tmp_path / "g" / "X.gguf", gguf(2))
    (other,) = find_models(tmp_path / "g").models
    assert adopt(store, other, quietly).state is State.TAKEN
    write(tmp_path / "h" / "x.gguf", gguf(3, size=LARGE + 5))
    (larger,) = find_models(tmp_path / "h").models
    assert foresee(store, larger) is State.TAKEN
    assert adopt(store, larger, quietly, force=True).state is State.NEW
    (model,) = store.models()
    assert model.model_path.read_bytes() == gguf(3, size=LARGE + 5)


def test_a_copy_is_made_when_it_is_asked_for(store: ModelStore, tmp_path: Path) -> None:
    file = write(tmp_path / "f" / "x.gguf", gguf())
    (model,) = find_models(file).models
    assert adopt(store, model, quietly, by_copy=True).ways == (Way.COPY,)
    path = store.find(model.name).model_path
    assert not path.samefile(file)
    file.write_bytes(b"other")
    store.find(model.name).verify_unchanged()


def test_on_another_disk_the_file_is_used_where_it_is(store: ModelStore, elsewhere: Path) -> None:
    file = write(elsewhere / "x.gguf", gguf())
    (done,) = adopt_all(store, elsewhere)
    assert done.ways == (Way.REFERENCE,)
    name = ModelName.parse("x")
    assert store.find(name).model_path == file
    assert [path.name for path in (store.root / "blobs").iterdir()] == [
        store.find(name).manifest.config.digest.file_name
    ]
    again = ModelStore(store.root)
    again.find(name).verify_unchanged()
    assert again.find(name).metadata().architecture == "llama"
    assert again.prune(0) == []
    store.delete(name)
    assert file.read_bytes() == gguf()
    assert list((store.root / "references").iterdir()) == []


def test_an_original_that_is_gone_or_changed_is_an_error_that_names_it_to_its_user_only(
    store: ModelStore, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(elsewhere / "x.gguf", gguf())
    adopt_all(store, elsewhere)
    file.rename(elsewhere / "moved")
    model = store.find(ModelName.parse("x"))
    assert model.is_damaged
    assert model.damaged_in_place == [model.model_digest]
    with pytest.raises(ModelCorrupt, match=r"is gone there.*puna adopt --status") as gone:
        model.verify_unchanged()
    assert str(elsewhere) not in gone.value.message
    assert gone.value.facts["in_place"] is True
    assert str(file) in caplog.text
    (elsewhere / "moved").rename(file)
    model.verify_unchanged()
    file.write_bytes(gguf(7))
    with pytest.raises(ModelCorrupt, match="changed there"):
        store.find(ModelName.parse("x")).verify_unchanged()


@pytest.mark.parametrize("error", [None, SourceUnreachable("nobody there"), ModelNotFound("no such model")])
async def test_a_repair_of_what_was_used_in_place_says_so_when_nobody_has_it(
    store: ModelStore, elsewhere: Path, error: RegistryError | None
) -> None:
    file = write(elsewhere / "x.gguf", gguf())
    adopt_all(store, elsewhere)
    file.unlink()

    async def resolve(notice: Notice) -> ResolvedModel:
        if error is not None:
            raise error
        return ResolvedModel(())

    with pytest.raises(ModelCorrupt, match=r"which is missing there.* Put it back as it was") as lost:
        async for _ in repair(store, Puller(store, []), ModelName.parse("x"), [resolve]):
            pass
    assert lost.value.facts["in_place"] is True


def test_what_comes_later_replaces_a_reference(store: ModelStore, elsewhere: Path) -> None:
    write(elsewhere / "x.gguf", gguf())
    adopt_all(store, elsewhere)
    (elsewhere / "x.gguf").unlink()
    store.add_blob([gguf()])
    store.find(ModelName.parse("x")).verify_unchanged()
    assert list(store.blobs.places.references.all()) == []


def test_a_shared_file_that_the_other_program_changes_in_place_is_noticed(store: ModelStore, tmp_path: Path) -> None:
    file = write(tmp_path / "f" / "x.gguf", gguf(1))
    (done,) = adopt_all(store, file.parent)
    if done.ways != (Way.HARD_LINK,):
        pytest.skip("clones cannot be changed from outside")
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"x")
    os.utime(file, (1, 1))
    with pytest.raises(ModelCorrupt):
        store.find(ModelName.parse("x")).verify_unchanged()


def test_a_file_that_changes_while_it_is_adopted_is_not_installed(store: ModelStore, tmp_path: Path) -> None:
    file = write(tmp_path / "f" / "x.gguf", gguf(1))
    (model,) = find_models(file).models

    def change(_what: str, done: int, total: int) -> None:
        if done == total:
            os.utime(file, ns=(1, 1))

    with pytest.raises(ModelInvalid, match="was changed while"):
        adopt(store, model, change)
    assert store.models() == []
    assert not list((store.root / "partials").glob("*"))


def test_without_links_and_clones_nothing_is_copied_either(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "clone", lambda *_: False)
    monkeypatch.setattr(bringing, "hard_link", lambda *_: False)
    write(tmp_path / "f" / "x.gguf", gguf())
    (done,) = adopt_all(store, tmp_path / "f")
    assert done.ways == (Way.REFERENCE,)


def test_a_full_disk_or_a_store_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"a file")
    write(tmp_path / "f" / "x.gguf", gguf())
    (model,) = find_models(tmp_path / "f").models
    with pytest.raises(RegistryError) as refused:
        adopt(ModelStore(tmp_path / "store"), model, quietly)
    assert refused.value.code == "store_read_only"


def test_weights_are_told_apart_from_other_files_of_a_manifest(store: ModelStore, tmp_path: Path) -> None:
    write_ollama_model(tmp_path / "ollama", "tiny", gguf())
    (model,) = find_models(tmp_path / "ollama").models
    assert model.origin == model.files[0].path
    assert [file.media_type for file in model.files if file.metadata is not None] == [MODEL_LAYER]
