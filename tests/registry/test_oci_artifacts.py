"""Models that other programs have put into registries, in their own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.manifest import ADAPTER_LAYER, MODEL_LAYER, PROJECTOR_LAYER, Manifest, ModelConfig
from registry.name import ModelName
from registry.sources.oci_manifest import OCI_MANIFEST_TYPE, RemoteManifest, manifest_type, read_manifest
from tests.registry.hostile_registry import LICENCE, WEIGHTS, HostileRegistry, digest_of, layer, manifest
from tests.registry.oci_rig import Site

DOCKER_CONFIG_TYPE = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_CONFIG = json.dumps(
    {
        "config": {"format": "gguf", "quantization": "Q4_1", "parameters": "135M", "architecture": "llama"},
        "descriptor": {"created": "2025-01-01T00:00:00Z"},
        "rootfs": {"type": "rootfs", "diff_ids": []},
    }
).encode()
TEMPLATE = b"{{ messages[0].content }}"


def docker_manifest() -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST_TYPE,
            "config": layer(DOCKER_CONFIG, DOCKER_CONFIG_TYPE),
            "layers": [
                layer(WEIGHTS, "application/vnd.docker.ai.gguf.v3", annotations={"org.cncf.model.filepath": "a.gguf"}),
                layer(LICENCE, "application/vnd.docker.ai.license"),
                layer(TEMPLATE, "application/vnd.docker.ai.chat.template.jinja"),
            ],
        },
        indent=2,
    ).encode()


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    contents = (DOCKER_CONFIG, WEIGHTS, LICENCE, TEMPLATE)
    with HostileRegistry(
        blobs={digest_of(one): one for one in contents},
        manifest=docker_manifest(),
        manifest_headers={"Content-Type": OCI_MANIFEST_TYPE, "Docker-Content-Digest": digest_of(docker_manifest())},
    ).running() as registry:
        yield registry


async def test_a_docker_model_is_a_model_like_any_other(registry: HostileRegistry, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    name = f"{registry.host}/ai/tiny"
    await site.pull(name)
    model = site.store.find(ModelName.parse(name))
    assert [layer.size for layer in model.weights] == [len(WEIGHTS)]
    assert model.template == TEMPLATE.decode()
    assert model.licenses == [LICENCE.decode()]
    assert model.config == ModelConfig("gguf", "llama", ("llama",), "135M", "Q4_1")
    assert f"sha256:{model.digest}" == digest_of(registry.manifest)


async def test_it_is_pushed_on_as_it_came(registry: HostileRegistry, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.allow(registry.host)
    name = f"{registry.host}/ai/tiny"
    await site.pull(name)
    await site.push(name)
    assert registry.pushed == [docker_manifest()]
    assert registry.asked("PUT", "/manifests/")[0].headers["content-type"] == OCI_MANIFEST_TYPE


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("application/vnd.docker.ai.gguf.v3.lora", ADAPTER_LAYER),
        ("application/vnd.docker.ai.gguf.v3.mmproj", PROJECTOR_LAYER),
        ("application/vnd.docker.ai.mmproj", PROJECTOR_LAYER),
        ("application/vnd.cncf.model.weight.v1.gguf", MODEL_LAYER),
        ("application/vnd.example.unknown", "application/vnd.example.unknown"),
    ],
)
def test_their_words_are_ours(theirs: str, ours: str) -> None:
    content = json.dumps(manifest(layers=[layer(WEIGHTS, MODEL_LAYER), layer(b"x", theirs)])).encode()
    assert Manifest.from_bytes(content).layers[1].media_type == ours


def test_each_blob_is_fetched_once_and_the_config_last() -> None:
    twice = layer(LICENCE, "application/vnd.ollama.image.license")
    content = json.dumps(manifest(layers=[layer(WEIGHTS, MODEL_LAYER), twice, twice])).encode()
    found = read_manifest(content)
    assert isinstance(found, RemoteManifest)
    assert len(found.manifest.layers) == 3
    assert len(found.blobs) == 3
    assert found.blobs[-1] == found.manifest.config


def test_a_manifest_without_a_known_type_is_sent_as_dockers() -> None:
    assert manifest_type(b'{"mediaType": "text/html"}') == manifest_type(b"{}") == manifest()["mediaType"]
