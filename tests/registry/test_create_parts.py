"""Models of several files: shards, projectors, adapters, drafts."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from registry.create import create_model
from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid, ModelNotFound, RegistryError, Unsupported
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER, MODEL_LAYER, PARAMS_LAYER, PROJECTOR_LAYER, SYSTEM_LAYER
from registry.name import ModelName
from registry.recipe import Recipe
from registry.store import ModelStore
from registry.stored_model import StoredModel
from tests.registry.gguf_bytes import tiny_gguf
from tests.registry.model_parts import adapter, projector, shard

BASE, NEW = ModelName.parse("base"), ModelName.parse("new")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def uploaded(store: ModelStore, **files: bytes) -> dict[str, Digest]:
    return {f"{name}.gguf": store.add_blob([content]).digest for name, content in files.items()}


async def create(store: ModelStore, recipe: Recipe) -> StoredModel:
    async for _ in create_model(store, recipe):
        pass
    return store.find(recipe.name)


def kinds(model: StoredModel) -> list[str]:
    return [layer.media_type for layer in model.manifest.layers]


async def test_shards_given_in_any_order_become_one_model_in_the_right_one(store: ModelStore) -> None:
    shards = [shard(number, 3, promised=3 if number == 0 else None) for number in range(3)]
    for order in itertools.permutations(range(3)):
        model = await create(store, Recipe(NEW, files=uploaded(store, **{f"s{n}": shards[n] for n in order})))
        assert [path.read_bytes() for path in model.model_paths] == shards
        assert model.config.model_type == "384"


@pytest.mark.parametrize(
    ("files", "error", "complaint"),
    [
        ((shard(0, 3), shard(2, 3)), InvalidRequest, "these are missing: 2"),
        ((shard(0, 2), shard(1, 3)), InvalidRequest, "different models"),
        ((shard(0, 2), shard(0, 2, tensor="x")), InvalidRequest, "both shard 1"),
        ((shard(0, 2), tiny_gguf()), InvalidRequest, "is a whole model"),
        ((shard(0, 2, tensor="x"), shard(1, 2, tensor="x")), ModelInvalid, "in more than one shard"),
        ((shard(0, 2, promised=5), shard(1, 2)), ModelInvalid, "hold 2 tensors; the first one says 5"),
    ],
)
async def test_shards_that_are_not_one_model_are_refused(
    store: ModelStore, files: tuple[bytes, ...], error: type[RegistryError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        await create(store, Recipe(NEW, files=uploaded(store, **{f"f{n}": one for n, one in enumerate(files)})))
    assert store.models() == []


async def test_a_projector_beside_a_model_becomes_its_own_layer_and_gives_it_sight(store: ModelStore) -> None:
    model = await create(store, Recipe(NEW, files=uploaded(store, eyes=projector(), model=tiny_gguf())))
    assert kinds(model) == [MODEL_LAYER, PROJECTOR_LAYER]
    assert model.config.model_families == ("llama", "clip")
    assert "vision" in model.capabilities()


async def test_a_projector_can_be_added_to_a_model_that_is_here(store: ModelStore) -> None:
    await create(store, Recipe(BASE, files=uploaded(store, model=tiny_gguf()), system="be terse"))
    model = await create(store, Recipe(NEW, from_model=BASE, files=uploaded(store, ears=projector(what="audio"))))
    assert kinds(model) == [MODEL_LAYER, PROJECTOR_LAYER, SYSTEM_LAYER]
    assert "audio" in model.capabilities() and "vision" not in model.capabilities()
    assert store.find(BASE).manifest.of_type(PROJECTOR_LAYER) == ()


async def test_another_model_cannot_be_put_into_a_model(store: ModelStore) -> None:
    await create(store, Recipe(BASE, files=uploaded(store, model=tiny_gguf())))
    with pytest.raises(InvalidRequest, match="not from both"):
        await create(store, Recipe(NEW, from_model=BASE, files=uploaded(store, model=tiny_gguf())))


async def test_an_adapter_of_the_model_is_added(store: ModelStore) -> None:
    await create(store, Recipe(BASE, files=uploaded(store, model=tiny_gguf())))
    model = await create(store, Recipe(NEW, from_model=BASE, adapters=uploaded(store, lora=adapter())))
    assert kinds(model) == [MODEL_LAYER, ADAPTER_LAYER]
    assert model.model_digest == store.find(BASE).model_digest
    assert len(model.adapters) == 1


@pytest.mark.parametrize(
    ("content", "error", "complaint"),
    [
        (tiny_gguf(), InvalidRequest, "is not an adapter"),
        (adapter(architecture="qwen2"), InvalidRequest, "made for a qwen2 model; this one is llama"),
        (adapter(kind="ia3"), Unsupported, "'ia3'"),
        (adapter(target="blk.9.attn_q.weight"), InvalidRequest, "which the model does not have"),
        (adapter(shapes=((32, 8), (4, 4))), InvalidRequest, "has the shapes"),
        (adapter(shapes=((16, 8), (8, 4))), InvalidRequest, "has the shapes"),
        (adapter(suffixes=(".lora_a",)), ModelInvalid, "only one half"),
        (adapter(suffixes=(".lora_a", ".bias")), ModelInvalid, "no half of a LoRA pair"),
    ],
)
async def test_an_adapter_that_does_not_fit_is_refused(
    store: ModelStore, content: bytes, error: type[RegistryError], complaint: str
) -> None:
    await create(store, Recipe(BASE, files=uploaded(store, model=tiny_gguf())))
    with pytest.raises(error, match=complaint):
        await create(store, Recipe(NEW, from_model=BASE, adapters=uploaded(store, lora=content)))
    assert [model.name for model in store.models()] == [BASE]


async def test_an_adapter_for_the_embedding_stands_the_other_way_round(store: ModelStore) -> None:
    lora = adapter(target="token_embd.weight", shapes=((8, 4), (8, 32)))
    model = await create(store, Recipe(NEW, files=uploaded(store, m=tiny_gguf()), adapters=uploaded(store, a=lora)))
    assert kinds(model) == [MODEL_LAYER, ADAPTER_LAYER]


async def test_a_draft_model_is_kept_beside_the_model(store: ModelStore) -> None:
    drafts = uploaded(store, small=tiny_gguf())
    model = await create(store, Recipe(NEW, files=uploaded(store, model=tiny_gguf()), draft_files=drafts))
    assert kinds(model) == [MODEL_LAYER, DRAFT_LAYER]
    with pytest.raises(InvalidRequest, match="these are missing: 2"):
        await create(store, Recipe(NEW, from_model=NEW, draft_files=uploaded(store, half=shard(0, 2))))


async def test_a_draft_model_that_is_named_and_one_of_files_replace_each_other(store: ModelStore) -> None:
    files = uploaded(store, model=tiny_gguf())
    await create(store, Recipe(BASE, files=files, parameters={"top_k": 5}))
    named = Recipe(NEW, from_model=BASE, parameters={"draft_model": "base"})
    with_files = Recipe(NEW, from_model=NEW, draft_files=files)
    for _ in range(2):
        model = await create(store, named)
        assert kinds(model) == [MODEL_LAYER, PARAMS_LAYER]
        assert model.parameters == {"top_k": 5, "draft_model": "base"}
        model = await create(store, with_files)
        assert kinds(model) == [MODEL_LAYER, DRAFT_LAYER, PARAMS_LAYER]
        assert model.parameters == {"top_k": 5}
        named = dataclasses.replace(named, from_model=NEW)
    assert kinds(await create(store, Recipe(NEW, from_model=NEW))) == [MODEL_LAYER, DRAFT_LAYER, PARAMS_LAYER]


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"parameters": {"draft_model": "absent"}}, ModelNotFound, "absent"),
        ({"parameters": {"draft_model": "a b"}}, InvalidRequest, "draft_model: 'a b' cannot be the model"),
        ({"draft_quantize": "q8_0"}, InvalidRequest, "base:latest is used as it is; only one that is given as files"),
        ({"draft_files": {"x.gguf": Digest.of(b"")}}, InvalidRequest, "names base:latest; say one of the two"),
    ],
)
async def test_a_draft_model_that_cannot_be_meant_is_refused(
    store: ModelStore, changes: dict[str, Any], error: type[RegistryError], complaint: str
) -> None:
    await create(store, Recipe(BASE, files=uploaded(store, model=tiny_gguf())))
    with pytest.raises(error, match=complaint):
        await create(store, Recipe(NEW, **{"from_model": BASE, "parameters": {"draft_model": "base"}, **changes}))
    assert [model.name for model in store.models()] == [BASE]
