"""What the supervisor is told of a model that a request wants."""

from __future__ import annotations

from collections.abc import Sequence

from registry.stored_model import StoredModel
from runner.adapters import AdapterSet, AdapterUse
from runner.errors import InvalidRequest
from runner.options import Resolved
from runner.supervisor.types import MemoryFacts, ModelSpec


def adapters_of(model: StoredModel, scales: Sequence[float], field: str) -> AdapterSet:
    """The model's adapters that a request uses. Hashes files that have changed.

    Raises InvalidRequest for more scales than adapters; ModelInvalid or ModelCorrupt.
    """
    layers = model.adapters
    if len(scales) > len(layers):
        raise InvalidRequest(f"{field} has {len(scales)} scales; {model.name.short} has {len(layers)} adapters.", field)
    wanted = [*scales, *[1.0] * (len(layers) - len(scales))]
    used = [(layer, scale) for layer, scale in zip(layers, wanted, strict=True) if scale]
    for layer, _ in used:
        model.store.blobs.verify_unchanged(layer.digest, layer.size)
        model.store.metadata(layer.digest)
    return tuple(
        AdapterUse(str(model.store.blob_path(layer.digest)), str(layer.digest), scale) for layer, scale in used
    )


def memory_facts(model: StoredModel) -> MemoryFacts:
    """What is loaded for a model: its weights and its cache, with all that is loaded beside them.

    Whatever else a model brings into memory has to be counted here, and nowhere else. Raises as `model_spec`.
    """
    metadata = model.metadata()
    weights, kv_per_token = metadata.weights_size, metadata.kv_bytes_per_token()
    weights += sum(layer.size for layer in model.projectors)
    return MemoryFacts(weights, kv_per_token, metadata.context_length)


def model_spec(model: StoredModel, options: Resolved) -> ModelSpec:
    """Reads the headers of the model's files. Raises ModelInvalid, ModelCorrupt or Unsupported."""
    return ModelSpec(
        name=model.name.short,
        digest=model.digest,
        weights_digest=str(model.model_digest),
        path=model.model_paths[0],
        shards=model.model_paths[1:],
        projector=model.projector_path,
        memory=memory_facts(model),
        wishes=options.wishes,
        details=model.details(),
    )
