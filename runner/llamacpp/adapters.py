"""LoRA adapters of a loaded model: read once, and put on a context for the steps that want them."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.adapters import AdapterSet, AdapterUse
from runner.errors import ModelInvalid, Unsupported
from runner.llamacpp.library import LibraryLog

logger = logging.getLogger(__name__)


class Adapters:
    """Owns the handles; llama.cpp frees them with the model.

    `load` may be called from any thread, `apply` from the engine thread only.
    """

    def __init__(self, model: Any, log: LibraryLog) -> None:
        self._model = model
        self._log = log
        self._lock = threading.Lock()
        self._handles: dict[str, Any] = {}

    def load(self, adapters: AdapterSet) -> None:
        """Read those that were not read before; blocks. Raises ModelInvalid or Unsupported."""
        with self._lock:
            for use in adapters:
                if use.digest not in self._handles:
                    self._handles[use.digest] = self._read(use)

    def apply(self, context: Any, adapters: AdapterSet) -> None:
        """Let the context compute with exactly these, which were loaded; costs nothing while no request had any."""
        if not self._handles:
            return
        count = len(adapters)
        handles = (lib.llama_adapter_lora_p_ctypes * count)(*(self._handles[use.digest] for use in adapters))
        scales = (ctypes.c_float * count)(*(use.scale for use in adapters))
        status: int = lib.llama_set_adapters_lora(context, handles, count, scales)
        assert status == 0, f"llama_set_adapters_lora returned {status}"

    def _read(self, use: AdapterUse) -> Any:
        self._log.errors.clear()
        handle = lib.llama_adapter_lora_init(self._model, os.fsencode(use.path))
        if not handle:
            reason = "; ".join(self._log.errors) or "it gave no reason"
            raise ModelInvalid(f"llama.cpp cannot use the LoRA adapter with this model: {reason}")
        if lib.llama_adapter_get_alora_n_invocation_tokens(handle):
            raise Unsupported("The adapter is an activated LoRA, which begins to act in mid-prompt; LoRA can be used.")
        logger.info("read a LoRA adapter, %s", use.digest)
        return handle
