"""A context that turns texts into vectors, beside the one that generates or in place of it."""

from __future__ import annotations

import array
import ctypes
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from llama_cpp import llama_cpp as lib

from runner.engine import ENCODING_SLOTS, EncodingChunk, EngineFault
from runner.errors import InsufficientMemory
from runner.llamacpp.batch import Batch, check_decoded
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.model import context_params
from runner.loaded_model import LoadOptions, Pooling

logger = logging.getLogger(__name__)

CHUNK_ROWS = 512
"""Most rows of a step for models that read from left to right."""
WHOLE_ROWS = 8192
"""Longest input of the others: all of it is computed at once, and the memory for that grows with it."""
_FIRST_ROOM = 512

_POOLINGS = {
    Pooling.MEAN: lib.LLAMA_POOLING_TYPE_MEAN,
    Pooling.CLS: lib.LLAMA_POOLING_TYPE_CLS,
    Pooling.LAST: lib.LLAMA_POOLING_TYPE_LAST,
    Pooling.RANK: lib.LLAMA_POOLING_TYPE_RANK,
}


class Encoder:
    """Makes its context when it is first needed, and a larger one for longer inputs. Used on the engine thread only.

    A model in which every token attends to every other has to see an input whole: llama.cpp aborts
    when it is larger than a micro-batch. One that reads from left to right may get it in pieces; the mean
    over its tokens is taken here then, because llama.cpp takes it over each piece alone.
    """

    def __init__(
        self, model: Any, options: LoadOptions, threads: int, log: LibraryLog, *, pooling: Pooling, is_whole: bool
    ) -> None:
        self._model = model
        self._options = options
        self._threads = threads
        self._log = log
        self._pooling = pooling
        self._is_whole = is_whole
        self._averages = pooling is Pooling.MEAN and not is_whole
        self._width: int = 1 if pooling is Pooling.RANK else lib.llama_model_n_embd_out(model)
        # A head with one output gives a logit; one with more is followed by a softmax in llama.cpp.
        self._is_logit = pooling is Pooling.RANK and lib.llama_model_n_cls_out(model) == 1
        self._context: Any = None
        self._memory: Any = None
        self._batch = Batch(1)
        self._sums: dict[int, np.ndarray[Any, Any]] = {}
        self.room = 0
        """Tokens of all inputs in progress."""
        self.rows = 0
        """Most tokens of one call."""
        self.native_ns = 0

    def prepare(self, tokens: int) -> None:
        """Have room for an input of so many tokens; forgets every input in progress. Raises InsufficientMemory."""
        self._sums.clear()
        if self._context is None or tokens > self.room:
            self.close()
            self._open(room_for(tokens))
        if self._memory:
            lib.llama_memory_clear(self._memory, False)

    def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        """Compute the chunks in one batch; the vectors of those that end their inputs. Raises as a step."""
        assert self._context is not None
        for chunk in chunks:
            if chunk.start == 0:
                self._forget(chunk.slot)
        self._batch.fill_for_vectors(chunks)
        started = time.perf_counter_ns()
        status: int = lib.llama_decode(self._context, self._batch.struct)
        vectors = self._read(chunks) if status == 0 else []
        self.native_ns += time.perf_counter_ns() - started
        for chunk in chunks:
            if chunk.is_last:
                self._forget(chunk.slot)
        check_decoded(status)
        return vectors

    def close(self) -> None:
        if self._context is not None:
            lib.llama_free(self._context)
            self._context = self._memory = None
            self.room = self.rows = 0

    def _open(self, room: int) -> None:
        rows = room if self._is_whole else min(room, CHUNK_ROWS)
        # Nothing is kept for long here, so that a smaller cache would cost exactness and save little.
        params = context_params(msgspec.structs.replace(self._options, kv_cache_type=None), self._threads)
        params.n_ctx = room
        params.n_batch = params.n_ubatch = rows
        params.n_seq_max = ENCODING_SLOTS
        params.n_outputs_max = 0
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE if self._averages else _POOLINGS[self._pooling]
        self._log.errors.clear()
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            reason = "; ".join(self._log.errors) or "it gave no reason"
            raise InsufficientMemory(
                f"There is no memory to compute inputs of {room} tokens: {reason}. Send shorter inputs, or unload "
                "another model.",
                context_length=room,
            )
        self._context = context
        self._memory = lib.llama_get_memory(context)
        self._batch = Batch(rows)
        self.room, self.rows = room, rows
        logger.info("made a context for vectors, room for %d tokens", room)

    def _forget(self, slot: int) -> None:
        self._sums.pop(slot, None)
        if self._memory:
            lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def _read(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        if self._averages:
            return self._read_means(chunks)
        return [self._pooled(chunk) if chunk.is_last else None for chunk in chunks]

    def _pooled(self, chunk: EncodingChunk) -> array.array[float]:
        pointer = lib.llama_get_embeddings_seq(self._context, chunk.slot)
        if not pointer:
            raise EngineFault("llama.cpp has no vector for an input")
        values = np.ctypeslib.as_array(pointer, shape=(self._width,))
        return _floats(1 / (1 + np.exp(-values)) if self._is_logit else values)

    def _read_means(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        total = sum(len(chunk.tokens) for chunk in chunks)
        pointer = lib.llama_get_embeddings(self._context)
        if not pointer:
            raise EngineFault("llama.cpp has no vectors for a batch")
        rows = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape=(total, self._width))
        vectors: list[array.array[float] | None] = []
        first = 0
        for chunk in chunks:
            end = first + len(chunk.tokens)
            here = rows[first:end].sum(axis=0, dtype=np.float64)
            first = end
            so_far = self._sums.pop(chunk.slot, None)
            here = here if so_far is None else so_far + here
            if chunk.is_last:
                vectors.append(_floats(here / (chunk.start + len(chunk.tokens))))
            else:
                self._sums[chunk.slot] = here
                vectors.append(None)
        return vectors


def room_for(tokens: int) -> int:
    """The room of a context that takes an input of so many tokens."""
    return max(_FIRST_ROOM, 1 << (tokens - 1).bit_length())


def _floats(values: np.ndarray[Any, Any]) -> array.array[float]:
    return array.array("f", values.astype("<f4").tobytes())
