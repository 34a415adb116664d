"""The store: verified blobs, atomic manifests, nothing lost and nothing left over."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from registry.blobs import Blob
from registry.digest import Digest
from registry.errors import (
    DigestMismatch,
    ModelCorrupt,
    ModelInvalid,
    ModelNotFound,
    Unsupported,
)
from registry.manifest import (
    CONFIG_TYPE,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    TENSOR_LAYER,
    Layer,
    Manifest,
)
from registry.name import ModelName
from registry.store import ModelStore
from tests.registry.gguf_bytes import GgufFile, Tensor, default_pairs, number_pair, tiny_gguf
from tests.registry.stores import A, B, files, install, layer


def test_a_model_is_read_as_it_was_written(store: ModelStore) -> None:
    manifest = install(
        store,
        A,
        (MODEL_LAYER, tiny_gguf()),
        (TEMPLATE_LAYER, b"{{ x }}"),
        (SYSTEM_LAYER, "grüß".encode()),
        (PARAMS_LAYER, b'{"temperature": 0.5, "stop": ["a", "b"], "seed": 7}'),
        (MESSAGES_LAYER, b'[{"role": "user", "content": "hi"}]'),
        (LICENSE_LAYER, b"one"),
        (LICENSE_LAYER, b"two"),
    )
    model = store.find(A)
    assert model.manifest == manifest
    assert (model.template, model.system, model.licenses) == ("{{ x }}", "grüß", ["one", "two"])
    assert model.parameters == {"temperature": 0.5, "stop": ["a", "b"], "seed": 7}
    assert model.messages == [("user", "hi")]
    assert model.size == manifest.size
    assert model.modified_at.tzinfo is not None
    assert model.metadata().block_count == 2
    assert model.capabilities() == ("completion",)
    assert model.details() == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "256",
        "quantization_level": "F32",
        "context_length": 128,
        "embedding_length": 32,
    }
    manifest_file = store.root / "manifests/registry.ollama.ai/library/a/latest"
    assert model.digest == Digest.of(manifest_file.read_bytes()).hex
    assert model.model_path.read_bytes() == tiny_gguf()


def test_a_folder_that_another_program_wrote_is_read_in_place(store: ModelStore) -> None:
    def put(content: bytes) -> dict[str, object]:
        digest = Digest.of(content)
        path = store.root / "blobs" / digest.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": str(digest), "size": len(content)}

    config = {"model_format": "gguf", "model_family": "llama", "model_type": "1B", "file_type": "Q8_0", "rootfs": {}}
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": CONFIG_TYPE, **put(json.dumps(config).encode())},
        "layers": [
            {"mediaType": MODEL_LAYER, "from": "/somewhere", **put(tiny_gguf())},
            {"mediaType": TEMPLATE_LAYER, **put(b"{{ .Prompt }}")},
            {"mediaType": PARAMS_LAYER, **put(b'{"stop": ["<end>"], "num_gqa": 8}')},
        ],
    }
    path = store.root / "manifests/registry.ollama.ai/someone/Model/8b"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    [model] = store.models()
    assert model.name.short == "someone/Model:8b"
    assert model.template == "{{ .Prompt }}"
    assert model.parameters == {"stop": ["<end>"], "num_gqa": 8}
    model.verify_unchanged()


def test_models_are_listed_newest_first_and_unreadable_ones_are_skipped(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    for index, name in enumerate(["old", "middle", "new"]):
        install(store, ModelName.parse(name), (MODEL_LAYER, tiny_gguf()))
        os.utime(store.root / f"manifests/registry.ollama.ai/library/{name}/latest", (1000 + index, 1000 + index))
    broken = store.root / "manifests/registry.ollama.ai/library/broken/latest"
    broken.parent.mkdir()
    broken.write_text("{")
    stray = store.root / "manifests/registry.ollama.ai/.DS_Store"
    stray.write_text("x")
    with caplog.at_level(logging.WARNING):
        assert [model.name.model for model in store.models()] == ["new", "middle", "old"]
    assert "broken:latest" in caplog.text
    with pytest.raises(ModelInvalid):
        store.find(ModelName.parse("broken"))


def test_an_empty_store_has_no_models_and_creates_nothing(store: ModelStore) -> None:
    assert store.models() == []
    with pytest.raises(ModelNotFound):
        store.find(A)
    assert not store.root.exists()


def test_names_are_found_in_any_case_and_keep_their_first_spelling(store: ModelStore) -> None:
    install(store, ModelName.parse("MyModel:Q4"), (MODEL_LAYER, tiny_gguf()))
    assert store.find(ModelName.parse("mymodel:q4")).name.short == "MyModel:Q4"
    install(store, ModelName.parse("MYMODEL:q4"), (MODEL_LAYER, tiny_gguf()), (SYSTEM_LAYER, b"new"))
    [model] = store.models()
    assert (model.name.short, model.system) == ("MyModel:Q4", "new")
    store.delete(ModelName.parse("mymodel:Q4"))
    assert store.models() == []


def test_a_blob_gets_its_name_only_when_its_digest_is_right(store: ModelStore) -> None:
    content = os.urandom(3_000_000)
    digest = Digest.of(content)
    with pytest.raises(DigestMismatch) as refused:
        store.add_blob([content, b"x"], digest)
    assert refused.value.facts["expected"] == str(digest)
    assert not store.has_blob(digest)
    assert files(store) == set()
    assert store.add_blob([content[:7], content[7:]], digest) == Blob(digest, len(content))
    assert store.blob_path(digest).read_bytes() == content


def test_a_writer_that_is_left_leaves_nothing(store: ModelStore) -> None:
    with pytest.raises(RuntimeError), store.blob_writer() as writer:
        writer.write(b"half")
        assert files(store)
        raise RuntimeError
    assert files(store) == set()
    with pytest.raises(ValueError, match="not being written"):
        writer.write(b"more")


async def test_a_blob_can_be_written_from_threads(store: ModelStore) -> None:
    with store.blob_writer(Digest.of(b"onetwo")) as writer:
        for piece in (b"one", b"two"):
            await asyncio.to_thread(writer.write, piece)
        blob = await asyncio.to_thread(writer.commit)
    assert store.read_blob(blob.digest) == b"onetwo"


def test_a_manifest_needs_its_blobs_in_their_sizes(store: ModelStore) -> None:
    model = layer(store, MODEL_LAYER, tiny_gguf())
    config = layer(store, CONFIG_TYPE, b"{}")
    for wrong in (Layer(MODEL_LAYER, model.digest, model.size + 1), Layer(MODEL_LAYER, Digest.of(b"absent"), 6)):
        with pytest.raises(ModelCorrupt):
            store.write_manifest(A, Manifest(config, (wrong,)))
    assert store.models() == []


def test_a_copy_is_the_same_model_under_another_name(store: ModelStore) -> None:
    install(store, A, (MODEL_LAYER, tiny_gguf()))
    store.copy(A, B)
    assert store.find(B).digest == store.find(A).digest
    store.delete(A)
    assert store.find(B).metadata().block_count == 2
    store.copy(B, B)
    assert store.find(B).metadata().block_count == 2
    with pytest.raises(ModelNotFound):
        store.copy(A, B)


def test_what_has_no_gguf_weights_is_listed_and_refused_for_use(store: ModelStore) -> None:
    install(store, A, (TENSOR_LAYER, b"safetensors"))
    install(store, ModelName.parse("c"), (SYSTEM_LAYER, b"no model"))
    assert len(store.models()) == 2
    with pytest.raises(Unsupported, match="safetensors"):
        store.find(A).verify_unchanged()
    with pytest.raises(ModelInvalid, match="no model file"):
        _ = store.find(ModelName.parse("c")).model_digest


def test_shards_are_one_model_told_apart_by_all_of_their_files(store: ModelStore) -> None:
    shards = [
        GgufFile(
            pairs=[
                *(default_pairs() if number == 0 else ()),
                number_pair("split.no", number),
                number_pair("split.count", 2),
            ],
            tensors=[Tensor(f"t{number}", (32,))],
        ).to_bytes()
        for number in range(2)
    ]
    install(store, A, *((MODEL_LAYER, shard) for shard in shards))
    model = store.find(A)
    metadata = model.metadata()
    assert [tensor.name for tensor in metadata.tensors] == ["t0", "t1"]
    assert metadata.parameter_count == 64
    assert metadata.shard is None
    assert [path.read_bytes() for path in model.model_paths] == shards
    assert model.model_digest not in {layer.digest for layer in model.weights}
    model.model_paths[1].write_bytes(b"x")
    with pytest.raises(ModelCorrupt):
        model.verify_unchanged()


def test_shards_in_the_wrong_order_are_no_model(store: ModelStore) -> None:
    second = GgufFile(pairs=[number_pair("split.no", 1), number_pair("split.count", 2)]).to_bytes()
    install(store, A, (MODEL_LAYER, second), (MODEL_LAYER, tiny_gguf()))
    with pytest.raises(ModelInvalid, match="not the shards of one model"):
        store.find(A).metadata()


NAMES = st.sampled_from(["a", "A", "b:1", "me/b:1", "host:5000/x/y", "hf.co/o/r:q4"]).map(ModelName.parse)


class StoreMachine(RuleBasedStateMachine):
    """A store against a dictionary of the same models."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = ModelStore(Path(self.folder.name) / "models")
        self.models: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(name=NAMES, system=st.binary(max_size=4))
    def write(self, name: ModelName, system: bytes) -> None:
        install(self.store, name, (SYSTEM_LAYER, system))
        self.models[name.folded] = system

    @rule(source=NAMES, destination=NAMES)
    def copy(self, source: ModelName, destination: ModelName) -> None:
        if source.folded in self.models:
            self.store.copy(source, destination)
            self.models[destination.folded] = self.models[source.folded]
        else:
            with pytest.raises(ModelNotFound):
                self.store.copy(source, destination)

    @rule(name=NAMES)
    def delete(self, name: ModelName) -> None:
        if name.folded in self.models:
            self.store.delete(name)
            del self.models[name.folded]
        else:
            with pytest.raises(ModelNotFound):
                self.store.delete(name)

    @invariant()
    def holds_what_was_put_there_and_no_more(self) -> None:
        listed = self.store.models()
        found = {one.name.folded: self.store.read_blob(one.manifest.layers[0].digest) for one in listed}
        assert found == self.models
        needed = {layer.digest.file_name for model in listed for layer in model.manifest.all_layers}
        blobs = self.store.root / "blobs"
        assert {path.name for path in blobs.iterdir()} == needed if blobs.exists() else not needed


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_a_blob_reads_back_whatever_pieces_it_came_in(tmp_path: Path, pieces: list[bytes]) -> None:
    store = ModelStore(tmp_path)
    blob = store.add_blob(pieces)
    assert store.read_blob(blob.digest) == b"".join(pieces)
    assert blob == Blob(Digest.of(b"".join(pieces)), sum(map(len, pieces)))
