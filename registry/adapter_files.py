"""Adapters among the files that a model is to be made of: GGUF as they are, safetensors with what describes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from registry.digest import Digest
from registry.errors import InvalidRequest
from registry.gguf_metadata import GgufMetadata

ADAPTER_CONFIG = "adapter_config.json"
_SUFFIX = ".safetensors"

Files = Mapping[str, Digest]
"""Digests by the relative paths that their senders gave them."""


def gguf_adapters(files: Files) -> Files:
    """Those that are used as they are, which is all that do not belong to safetensors."""
    folders = _folders(files)
    return {path: digest for path, digest in files.items() if PurePosixPath(path).parent not in folders}


def adapter_checkpoints(files: Files) -> list[Files]:
    """Each adapter in safetensors by the names of its two files. Raises InvalidRequest for one without its config."""
    found: list[Files] = []
    for folder in _folders(files):
        weights = [path for path in files if PurePosixPath(path).parent == folder and _is_weights(path)]
        config = str(folder / ADAPTER_CONFIG)
        if len(weights) > 1 or config not in files:
            raise InvalidRequest(
                f"An adapter in safetensors is one such file with its {ADAPTER_CONFIG} beside it.", field="adapters"
            )
        found.append({PurePosixPath(weights[0]).name: files[weights[0]], ADAPTER_CONFIG: files[config]})
    return found


def described_base(model: GgufMetadata) -> dict[str, object]:
    """What the config.json of a model would say, as far as the place of an adapter's tensors depends on it."""
    heads = model.values.get(f"{model.architecture}.attention.head_count")
    return {
        "architecture": model.architecture,
        "num_attention_heads": heads if isinstance(heads, int) else None,
        "num_key_value_heads": max(model.head_count_kv, default=None),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in model.tensors),
    }


def _folders(files: Files) -> list[PurePosixPath]:
    return list(dict.fromkeys(PurePosixPath(path).parent for path in files if _is_weights(path)))


def _is_weights(path: str) -> bool:
    return path.lower().endswith(_SUFFIX)
