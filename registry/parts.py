"""Which GGUF files make one model: weights in one file or in shards, projector, adapters, a draft model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from registry.digest import Digest
from registry.errors import InvalidRequest, ModelInvalid, Unsupported
from registry.gguf_header import TensorInfo
from registry.gguf_metadata import GgufMetadata
from registry.gguf_soundness import check_whole
from registry.manifest import ADAPTER_LAYER, MODEL_LAYER, PROJECTOR_LAYER

_PROJECTOR_ARCHITECTURES = frozenset({"clip"})
_LORA_SUFFIXES = (".lora_a", ".lora_b")
_MAX_SHARDS = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One GGUF file of a model that is being put together."""

    title: str
    """The file's name, as people are told of it."""
    digest: Digest
    size: int
    metadata: GgufMetadata


def part_type(metadata: GgufMetadata) -> str:
    """The layer that a file belongs into: weights, projector or adapter. Raises Unsupported for other files."""
    kind = metadata.values.get("general.type", "model")
    if kind == "mmproj" or metadata.architecture in _PROJECTOR_ARCHITECTURES:
        return PROJECTOR_LAYER
    if kind == "adapter":
        return ADAPTER_LAYER
    if kind != "model":
        raise Unsupported(f"This file is of the type {kind!a}, which is no part of a model.")
    return MODEL_LAYER


def order_weights(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The files of one model's weights in their order. Raises InvalidRequest when some lack or do not belong.

    Raises ModelInvalid for shards that contradict one another.
    """
    if not parts:
        raise InvalidRequest("There is no model among the files; a projector or an adapter needs one.", field="files")
    if len(parts) == 1 and parts[0].metadata.shard is None:
        return (parts[0],)
    found: dict[int, Part] = {}
    counts: set[int] = set()
    for part in parts:
        if part.metadata.shard is None:
            raise InvalidRequest(
                f"{part.title} is a whole model; of {len(parts)} files of weights each must be a shard of one model.",
                field="files",
            )
        number, count = part.metadata.shard
        counts.add(count)
        if number in found:
            raise InvalidRequest(f"{part.title} and {found[number].title} are both shard {number + 1}.", field="files")
        found[number] = part
    if len(counts) > 1:
        raise InvalidRequest(
            f"The files are shards of different models: one has {min(counts)}, one {max(counts)}.", field="files"
        )
    missing = [number for number in range(min(counts.pop(), _MAX_SHARDS)) if number not in found]
    if missing:
        names = ", ".join(str(number + 1) for number in missing[:8]) + (", …" if len(missing) > 8 else "")
        raise InvalidRequest(
            f"The model is split; {len(found)} of its shards are here, and these are missing: {names}.", field="files"
        )
    ordered = tuple(found[number] for number in sorted(found))
    join_shards([part.metadata for part in ordered])
    return ordered


def join_shards(files: Sequence[GgufMetadata]) -> GgufMetadata:
    """What the files of one model's weights, in order, say together. Raises ModelInvalid."""
    first = files[0]
    if len(files) == 1:
        return first
    shards = [file.shard for file in files]
    if shards != [(number, len(files)) for number in range(len(files))]:
        raise ModelInvalid("The files are not the shards of one model in their order.")
    tensors = tuple(tensor for file in files for tensor in file.tensors)
    twice = [name for name, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if twice:
        raise ModelInvalid(f"The tensor {twice[0]!a} is in more than one shard.")
    promised = first.values.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise ModelInvalid(f"The shards hold {len(tensors)} tensors; the first one says {promised}.")
    if not tensors:
        raise ModelInvalid("The shards hold no tensors.")
    check_whole(first.architecture, first.values, tensors)
    return dataclasses.replace(
        first,
        values={key: value for key, value in first.values.items() if not key.startswith("split.")},
        tensors=tensors,
        parameter_count=sum(file.parameter_count for file in files),
        weights_size=sum(file.weights_size for file in files),
        file_type_name=first.file_type_name or max((file.file_type_name for file in files), key=len),
    )


def check_weights(metadata: GgufMetadata) -> None:
    """Raises Unsupported for a file that is not a whole model, and ModelInvalid for one that cannot be one."""
    kind = part_type(metadata)
    if kind == PROJECTOR_LAYER:
        raise Unsupported("This file is a projector, not a model; name the model that it belongs to as well.")
    if kind == ADAPTER_LAYER:
        raise Unsupported("This file is of the type 'adapter', not a model; name the model that it was made for.")
    if metadata.shard is not None:
        raise Unsupported(f"This file is one of {metadata.shard[1]} shards of a model; name all of them.")
    if metadata.block_count == 0:
        raise ModelInvalid(f"{metadata.architecture}.block_count is missing.")


def check_projector(metadata: GgufMetadata) -> None:
    """Raises InvalidRequest for a file that is no projector, and ModelInvalid for one that encodes nothing."""
    if part_type(metadata) != PROJECTOR_LAYER:
        raise InvalidRequest("This file is not a projector.", field="files")
    if not projects("vision", metadata) and not projects("audio", metadata):
        raise ModelInvalid("The projector has neither a vision nor an audio encoder.")


def projects(what: str, projector: GgufMetadata) -> bool:
    """Whether a projector encodes `vision` or `audio`."""
    said = projector.values.get(f"clip.has_{what}_encoder")
    return bool(said) or (said is None and f"clip.{what}.block_count" in projector.values)


def check_adapter(adapter: GgufMetadata, model: GgufMetadata) -> None:
    """Raises InvalidRequest when the file is no adapter of this model, and ModelInvalid when it is no sound one."""
    if part_type(adapter) != ADAPTER_LAYER:
        raise InvalidRequest("This file is not an adapter.", field="adapters")
    kind = adapter.values.get("adapter.type")
    if kind != "lora":
        raise Unsupported(f"The adapter is of the type {kind!a}; LoRA adapters can be used.", field="adapters")
    alpha = adapter.values.get("adapter.lora.alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise ModelInvalid("The adapter's adapter.lora.alpha is missing.")
    if adapter.architecture != model.architecture:
        raise InvalidRequest(
            f"The adapter was made for a {adapter.architecture} model; this one is {model.architecture}.",
            field="adapters",
        )
    targets = {tensor.name: tensor for tensor in model.tensors}
    for name, pair in _lora_pairs(adapter).items():
        _check_pair(name, pair, targets.get(name))


def _lora_pairs(adapter: GgufMetadata) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in adapter.tensors:
        name, suffix = tensor.name[:-7], tensor.name[-7:]
        if suffix not in _LORA_SUFFIXES:
            raise ModelInvalid(f"The adapter's tensor {tensor.name!a} is no half of a LoRA pair.")
        halves.setdefault(name, {})[suffix] = tensor
    for name, found in halves.items():
        if len(found) < 2:
            raise ModelInvalid(f"The adapter has only one half of its pair for {name!a}.")
    return {name: (found[".lora_a"], found[".lora_b"]) for name, found in halves.items()}


def _check_pair(name: str, pair: tuple[TensorInfo, TensorInfo], target: TensorInfo | None) -> None:
    if target is None:
        raise InvalidRequest(f"The adapter changes {name!a}, which the model does not have.", field="adapters")
    a, b, wanted = (_sides(tensor) for tensor in (*pair, target))
    # An embedding is looked up by rows, so that its first half stands the other way round.
    if name == "token_embd.weight":
        fits = a[0] == b[0] and (b[1], a[1]) == wanted
    else:
        fits = a[1] == b[0] and (a[0], b[1]) == wanted
    if not fits:
        raise InvalidRequest(
            f"The adapter's pair for {name!a} has the shapes {a} and {b}; the model's tensor has {wanted}.",
            field="adapters",
        )


def _sides(tensor: TensorInfo) -> tuple[int, int]:
    """The two dimensions that a product works on; the others count experts."""
    first, second, *_ = (*tensor.shape, 1)
    return first, second
