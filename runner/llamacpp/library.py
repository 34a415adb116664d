"""The llama.cpp library of this process: checked once, initialised once, its log routed to ours."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from collections import deque
from typing import Any, ClassVar

import llama_cpp
from llama_cpp import llama_cpp as lib

from runner.errors import RunnerError

logger = logging.getLogger(__name__)

TESTED_VERSIONS = ("0.3.36",)

FUNCTIONS = (
    "llama_adapter_get_alora_n_invocation_tokens",
    "llama_adapter_lora_init",
    "llama_backend_init",
    "llama_batch_free",
    "llama_batch_init",
    "llama_context_default_params",
    "llama_decode",
    "llama_detokenize",
    "llama_free",
    "llama_get_embeddings",
    "llama_get_embeddings_seq",
    "llama_get_logits_ith",
    "llama_get_memory",
    "llama_init_from_model",
    "llama_log_set",
    "llama_max_devices",
    "llama_memory_can_shift",
    "llama_memory_clear",
    "llama_memory_seq_add",
    "llama_memory_seq_cp",
    "llama_memory_seq_rm",
    "llama_model_chat_template",
    "llama_model_default_params",
    "llama_model_free",
    "llama_model_get_vocab",
    "llama_model_has_decoder",
    "llama_model_has_encoder",
    "llama_model_is_diffusion",
    "llama_model_is_hybrid",
    "llama_model_is_recurrent",
    "llama_model_load_from_file",
    "llama_model_load_from_splits",
    "llama_model_meta_val_str",
    "llama_model_n_cls_out",
    "llama_model_n_embd",
    "llama_model_n_embd_inp",
    "llama_model_n_embd_out",
    "llama_model_quantize",
    "llama_model_quantize_default_params",
    "llama_model_n_ctx_train",
    "llama_model_n_layer",
    "llama_model_n_swa",
    "llama_model_rope_type",
    "llama_n_ctx_seq",
    "llama_n_threads",
    "llama_print_system_info",
    "llama_sampler_accept",
    "llama_sampler_apply",
    "llama_sampler_chain_add",
    "llama_sampler_chain_default_params",
    "llama_sampler_chain_init",
    "llama_sampler_free",
    "llama_sampler_init_dist",
    "llama_sampler_init_greedy",
    "llama_sampler_init_min_p",
    "llama_sampler_init_mirostat",
    "llama_sampler_init_mirostat_v2",
    "llama_sampler_init_penalties",
    "llama_sampler_init_temp",
    "llama_sampler_init_top_k",
    "llama_sampler_init_top_p",
    "llama_sampler_init_typical",
    "llama_sampler_sample",
    "llama_set_n_threads",
    "llama_set_causal_attn",
    "llama_set_adapters_lora",
    "llama_state_seq_get_data",
    "llama_state_seq_get_size",
    "llama_state_seq_set_data",
    "llama_synchronize",
    "llama_token_to_piece",
    "llama_tokenize",
    "llama_vocab_bos",
    "llama_vocab_eos",
    "llama_vocab_fim_mid",
    "llama_vocab_fim_pre",
    "llama_vocab_fim_suf",
    "llama_vocab_get_add_bos",
    "llama_vocab_get_add_eos",
    "llama_vocab_get_add_sep",
    "llama_vocab_get_attr",
    "llama_vocab_get_text",
    "llama_vocab_is_eog",
    "llama_vocab_n_tokens",
    "llama_vocab_pad",
    "llama_vocab_sep",
    "llama_vocab_type",
)
"""Every function this package calls, so that a changed library is noticed at start and not in mid-answer."""

# ggml_log_level: the numbers of ggml.h
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUATION = 5
_MEBIBYTE = 1024 * 1024

_BUFFER_LINE = re.compile(r"(\S+)\s+(?:model|KV|RS|compute|output) buffer size\s*=\s*([0-9.]+) MiB")
_CACHE_LINE = re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size\s*=\s*([0-9.]+) MiB")
_OFFLOAD_LINE = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")


class Library:
    """The process-wide library. Make one, in the process that runs a model."""

    _logs: ClassVar[list[LibraryLog]] = []
    """The library calls back whenever it likes, until the process ends, so no log may be freed before."""

    def __init__(self) -> None:
        check_version()
        self.log = LibraryLog()
        self.listen(self.log)
        lib.llama_backend_init()

    def listen(self, log: LibraryLog) -> None:
        """From now on, what the library says goes to this log."""
        self._logs.append(log)
        lib.llama_log_set(log.callback, ctypes.c_void_p(0))

    @property
    def description(self) -> str:
        """Name and version of the build, with the CPU features it was compiled for."""
        features = lib.llama_print_system_info().decode("utf-8", "replace").strip().strip("|").strip()
        return f"llama.cpp (llama-cpp-python {llama_cpp.__version__}; {features})"


class _Heard(threading.local):
    """What was said to the calls of one thread."""

    def __init__(self) -> None:
        self.line = ""
        self.level = logging.DEBUG
        self.errors: deque[str] = deque(maxlen=8)
        self.buffers: dict[str, float] = {}
        self.cache = 0.0
        self.offloaded: tuple[int, int] | None = None


class LibraryLog:
    """Collects what the library says: to our log, and the lines a loader wants to read afterwards.

    Every thread reads here only what was said to its own calls.
    """

    def __init__(self) -> None:
        self._heard = _Heard()
        self.callback = lib.llama_log_callback(self.receive)

    @property
    def errors(self) -> deque[str]:
        """The last ones."""
        return self._heard.errors

    @property
    def buffers(self) -> dict[str, float]:
        """Bytes by the name of the buffer's device, since `start_recording`."""
        return self._heard.buffers

    @property
    def cache(self) -> float:
        """Bytes of the caches, also where nothing was allocated."""
        return self._heard.cache

    @property
    def offloaded(self) -> tuple[int, int] | None:
        """How many layers went to GPUs, and how many there are."""
        return self._heard.offloaded

    def start_recording(self) -> None:
        """Forget what earlier loads said."""
        heard = self._heard
        heard.errors.clear()
        heard.buffers.clear()
        heard.cache, heard.offloaded = 0.0, None

    def receive(self, level: int, text: bytes | None, _user_data: Any) -> None:
        """Take in a piece of what is said; the library calls this."""
        heard = self._heard
        if level != _CONTINUATION:
            heard.level = _LEVELS.get(level, logging.DEBUG)
        heard.line += (text or b"").decode("utf-8", "replace")
        *lines, heard.line = heard.line.split("\n")
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        heard = self._heard
        if match := _BUFFER_LINE.search(line):
            name, mebibytes = match.groups()
            heard.buffers[name] = heard.buffers.get(name, 0.0) + float(mebibytes) * _MEBIBYTE
        elif match := _CACHE_LINE.search(line):
            heard.cache += float(match[1]) * _MEBIBYTE
        elif match := _OFFLOAD_LINE.search(line):
            heard.offloaded = int(match[1]), int(match[2])
        if heard.level >= logging.ERROR:
            heard.errors.append(line.strip())
        if line.strip(" ."):
            logger.log(heard.level, "%s", line)


def check_version() -> None:
    """Raise RunnerError when the library is not one this package was written for.

    Structs travel by value, so a field added in the middle would be read as its neighbour. The
    defaults the library fills in are known; finding them where we look shows that the layouts agree.
    """
    missing = [name for name in FUNCTIONS if not hasattr(lib, name)]
    if missing:
        raise RunnerError(
            f"llama-cpp-python {llama_cpp.__version__} lacks {', '.join(missing)}; "
            f"install one of the tested versions: {', '.join(TESTED_VERSIONS)}."
        )
    context = lib.llama_context_default_params()
    model = lib.llama_model_default_params()
    found = (
        context.n_ctx,
        context.n_batch,
        context.n_ubatch,
        context.n_seq_max,
        context.flash_attn_type,
        context.yarn_ext_factor,
        context.type_k,
        context.type_v,
        context.offload_kqv,
        context.kv_unified,
        model.use_extra_bufts,
        model.vocab_only,
        model.no_alloc,
    )
    expected = (512, 2048, 512, 1, -1, -1.0, 1, 1, True, False, True, False, False)
    if found != expected:
        raise RunnerError(
            f"llama-cpp-python {llama_cpp.__version__} does not match its library: defaults read {found}, "
            f"expected {expected}; reinstall it (tested versions: {', '.join(TESTED_VERSIONS)})."
        )
