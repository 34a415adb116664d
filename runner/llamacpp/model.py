"""Load a model file and make a context over it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.engine import MAX_DRAFTED_ROWS, MAX_SCORED_ROWS
from runner.errors import InsufficientMemory, InvalidRequest, ModelInvalid, Unsupported
from runner.llamacpp.devices import ALL_LAYERS, experts_on_cpu
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.memory import kind_of, native_ids
from runner.loaded_model import LoadOptions, Pooling

MICRO_BATCH = 512
"""Most tokens llama.cpp computes at once; a step larger than this is cut by the library."""
_FLASH_ATTENTION = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_CACHE_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}
_ROPE_SCALINGS = {
    "none": lib.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": lib.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": lib.LLAMA_ROPE_SCALING_TYPE_YARN,
}
_ROPE_FIELDS = {
    "rope_frequency_base": "rope_freq_base",
    "rope_frequency_scale": "rope_freq_scale",
    "yarn_orig_ctx": "yarn_orig_ctx",
    "yarn_ext_factor": "yarn_ext_factor",
    "yarn_beta_fast": "yarn_beta_fast",
    "yarn_beta_slow": "yarn_beta_slow",
}
_SPLIT_MODES = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
}
_POOLINGS = {"1": Pooling.MEAN, "2": Pooling.CLS, "3": Pooling.LAST, "4": Pooling.RANK}


@dataclass(frozen=True, slots=True)
class NewContext:
    """A context over loaded weights that is not used yet."""

    context: Any
    buffers: dict[str, float]
    """Its bytes by the name of the buffer's device."""


class Model:
    """A loaded model and its context: owns both native handles, frees them in the right order."""

    def __init__(
        self,
        files: Sequence[Path],
        options: LoadOptions,
        gpu_layers: int,
        threads: int,
        log: LibraryLog,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        """Load one file, or the shards of a model in order. Blocks while the weights are read.

        Raises ModelInvalid for a file llama.cpp refuses, Unsupported for a model that does not
        generate text, and InsufficientMemory when the context cannot be allocated.
        """
        log.start_recording()
        self.handle = load_weights(files, options, gpu_layers, log, on_progress=on_progress)
        self.context: Any = None
        self.memory: Any = None
        self.context_buffers: dict[str, float] = {}
        """Bytes of the context by the name of the buffer's device."""
        self.cache = 0
        """Those of them that are its cache."""
        before = dict(log.buffers)
        try:
            _refuse_what_does_not_generate(self.handle)
            if not self.encodes_only:
                self.context = make_context(self.handle, options, threads, log)
                self.context_buffers = {name: size - before.get(name, 0) for name, size in log.buffers.items()}
                self.cache = int(log.cache)
        except Exception:
            lib.llama_model_free(self.handle)
            raise
        if self.context is not None:
            self.memory = lib.llama_get_memory(self.context)
            if not self.memory:
                self.close()
                raise Unsupported("This kind of model keeps no cache of its context and cannot be served.")

    def replace_context(self, new: NewContext) -> Any:
        """Use another context over the same weights; the one before, to be freed by the caller."""
        before, self.context, self.context_buffers = self.context, new.context, new.buffers
        self.memory = lib.llama_get_memory(new.context)
        return before

    def drop_context(self) -> None:
        """Free the context and keep the weights."""
        if self.context is not None:
            lib.llama_free(self.context)
            self.context = self.memory = None

    @property
    def encodes_only(self) -> bool:
        """Whether the model is there for vectors alone; then there is no context here."""
        return self._own_metadata("pooling_type") is not None

    @property
    def pooling(self) -> Pooling:
        """What the file says, else the mean."""
        return _POOLINGS.get(self._own_metadata("pooling_type") or "", Pooling.MEAN)

    @property
    def is_causal(self) -> bool:
        """Whether every token is read without those that follow it."""
        return self._own_metadata("attention.causal") != "false"

    @property
    def rerank_template(self) -> str | None:
        source: bytes | None = lib.llama_model_chat_template(self.handle, b"rerank")
        return None if source is None else source.decode("utf-8", "replace")

    def _own_metadata(self, name: str) -> str | None:
        return self.metadata(f"{self.metadata('general.architecture')}.{name}")

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata as text."""
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.raw[:length].decode("utf-8", "replace")
            size = length + 1

    @property
    def chat_template(self) -> str | None:
        source: bytes | None = lib.llama_model_chat_template(self.handle, None)
        return None if source is None else source.decode("utf-8", "replace")

    @property
    def can_shift(self) -> bool:
        """Whether a part of a sequence can be forgotten and the rest moved.

        A recurrent state has taken everything in at once. llama.cpp moves its position without
        forgetting anything and calls that shifting.
        """
        keeps_states = lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle)
        return not keeps_states and bool(self.memory) and bool(lib.llama_memory_can_shift(self.memory))

    def close(self) -> None:
        if self.handle is not None:
            self.drop_context()
            lib.llama_model_free(self.handle)
            self.handle = None


@dataclass(frozen=True, slots=True)
class ContextNeeds:
    """Bytes that a context takes beside the weights."""

    cache: int
    compute: int


def measure(files: Sequence[Path], options: LoadOptions, log: LibraryLog) -> int:
    """Bytes that all layers, caches and compute buffers will take, found in milliseconds by allocating none of it.

    llama.cpp lays out the buffers of a model loaded with `no_alloc` and tells their sizes in its
    log; the weights count as their file. Raises as `Model` does.
    """
    _, (needs,) = measure_contexts(files, [options], log)
    return sum(file.stat().st_size for file in files) + needs.cache + needs.compute


def measure_contexts(
    files: Sequence[Path], wanted: Sequence[LoadOptions], log: LibraryLog
) -> tuple[int, list[ContextNeeds]]:
    """How many layers the model has, and what each context would take beside it. As `measure`."""
    log.start_recording()
    model = load_weights(files, wanted[0], ALL_LAYERS, log, on_progress=None, measure_only=True)
    needs = []
    try:
        layers = int(lib.llama_model_n_layer(model)) + 1
        for options in wanted:
            log.start_recording()
            lib.llama_free(make_context(model, options, threads=1, log=log))
            needs.append(ContextNeeds(int(log.cache), int(sum(log.buffers.values()))))
    finally:
        lib.llama_model_free(model)
    return layers, needs


def load_weights(
    files: Sequence[Path],
    options: LoadOptions,
    gpu_layers: int,
    log: LibraryLog,
    *,
    on_progress: Callable[[float], None] | None,
    measure_only: bool = False,
) -> Any:
    def report(fraction: float, _user_data: Any) -> bool:
        if on_progress is not None:
            on_progress(fraction)
        return True

    callback = lib.llama_progress_callback(report)
    params = lib.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    params.progress_callback = callback
    params.no_alloc = measure_only
    if options.main_gpu is not None:
        params.main_gpu = options.main_gpu
        params.split_mode = lib.LLAMA_SPLIT_MODE_NONE
    if options.split_mode is not None:
        params.split_mode = _SPLIT_MODES[options.split_mode]
    split = _tensor_split(options.tensor_split)
    if split is not None:
        params.tensor_split = split
    overrides = experts_on_cpu(options.num_cpu_moe) if options.num_cpu_moe else None
    if overrides is not None:
        params.tensor_buft_overrides = ctypes.addressof(overrides)
    params.load_mode = lib.LLAMA_LOAD_MODE_NONE if measure_only else _load_mode(options)
    names = [os.fsencode(file) for file in files]
    if len(names) == 1:
        handle = lib.llama_model_load_from_file(names[0], params)
    else:
        handle = lib.llama_model_load_from_splits((ctypes.c_char_p * len(names))(*names), len(names), params)
    if not handle:
        raise ModelInvalid(f"llama.cpp cannot load the model: {_last_words(log)}")
    return handle


def _load_mode(options: LoadOptions) -> int:
    maps = options.use_mmap is not False
    if options.use_mlock:
        return int(lib.LLAMA_LOAD_MODE_MMAP_MLOCK if maps else lib.LLAMA_LOAD_MODE_MLOCK)
    if options.use_mmap is None:
        return int(lib.LLAMA_LOAD_MODE_AUTO)
    return int(lib.LLAMA_LOAD_MODE_MMAP if maps else lib.LLAMA_LOAD_MODE_NONE)


def _tensor_split(shares: Sequence[float] | None) -> Any:
    """llama.cpp reads as many numbers as it could have devices."""
    if shares is None:
        return None
    most = int(lib.llama_max_devices())
    if len(shares) > most:
        raise InvalidRequest(
            f"tensor_split has {len(shares)} shares; at most {most} devices can be used.", "tensor_split"
        )
    return (ctypes.c_float * most)(*shares)


def _refuse_what_does_not_generate(model: Any) -> None:
    if lib.llama_model_has_encoder(model):
        raise Unsupported("Models with an encoder are not served by this version.")
    if not lib.llama_model_has_decoder(model) or lib.llama_model_is_diffusion(model):
        raise Unsupported("This model does not generate text token by token; this version serves no such models.")


def context_params(options: LoadOptions, threads: int) -> Any:
    """What all contexts over a model have in common."""
    params = lib.llama_context_default_params()
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True
    params.flash_attn_type = _FLASH_ATTENTION[options.flash_attention or "auto"]
    params.type_k = params.type_v = _CACHE_TYPES[options.kv_cache_type or "f16"]
    if options.rope_scaling is not None:
        params.rope_scaling_type = _ROPE_SCALINGS[options.rope_scaling]
    for name, field in _ROPE_FIELDS.items():
        if (value := getattr(options, name)) is not None:
            setattr(params, field, value)
    params.no_perf = True
    return params


def cache_format(options: LoadOptions) -> str:
    """What decides, besides the weights, what stands in a cache."""
    told = [options.kv_cache_type or "f16", f"flash attention {options.flash_attention or 'auto'}"]
    told += [
        f"{name} {value}" for name in ("rope_scaling", *_ROPE_FIELDS) if (value := getattr(options, name)) is not None
    ]
    return ", ".join(told)


def make_context(model: Any, options: LoadOptions, threads: int, log: LibraryLog) -> Any:
    """A context over loaded weights, to be freed by the caller. Raises InsufficientMemory."""
    params = context_params(options, threads)
    params.n_ctx = options.context_length
    params.n_batch = options.num_batch
    params.n_ubatch = min(options.num_batch, MICRO_BATCH)
    params.n_seq_max = native_ids(kind_of(model), options.max_sequences)
    # A row of logits for each sequence, those of scored prompts and of guesses are all that is ever read; the
    # default reserves n_batch of them.
    params.n_outputs_max = params.n_seq_max + MAX_SCORED_ROWS + MAX_DRAFTED_ROWS
    context = lib.llama_init_from_model(model, params)
    if not context and (options.kv_cache_type or "f16") != "f16" and _is_about_cache_type(log):
        raise Unsupported(
            f"This model cannot keep its cache as {options.kv_cache_type}: {_last_words(log)}.", field="kv_cache_type"
        )
    if not context:
        raise InsufficientMemory(
            f"There is no memory for a window of {options.context_length} tokens: {_last_words(log)}. "
            "Set a smaller num_ctx, unload another model, or choose a smaller one.",
            context_length=options.context_length,
        )
    return context


def use_threads(context: Any, count: int) -> None:
    """Compute the next steps with so many; asking first is quicker, for being told is logged every time."""
    if lib.llama_n_threads(context) != count:
        lib.llama_set_n_threads(context, count, count)


def _is_about_cache_type(log: LibraryLog) -> bool:
    return any("cache" in line and ("type" in line or "quantiz" in line) for line in log.errors)


def _last_words(log: LibraryLog) -> str:
    return "; ".join(log.errors) or "it gave no reason"
