"""What the contexts beside the main one take, by what that one was measured to take."""

from __future__ import annotations

from llama_cpp import llama_cpp as lib

from runner.llamacpp.encoder import CHUNK_ROWS
from runner.llamacpp.model import Model
from runner.loaded_model import LoadOptions

_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
"""Of a number in a cache, by the cache's type."""
_VALUES_PER_ROW = 24
"""Numbers as long as an embedding that computing a row takes, for models that have no main context to be measured."""


class BesideNeeds:
    """Bytes for one model's contexts: a cache grows evenly with the window, what computes with the rows of a step."""

    def __init__(self, model: Model, options: LoadOptions) -> None:
        self._per_token = model.cache / options.context_length
        self._f16 = self._per_token * _BITS["f16"] / _BITS[options.kv_cache_type or "f16"]
        rows = min(options.num_batch, CHUNK_ROWS)
        if model.context is not None:
            compute = sum(model.context_buffers.values()) - model.cache
        else:
            compute = _VALUES_PER_ROW * 4 * rows * int(lib.llama_model_n_embd(model.handle))
        self._compute = max(0.0, compute)
        self._per_row = self._compute / rows

    def solo(self, window: int) -> int:
        """Of a context for one deterministic sequence, whose steps are no larger than others'."""
        return int(self._per_token * window + self._compute)

    def encoder(self, room: int, *, is_whole: bool) -> int:
        """Of a context for vectors of inputs of so many tokens, which may have to be computed whole."""
        rows = room if is_whole else min(room, CHUNK_ROWS)
        return int(self._f16 * room + self._per_row * rows)
