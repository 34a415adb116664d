"""What is told of a loaded model: where it is, what it takes, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence

from llama_cpp import llama_cpp as lib

from runner.llamacpp.devices import Device, Placement
from runner.llamacpp.encoder import WHOLE_ROWS
from runner.llamacpp.library import Library
from runner.llamacpp.memory import kind_of, resting_ids
from runner.llamacpp.model import Model
from runner.llamacpp.vocabulary import Vocabulary
from runner.loaded_model import DeviceUse, Encoding, LoadedModel, LoadOptions


def describe(
    model: Model,
    library: Library,
    options: LoadOptions,
    *,
    placement: Placement,
    devices: Sequence[Device],
    threads: int,
    window: int,
) -> LoadedModel:
    """All that is known right after loading, from the model and from what the library said meanwhile."""
    log = library.log
    layers = int(lib.llama_model_n_layer(model.handle)) + 1
    gpu_layers = log.offloaded[0] if log.offloaded else 0
    generates, kind = model.context is not None, kind_of(model.handle)
    return LoadedModel(
        architecture=model.metadata("general.architecture") or "",
        engine=library.description,
        context_length=window,
        training_context=int(lib.llama_model_n_ctx_train(model.handle)),
        max_sequences=options.max_sequences,
        vocabulary=Vocabulary(model.handle).size,
        size=int(sum(log.buffers.values())),
        size_vram=bytes_on_gpus(log.buffers, devices),
        layers=layers,
        gpu_layers=gpu_layers,
        devices=tuple(
            DeviceUse(
                name=device.name,
                kind=device.kind,
                description=device.description,
                layers=layers - gpu_layers if device.kind == "cpu" else 0,
                memory_total=device.memory_total,
                memory_free=device.memory_free,
            )
            for device in devices
            if device.kind in ("cpu", "gpu", "igpu")
        ),
        placement=placement.reason,
        threads=threads,
        has_chat_template=model.chat_template is not None,
        can_shift=model.can_shift,
        max_rows=options.num_batch,
        memory=kind,
        resting_ids=resting_ids(kind, options.max_sequences),
        generates=generates,
        encoding=_encoding_of(model, max(window, options.longest_context)),
        longest_context=options.longest_context if generates else 0,
        options=options,
        has_fixed_threads=options.num_thread is not None,
    )


def bytes_on_gpus(buffers: dict[str, float], devices: Sequence[Device]) -> int:
    """The part of buffers, by the names of their devices, that is on GPUs."""
    names = tuple(device.name for device in devices if device.kind in ("gpu", "igpu"))
    return int(sum(size for name, size in buffers.items() if name.startswith(names)))


def _encoding_of(model: Model, window: int) -> Encoding | None:
    """How a model makes vectors; recurrent ones, whose inputs llama.cpp cuts as it likes, make none."""
    if lib.llama_model_is_recurrent(model.handle) or lib.llama_model_is_hybrid(model.handle):
        return None
    is_whole = not model.is_causal
    return Encoding(
        model.pooling,
        int(lib.llama_model_n_embd_out(model.handle)),
        min(window, WHOLE_ROWS) if is_whole else window,
        is_whole,
    )
