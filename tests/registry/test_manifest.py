"""Manifests and configs: read with care, written always the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import Digest
from registry.errors import ModelInvalid
from registry.manifest import MODEL_LAYER, Layer, Manifest, ModelConfig

LAYERS = st.builds(
    Layer,
    st.text(max_size=20),
    st.binary(max_size=3).map(Digest.of),
    st.integers(0, 1 << 45),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(LAYERS, st.lists(LAYERS, max_size=5))
def test_a_manifest_reads_back_as_itself(config: Layer, layers: list[Layer]) -> None:
    manifest = Manifest(config, tuple(layers))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.size == config.size + sum(layer.size for layer in layers)


def test_a_manifest_of_another_writer_is_read() -> None:
    digest = "sha256:" + "a" * 64
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": 12},
        "layers": [
            {"mediaType": MODEL_LAYER, "digest": digest.replace(":", "-"), "size": 5, "from": "/x", "name": "y"}
        ],
        "annotations": {},
    }
    manifest = Manifest.from_bytes(json.dumps(document, indent=2).encode())
    assert manifest.layers == (Layer(MODEL_LAYER, Digest("a" * 64), 5),)


def broken(**changes: object) -> bytes:
    layer = {"mediaType": "m", "digest": "sha256:" + "a" * 64, "size": 1}
    document: dict[str, object] = {"schemaVersion": 2, "config": layer, "layers": [layer]}
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        broken(schemaVersion=1),
        broken(layers={}),
        broken(layers=[1]),
        broken(config=None),
        broken(config={"mediaType": "m", "digest": "sha256:../../etc/passwd", "size": 1}),
        broken(config={"mediaType": "m", "digest": "sha256:" + "a" * 64, "size": -1}),
        broken(config={"mediaType": "m", "digest": "sha256:" + "a" * 64, "size": True}),
        broken(config={"mediaType": "m", "digest": "sha256:" + "a" * 64, "size": 1e300}),
        broken(layers=[{}] * 20_000),
        b" " * (5 << 20),
    ],
)
def test_what_is_not_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ModelInvalid):
        Manifest.from_bytes(content)


@given(JSON)
def test_any_json_is_a_config_or_refused(document: object) -> None:
    try:
        ModelConfig.from_bytes(json.dumps(document).encode())
    except ModelInvalid:
        assert not isinstance(document, dict)


def test_a_config_reads_back_as_itself() -> None:
    config = ModelConfig("gguf", "llama", ("llama",), "135M", "Q4_1", 8192, 576, ("tools",))
    assert ModelConfig.from_bytes(config.to_bytes()) == config
    assert ModelConfig.from_bytes(ModelConfig().to_bytes()) == ModelConfig()
