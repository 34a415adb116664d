"""What the supervisor is told of a model that a request wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from registry.digest import Digest
from registry.gguf_metadata import GgufMetadata
from registry.manifest import DRAFT_LAYER, Layer
from registry.parts import join_shards
from registry.stored_model import StoredModel
from runner.adapters import AdapterSet, AdapterUse
from runner.draft_model import DraftFiles
from runner.errors import InvalidRequest, Unsupported
from runner.options import Resolved, resolve_options
from runner.settings import Settings
from runner.supervisor.types import DraftWish, LoadWishes, MemoryFacts, ModelSpec


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
        AdapterUse(str(model.store.blob_path(layer.digest)), str(layer.digest), scale, layer.size)
        for layer, scale in used
    )


def own_draft(model: StoredModel) -> DraftWish | None:
    """The draft model that comes with a model. Hashes files that have changed.

    Raises ModelInvalid or ModelCorrupt.
    """
    layers = model.manifest.of_type(DRAFT_LAYER)
    for layer in layers:
        model.store.blobs.verify_unchanged(layer.digest, layer.size)
    if not layers:
        return None
    return _draft(
        model, f"of {model.name.short}", layers, join_shards([model.store.metadata(one.digest) for one in layers])
    )


def named_draft(draft: StoredModel, field: str) -> DraftWish:
    """A model of the store as the draft model that `field` asks for. Raises as `own_draft`, and Unsupported."""
    draft.verify_unchanged()
    if "completion" not in draft.capabilities():
        raise Unsupported(f"{draft.name.short} does not generate text, so it cannot be a draft model.", field=field)
    return _draft(draft, draft.name.short, draft.weights, draft.metadata())


def _draft(model: StoredModel, name: str, layers: Sequence[Layer], metadata: GgufMetadata) -> DraftWish:
    digest = Digest.of("\n".join(str(layer.digest) for layer in layers).encode())
    files = DraftFiles(name, str(digest), tuple(str(model.store.blob_path(layer.digest)) for layer in layers))
    return DraftWish(files, metadata.weights_size, metadata.kv_bytes_per_token())


def memory_facts(model: StoredModel) -> MemoryFacts:
    """What is loaded for a model: its weights and its cache, with all that is loaded beside them.

    Whatever else a model brings into memory has to be counted here, and nowhere else, but for its adapters: models
    with the same weights share a worker, which asks for the memory of each when a request first wants it.
    Raises as `model_spec`.
    """
    metadata = model.metadata()
    weights, kv_per_token = metadata.weights_size, metadata.kv_bytes_per_token()
    weights += sum(layer.size for layer in model.projectors)
    return MemoryFacts(weights, kv_per_token, metadata.context_length)


def options_of(
    model: StoredModel, settings: Settings, request: Mapping[str, object], request_path: str = "options."
) -> Resolved:
    """What the model, the configuration and a request say together. Raises as `resolve_options` and `model_spec`."""
    return resolve_options(
        model={**settings.worker.model_options, **model.parameters},
        config=settings.model(model.name.short).options,
        request=request,
        training_context=model.metadata().context_length,
        request_path=request_path,
    )


def usual_wishes(model: StoredModel, settings: Settings) -> LoadWishes:
    """How a model is loaded for a request that has no wishes of its own. Raises as `model_spec`."""
    options = options_of(model, settings, {})
    return msgspec.structs.replace(options.wishes, draft=own_draft(model))


def model_spec(model: StoredModel, options: Resolved, draft: DraftWish | None = None) -> ModelSpec:
    """`draft` is the draft model that is wanted.

    Reads the headers of the model's files. Raises ModelInvalid, ModelCorrupt or Unsupported.
    """
    return ModelSpec(
        name=model.name.short,
        digest=model.digest,
        weights_digest=str(model.model_digest),
        path=model.model_paths[0],
        shards=model.model_paths[1:],
        projector=model.projector_path,
        memory=memory_facts(model),
        wishes=msgspec.structs.replace(options.wishes, draft=draft),
        details=model.details(),
    )
