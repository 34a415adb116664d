"""What a model is made of: manifests, their layers, and the config blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"

_LAYER_PREFIX = "application/vnd.ollama.image."
MODEL_LAYER = f"{_LAYER_PREFIX}model"
PROJECTOR_LAYER = f"{_LAYER_PREFIX}projector"
ADAPTER_LAYER = f"{_LAYER_PREFIX}adapter"
DRAFT_LAYER = f"{_LAYER_PREFIX}draft"
FILE_LAYERS = (MODEL_LAYER, PROJECTOR_LAYER, ADAPTER_LAYER, DRAFT_LAYER)
"""GGUF files, in the order in which a model has them."""
TENSOR_LAYER = f"{_LAYER_PREFIX}tensor"
TEMPLATE_LAYER = f"{_LAYER_PREFIX}template"
SYSTEM_LAYER = f"{_LAYER_PREFIX}system"
PARAMS_LAYER = f"{_LAYER_PREFIX}params"
MESSAGES_LAYER = f"{_LAYER_PREFIX}messages"
LICENSE_LAYER = f"{_LAYER_PREFIX}license"
TEXT_LAYERS = (TEMPLATE_LAYER, SYSTEM_LAYER, PARAMS_LAYER, MESSAGES_LAYER, LICENSE_LAYER)
"""What is said of a model beside its files."""

_SAME_AS: Mapping[str, str] = {
    "application/vnd.docker.ai.gguf.v3": MODEL_LAYER,
    "application/vnd.docker.ai.model.file.v1+gguf": MODEL_LAYER,
    "application/vnd.cncf.model.weight.v1.gguf": MODEL_LAYER,
    "application/vnd.docker.ai.gguf.v3.lora": ADAPTER_LAYER,
    "application/vnd.docker.ai.gguf.v3.mmproj": PROJECTOR_LAYER,
    "application/vnd.docker.ai.mmproj": PROJECTOR_LAYER,
    "application/vnd.docker.ai.chat.template.jinja": TEMPLATE_LAYER,
    "application/vnd.docker.ai.license": LICENSE_LAYER,
}
"""What model artifacts of other programs call the same things. Their manifests are kept as they are."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_LAYERS = 16384
_MAX_SIZE = 1 << 50


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a model, and what it holds."""

    media_type: str
    """In our words, whatever the manifest calls it."""
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's config and layers, in order."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers, then the config."""
        return (*self.layers, self.config)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.all_layers)

    def of_type(self, media_type: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.media_type == media_type)

    def to_bytes(self) -> bytes:
        """The same manifest always gives the same bytes, and so the same model digest."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _layer_document(self.config),
            "layers": [_layer_document(layer) for layer in self.layers],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Raises ModelInvalid for anything that is not a manifest. Unknown fields are passed over."""
        document = read_json_object(content, "manifest", MAX_MANIFEST_BYTES)
        if document.get("schemaVersion") != 2:
            raise ModelInvalid("The manifest is not of schema version 2.")
        layers = document.get("layers")
        if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise ModelInvalid(f"The manifest's layers are not a list of at most {MAX_LAYERS}.")
        return cls(
            config=_read_layer(document.get("config"), "config"),
            layers=tuple(_read_layer(layer, f"layer {index}") for index, layer in enumerate(layers)),
        )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The config blob, as far as it is used here."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    """The parameter count, as people read it."""
    file_type: str = ""
    """The quantization."""
    context_length: int | None = None
    embedding_length: int | None = None
    capabilities: tuple[str, ...] = ()
    """Capabilities added to those that the file shows."""
    remote_host: str = ""
    """Set for stubs of models that run elsewhere."""
    renderer: str = ""
    """The built-in way of making prompts that the model asks for, in place of its template."""
    parser: str = ""
    requires: str = ""
    """The least version of the program named by `requires_program` that can use the model."""
    requires_program: str = ""
    """`puna` when `requires` is a version of Puna; models of other programs say nothing here."""

    @property
    def required_puna(self) -> str:
        """The least version of Puna, or nothing."""
        return self.requires if self.requires_program == "puna" else ""

    def to_bytes(self) -> bytes:
        document: dict[str, object] = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": list(self.model_families),
            "model_type": self.model_type,
            "file_type": self.file_type,
            "context_length": self.context_length,
            "embedding_length": self.embedding_length,
            "capabilities": list(self.capabilities),
            "renderer": self.renderer or None,
            "parser": self.parser or None,
            "requires": self.requires or None,
            "requires_program": self.requires_program or None,
            "architecture": "amd64",
            "os": "linux",
        }
        present = {name: value for name, value in document.items() if value not in (None, [])}
        return json.dumps(present, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ModelConfig:
        """Raises ModelInvalid when it is not a JSON object; fields of another type count as absent."""
        document = read_json_object(content, "config", MAX_MANIFEST_BYTES)
        artifact = document.get("config")
        if isinstance(artifact, dict) and "model_format" not in document:
            return cls._from_artifact(artifact)
        return cls(
            model_format=_text(document, "model_format"),
            model_family=_text(document, "model_family"),
            model_families=_texts(document, "model_families"),
            model_type=_text(document, "model_type"),
            file_type=_text(document, "file_type"),
            context_length=_count(document, "context_length"),
            embedding_length=_count(document, "embedding_length"),
            capabilities=_texts(document, "capabilities"),
            remote_host=_text(document, "remote_host"),
            renderer=_text(document, "renderer"),
            parser=_text(document, "parser"),
            requires=_text(document, "requires"),
            requires_program=_text(document, "requires_program"),
        )

    @classmethod
    def _from_artifact(cls, config: Mapping[str, object]) -> ModelConfig:
        """The config of a Docker model artifact, which has other words."""
        family = _text(config, "architecture")
        return cls(
            model_format=_text(config, "format"),
            model_family=family,
            model_families=(family,) if family else (),
            model_type=_text(config, "parameters"),
            file_type=_text(config, "quantization"),
        )


def read_json_object(content: bytes, what: str, limit: int) -> Mapping[str, object]:
    """A JSON object from a file that may hold anything. Raises ModelInvalid."""
    document = read_json(content, what, limit)
    if not isinstance(document, dict):
        raise ModelInvalid(f"The {what} is not a JSON object.")
    return document


def read_json(content: bytes, what: str, limit: int) -> object:
    """A JSON value from a file that may hold anything. Raises ModelInvalid."""
    if len(content) > limit:
        raise ModelInvalid(f"The {what} has more than {limit} bytes.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ModelInvalid(f"The {what} is not readable as JSON.") from None


def _layer_document(layer: Layer) -> dict[str, object]:
    return {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}


def _read_layer(document: object, where: str) -> Layer:
    if not isinstance(document, dict):
        raise ModelInvalid(f"The manifest's {where} is not an object.")
    media_type, digest, size = (document.get(name) for name in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise ModelInvalid(f"The manifest's {where} lacks a media type or a digest.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise ModelInvalid(f"The manifest's {where} has no possible size.")
    try:
        return Layer(_SAME_AS.get(media_type, media_type), Digest.parse(digest), size)
    except InvalidRequest:
        raise ModelInvalid(f"The manifest's {where} has a digest in the wrong form.") from None


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _texts(document: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _count(document: Mapping[str, object], name: str) -> int | None:
    value = document.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
