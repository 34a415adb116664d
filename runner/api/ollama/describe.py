"""Models as the Ollama dialect shows them: entries of /api/tags, /api/ps and /api/show."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import msgspec

from registry.errors import RegistryError
from registry.gguf_metadata import GgufMetadata
from registry.manifest import ADAPTER_LAYER, DRAFT_LAYER, MODEL_LAYER, PROJECTOR_LAYER
from registry.modelfile_of import modelfile_of
from registry.stored_model import StoredModel
from runner.loaded_model import LoadedModel, LoadOptions
from runner.messages import Stats
from runner.supervisor.fit import Fit
from runner.supervisor.types import ModelStatus

logger = logging.getLogger(__name__)

Json = dict[str, object]

_NEVER = datetime(2400, 1, 1, tzinfo=UTC)
"""Clients want a time even for models that stay for ever."""
_NOT_SHOWN = frozenset({"general.name", "tokenizer.chat_template"})
_NO_DETAILS: Json = {
    "parent_model": "",
    "format": "gguf",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


def model_entry(model: StoredModel) -> Json:
    """A row of /api/tags. A model whose file cannot be read is shown without what its file would tell."""
    try:
        details, capabilities = model.details(), model.capabilities()
    except RegistryError as error:
        logger.warning("%s cannot be read: %s", model.name.short, error.message)
        details, capabilities = _NO_DETAILS, ()
    entry: Json = {
        "name": model.name.short,
        "model": model.name.short,
        "modified_at": model.modified_at.isoformat(),
        "size": model.size,
        "digest": model.digest,
        "details": details,
    }
    if capabilities:
        entry["capabilities"] = capabilities
    if model.is_damaged:
        entry["damaged"] = True
        # The place itself is not told: people on other machines may read this.
        in_place = [str(digest) for digest in model.damaged_in_place]
        entry |= {"damaged_in_place": in_place} if in_place else {}
    return entry


def loaded_model(status: ModelStatus) -> Json:
    """A row of /api/ps."""
    spec, loaded = status.spec, status.loaded
    entry: Json = {
        "name": spec.name,
        "model": spec.name,
        "size": status.planned or (loaded.size if loaded else spec.memory.weights),
        "digest": spec.digest,
        "details": spec.details,
        "expires_at": (status.expires_at or _NEVER).isoformat(),
        "size_vram": status.planned_vram or (loaded.size_vram if loaded else 0),
        "state": status.state.value,
        "restarts": status.restarts,
        "last_reload_reason": status.last_reload_reason,
    }
    if loaded is None:
        return entry | {"load_fraction": status.load_fraction}
    stats = status.stats
    return entry | {
        "context_length": loaded.context_length,
        "largest_context_length": status.largest_context or loaded.reach,
        "grown": {"count": status.growths, "at": status.grown_at.isoformat() if status.grown_at else None},
        "devices": loaded.devices,
        "placement": loaded.placement,
        "options": _load_options(loaded.options),
        "memory": status.memory,
        "sequences": {
            "running": stats.running if stats else 0,
            "waiting": stats.waiting if stats else 0,
            "max": loaded.max_sequences,
        },
        "threads": _threads(loaded, stats),
        "cache": stats.cache if stats else None,
        "steps": _steps(stats) if stats else None,
    }


def model_details(model: StoredModel, *, verbose: bool) -> Json:
    """The answer of /api/show; arrays of the file's header are told only with `verbose`."""
    metadata = model.metadata()
    shown: Json = {
        "license": "\n".join(model.licenses),
        "modelfile": _modelfile(model),
        "parameters": _parameter_lines(model),
        "template": model.template or metadata.chat_template,
        "system": model.system,
        "details": model.details(),
        "messages": [{"role": role, "content": content} for role, content in model.messages],
        "model_info": _model_info(metadata, verbose=verbose),
        "tensors": [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape)} for tensor in metadata.tensors
        ],
        "capabilities": list(model.capabilities()),
        "modified_at": model.modified_at.isoformat(),
    }
    return {name: value for name, value in shown.items() if value or name in ("details", "model_info", "tensors")}


def fit_body(fit: Fit) -> Json:
    """The `fit` object of /api/show; sizes in bytes."""
    needs = fit.needs
    body: Json = {
        "measured": fit.is_measured,
        "verdict": fit.verdict.value,
        "placement": fit.placement,
        "weights": needs.weights,
        "kv_cache_per_1k_tokens": needs.cache_per_token * 1024,
        "kv_cache_fixed": needs.cache_fixed,
        "compute_buffers": needs.compute,
        "context_length": fit.window,
        "largest_context_length": fit.largest,
        "kv_cache": fit.plan.kv + needs.cache_fixed,
        "needed": fit.needed,
        "layers": needs.layers,
        "gpu_layers": fit.gpu_layers,
        "fast_kernel": fit.fast_kernel,
        "kernel": fit.kernel,
        "devices": [msgspec.to_builtins(device) for device in fit.devices],
    }
    beside = {"projector": fit.projector, "adapters": fit.adapters}
    return body | {name: size for name, size in beside.items() if size}


def _threads(loaded: LoadedModel, stats: Stats | None) -> Json:
    decode, prefill = (stats.decode_threads, stats.prefill_threads) if stats else (0, 0)
    return {"decode": decode or loaded.threads, "prefill": prefill or loaded.threads, "max": loaded.threads}


def _load_options(options: LoadOptions | None) -> Json | None:
    """What was asked of the engine for this model; what is not here was left to it."""
    if options is None:
        return None
    told = msgspec.structs.asdict(options) | {"draft": options.draft.name if options.draft else None}
    return {name: value for name, value in told.items() if value is not None}


def _steps(stats: Stats) -> Json:
    return {
        "count": stats.steps,
        "rows": stats.rows,
        "sampled": stats.sampled,
        "step_seconds": stats.step_ns / 1e9,
        "native_seconds": stats.native_ns / 1e9,
    }


def _model_info(metadata: GgufMetadata, *, verbose: bool) -> Json:
    info: Json = {"general.parameter_count": metadata.parameter_count}
    for name, value in metadata.values.items():
        if name not in _NOT_SHOWN:
            info[name] = None if isinstance(value, list) and value and not verbose else value
    return dict(sorted(info.items()))


def _modelfile(model: StoredModel) -> str:
    files = {MODEL_LAYER: [str(path) for path in model.model_paths]}
    for media_type in (PROJECTOR_LAYER, ADAPTER_LAYER, DRAFT_LAYER):
        files[media_type] = [str(model.store.blob_path(layer.digest)) for layer in model.manifest.of_type(media_type)]
    modelfile, left_out = modelfile_of(model, files)
    heading = [
        'Modelfile generated by "puna show"',
        "To build a new Modelfile based on this, replace FROM with:",
        f"FROM {model.name.short}",
        *(f"Left out, because a Modelfile cannot tell it: {one}" for one in left_out),
    ]
    return "".join(f"# {line}\n" for line in heading) + f"\n{modelfile.render()}"


def _parameter_lines(model: StoredModel) -> str:
    return "\n".join(
        f"{name:<30} {json.dumps(one, ensure_ascii=False)}"
        for name, value in model.parameters.items()
        for one in (value if isinstance(value, list) else [value])
    )
