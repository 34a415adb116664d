"""StoredModel: one model of the store, with what its manifest and small files say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from registry.capabilities import capabilities
from registry.digest import Digest
from registry.errors import ModelInvalid, Unsupported
from registry.gguf_metadata import GgufMetadata
from registry.manifest import (
    ADAPTER_LAYER,
    LICENSE_LAYER,
    MESSAGES_LAYER,
    MODEL_LAYER,
    PARAMS_LAYER,
    PROJECTOR_LAYER,
    SYSTEM_LAYER,
    TEMPLATE_LAYER,
    TENSOR_LAYER,
    Layer,
    Manifest,
    ModelConfig,
    read_json,
    read_json_object,
)
from registry.name import ModelName
from registry.parameters import ParameterValue
from registry.parts import join_shards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from registry.store import ModelStore

MAX_TEXT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class StoredModel:
    """A model of the store, as its manifest was when it was looked up. Properties read small files."""

    store: ModelStore
    name: ModelName
    digest: str
    """Of the manifest file, hex without prefix: what people are shown as the model's digest."""
    modified_at: datetime
    manifest: Manifest
    is_own: bool = True
    """Whether its manifest is in the store itself, and not in one layered underneath."""

    @property
    def size(self) -> int:
        return self.manifest.size

    @cached_property
    def config(self) -> ModelConfig:
        return ModelConfig.from_bytes(self.store.read_blob(self.manifest.config.digest))

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The files of the weights, shards in order. Raises Unsupported for models that are no GGUF files."""
        layers = self.manifest.of_type(MODEL_LAYER)
        if layers:
            return layers
        if self.manifest.of_type(TENSOR_LAYER):
            raise Unsupported(f"{self.name.short} is made of safetensors, which is not supported yet.")
        if self.config.remote_host:
            raise Unsupported(f"{self.name.short} runs on another server, which is not supported.")
        raise ModelInvalid(f"{self.name.short} has no model file.")

    @property
    def adapters(self) -> tuple[Layer, ...]:
        """LoRA files that change the weights."""
        return self.manifest.of_type(ADAPTER_LAYER)

    @property
    def projectors(self) -> tuple[Layer, ...]:
        """Files beside the weights that make vectors of images and sounds."""
        return self.manifest.of_type(PROJECTOR_LAYER)

    @property
    def projector_path(self) -> Path | None:
        return self.store.blob_path(self.projectors[0].digest) if self.projectors else None

    @property
    def model_digest(self) -> Digest:
        """Which weights these are: the digest of their file, or one over all of them, with a projector's.

        Raises as `weights`.
        """
        first, *others = (*self.weights, *self.projectors)
        if not others:
            return first.digest
        return Digest.of("\n".join(str(layer.digest) for layer in (first, *others)).encode())

    @property
    def model_paths(self) -> tuple[Path, ...]:
        """The files of the weights, shards in order; raises as `weights` does."""
        return tuple(self.store.blob_path(layer.digest) for layer in self.weights)

    @property
    def model_path(self) -> Path:
        """The first file of the weights; raises as `weights` does."""
        return self.model_paths[0]

    @cached_property
    def template(self) -> str | None:
        """The model's own template, Jinja or Go; None leaves it to the one in its file."""
        texts = self._texts(TEMPLATE_LAYER)
        return texts[-1] if texts else None

    @cached_property
    def system(self) -> str | None:
        texts = self._texts(SYSTEM_LAYER)
        return texts[-1] if texts else None

    @cached_property
    def licenses(self) -> list[str]:
        return self._texts(LICENSE_LAYER)

    @cached_property
    def parameters(self) -> dict[str, ParameterValue]:
        """As they were stored, by this program or another; `stop` is a list. Unknown names are kept."""
        found: dict[str, ParameterValue] = {}
        for layer in self.manifest.of_type(PARAMS_LAYER):
            document = read_json_object(self.store.read_blob(layer.digest), "parameters layer", MAX_TEXT_BYTES)
            for name, value in document.items():
                if isinstance(value, list):
                    found[name] = [str(one) for one in value]
                elif isinstance(value, int | float):
                    found[name] = value
                elif isinstance(value, str):
                    found[name] = [value] if name == "stop" else value
        return found

    @cached_property
    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each turn."""
        found: list[tuple[str, str]] = []
        for layer in self.manifest.of_type(MESSAGES_LAYER):
            document = read_json(self.store.read_blob(layer.digest), "messages layer", MAX_TEXT_BYTES)
            for turn in document if isinstance(document, list) else []:
                role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
                if not isinstance(role, str) or not isinstance(content, str):
                    raise ModelInvalid("The messages layer has a turn without role and content.")
                found.append((role, content))
        return found

    def metadata(self) -> GgufMetadata:
        """What the headers of the weights' files say; each is read once. Raises ModelInvalid or ModelCorrupt."""
        for layer in self.weights:
            self.store.blobs.check_size(layer.digest, layer.size)
        return join_shards([self.store.metadata(layer.digest) for layer in self.weights])

    def capabilities(self) -> tuple[str, ...]:
        """What clients may use the model for."""
        projectors = [self.store.metadata(layer.digest) for layer in self.projectors]
        found = capabilities(self.metadata(), self.template, projectors)
        return (*found, *(one for one in self.config.capabilities if one not in found))

    def details(self) -> dict[str, object]:
        """The `details` object of /api/tags."""
        config = self.config
        details: dict[str, object] = {
            "parent_model": "",
            "format": config.model_format,
            "family": config.model_family,
            "families": list(config.model_families) or None,
            "parameter_size": config.model_type,
            "quantization_level": config.file_type,
        }
        if config.context_length is not None:
            details["context_length"] = config.context_length
        if config.embedding_length is not None:
            details["embedding_length"] = config.embedding_length
        return details

    def verify_unchanged(self) -> None:
        """Compare the weights' files with what was verified; hashes them again when their time differs.

        Blocks, for seconds while it hashes a large file. Raises ModelCorrupt.
        """
        for layer in (*self.weights, *self.projectors):
            self.store.blobs.verify_unchanged(layer.digest, layer.size)

    @property
    def is_damaged(self) -> bool:
        """Whether a file of it is missing, of the wrong size, or was found to have another content."""
        return any(self.store.blobs.is_damaged(layer.digest, layer.size) for layer in self.manifest.all_layers)

    @property
    def damaged_in_place(self) -> list[Digest]:
        """The damaged files that are used, or were, where another program keeps them."""
        blobs, layers = self.store.blobs, self.manifest.all_layers
        return [
            one.digest for one in layers if blobs.is_in_place(one.digest) and blobs.is_damaged(one.digest, one.size)
        ]

    def _texts(self, media_type: str) -> list[str]:
        layers = self.manifest.of_type(media_type)
        return [self.store.read_blob(layer.digest).decode("utf-8", "replace") for layer in layers]
