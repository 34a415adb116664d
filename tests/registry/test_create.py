"""Creating models: merging over a base, checking files, telling each step."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.create import create_model
from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid, ModelNotFound, RegistryError, Unsupported
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from tests.registry.gguf_bytes import GgufFile, default_pairs, number_pair, string_pair, tiny_gguf

BASE, NEW = ModelName.parse("base"), ModelName.parse("new")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


async def create(store: ModelStore, recipe: Recipe) -> list[str]:
    return [progress.status async for progress in create_model(store, recipe)]


async def create_base(store: ModelStore, **said: object) -> list[str]:
    blob = store.add_blob([tiny_gguf()])
    return await create(store, Recipe(BASE, files={"tiny.gguf": blob.digest}, **said))  # type: ignore[arg-type]


async def test_a_file_becomes_a_model(store: ModelStore) -> None:
    statuses = await create_base(store, system="be kind", licenses=["MIT"])
    assert statuses == [
        "parsing GGUF",
        f"using existing layer {Digest.of(tiny_gguf())}",
        f"creating new layer {Digest.of(b'be kind')}",
        f"creating new layer {Digest.of(b'MIT')}",
        "writing manifest",
        "success",
    ]
    model = store.find(BASE)
    assert (model.system, model.licenses, model.template) == ("be kind", ["MIT"], None)
    assert model.details()["family"] == "llama"
    assert model.details()["context_length"] == 128
    assert model.config.model_format == "gguf"
    assert model.model_digest == Digest.of(tiny_gguf())


async def test_what_is_said_is_laid_over_the_base(store: ModelStore) -> None:
    await create_base(
        store,
        system="old",
        template="{{ old }}",
        parameters={"temperature": 0.5, "stop": ["x"]},
        messages=[("user", "old")],
        licenses=["MIT"],
    )
    await create(
        store,
        Recipe(
            NEW,
            from_model=ModelName.parse("BASE"),
            system="new",
            parameters={"seed": 4, "stop": ["y"], "top_k": None, "f16_kv": True},
            messages=[("user", "new"), ("assistant", "yes")],
            licenses=["MIT", "BSD"],
        ),
    )
    model = store.find(NEW)
    assert model.system == "new"
    assert model.template == "{{ old }}"
    assert model.parameters == {"temperature": 0.5, "stop": ["y"], "seed": 4}
    assert model.messages == [("user", "new"), ("assistant", "yes")]
    assert model.licenses == ["MIT", "BSD"]
    assert model.config == store.find(BASE).config
    assert store.find(BASE).system == "old"


async def test_a_model_may_be_remade_over_itself(store: ModelStore) -> None:
    await create_base(store, system="one")
    statuses = await create(store, Recipe(BASE, from_model=BASE, system="two"))
    assert statuses[-1] == "success"
    assert store.find(BASE).system == "two"
    assert not store.has_blob(Digest.of(b"one"))


@pytest.mark.parametrize(
    ("recipe", "error", "complaint"),
    [
        (Recipe(NEW), InvalidRequest, "neither 'from' or 'files' was specified"),
        (
            Recipe(NEW, from_model=BASE, files={"a.safetensors": Digest.of(b"")}),
            InvalidRequest,
            "not from both",
        ),
        (Recipe(NEW, from_model=ModelName.parse("absent")), ModelNotFound, "not found"),
        (Recipe(NEW, files={"/etc/passwd": Digest.of(b"")}), InvalidRequest, "must be relative"),
        (Recipe(NEW, files={"../x.gguf": Digest.of(b"")}), InvalidRequest, "must be relative"),
        (Recipe(NEW, files={"C:\\x.gguf": Digest.of(b"")}), InvalidRequest, "must be relative"),
        (Recipe(NEW, files={"a\\..\\x": Digest.of(b"")}), InvalidRequest, "must be relative"),
        (Recipe(NEW, from_model=BASE, adapters={"/x": Digest.of(b"1")}), InvalidRequest, "must be relative"),
        (Recipe(NEW, from_model=BASE, quantize="Q9"), InvalidRequest, "unsupported quantization type Q9"),
        (Recipe(NEW, from_model=BASE, quantize="iq1_s"), InvalidRequest, "IQ1_S .* importance matrix"),
        (Recipe(NEW, from_model=BASE, imatrix=Digest.of(b"x")), InvalidRequest, "say `quantize` with it"),
        (
            Recipe(NEW, from_model=BASE, quantize="q8_0", imatrix=Digest.of(b"x"), calibration=Digest.of(b"x")),
            InvalidRequest,
            "not both",
        ),
        (Recipe(NEW, from_model=BASE, requires="soon"), InvalidRequest, "valid semver"),
        (Recipe(NEW, from_model=BASE, requires="99.0.0"), Unsupported, "requires Puna 99.0.0 or later"),
        (Recipe(NEW, files={"a": Digest.of(b"not uploaded")}), InvalidRequest, "has not been uploaded"),
        (Recipe(NEW, from_model=BASE, parameters={"top_p": 2}), InvalidRequest, "top_p must be"),
        (Recipe(NEW, from_model=BASE, parameters={"topp": 2}), InvalidRequest, "unknown parameter"),
    ],
)
async def test_a_wrong_recipe_is_refused_and_nothing_installed(
    store: ModelStore, recipe: Recipe, error: type[RegistryError], complaint: str
) -> None:
    await create_base(store)
    with pytest.raises(error, match=complaint):
        await create(store, recipe)
    assert [model.name for model in store.models()] == [BASE]


@pytest.mark.parametrize(
    ("content", "error", "complaint"),
    [
        (b"PK\3\4zip", ModelInvalid, "supplied file was not in GGUF format"),
        (tiny_gguf()[:200], ModelInvalid, "ends at byte 200"),
        (tiny_gguf(string_pair("general.type", "mmproj")), InvalidRequest, "no model among the files"),
        (tiny_gguf(string_pair("general.type", "adapter")), InvalidRequest, "is an adapter"),
        (tiny_gguf(string_pair("general.type", "imatrix")), Unsupported, "'imatrix'"),
        (tiny_gguf(number_pair("split.count", 3)), InvalidRequest, "these are missing: 2, 3"),
        (GgufFile(pairs=[string_pair("general.architecture", "clip")]).to_bytes(), InvalidRequest, "no model among"),
        (GgufFile(pairs=default_pairs()[:2]).to_bytes(), ModelInvalid, "block_count is missing"),
    ],
)
async def test_a_file_that_is_no_model_is_never_installed(
    store: ModelStore, content: bytes, error: type[RegistryError], complaint: str
) -> None:
    blob = store.add_blob([content])
    with pytest.raises(error, match=complaint):
        await create(store, Recipe(NEW, files={"x.gguf": blob.digest}))
    assert store.models() == []
