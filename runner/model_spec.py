"""What the supervisor is told of a model that a request wants."""

from __future__ import annotations

from registry.stored_model import StoredModel
from runner.options import Resolved
from runner.supervisor.types import MemoryFacts, ModelSpec


def model_spec(model: StoredModel, options: Resolved) -> ModelSpec:
    """Reads the headers of the model's files. Raises ModelInvalid, ModelCorrupt or Unsupported."""
    metadata = model.metadata()
    return ModelSpec(
        name=model.name.short,
        digest=model.digest,
        weights_digest=str(model.model_digest),
        path=model.model_paths[0],
        shards=model.model_paths[1:],
        projector=model.projector_path,
        memory=MemoryFacts(
            metadata.weights_size + sum(layer.size for layer in model.projectors),
            metadata.kv_bytes_per_token(),
            metadata.context_length,
        ),
        wishes=options.wishes,
        details=model.details(),
    )
