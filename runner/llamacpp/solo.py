"""A second context over the same weights, for one sequence at a time that nothing else may influence."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from llama_cpp import llama_cpp as lib

from runner.engine import SOLO_ROWS, Chunk, EngineFault, LoadOptions, OutOfCells
from runner.llamacpp.batch import Batch
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.model import make_context
from runner.llamacpp.sampler import SamplerChain, ShapedSampler

logger = logging.getLogger(__name__)

_STEP = 1024
"""Windows are made in whole steps, so that a slightly longer request needs no other context."""


class Solo:
    """Makes the context when it is first needed, and a larger one when a request needs that.

    How llama.cpp adds up depends on how many rows are computed at once and where cells lie. Here
    both depend on the sequence alone.
    """

    def __init__(self, model: Any, options: LoadOptions, threads: int, log: LibraryLog) -> None:
        self._model = model
        self._options = options
        self._threads = threads
        self._log = log
        self._context: Any = None
        self._window = 0
        self._batch = Batch(SOLO_ROWS)
        self.native_ns = 0

    @property
    def context(self) -> Any:
        """None before the first `begin`."""
        return self._context

    def begin(self, window: int) -> None:
        """Forget the sequence before, and have room for one of `window` tokens. Raises InsufficientMemory."""
        if self._context is None or window > self._window:
            self.close()
            rounded = -(-window // _STEP) * _STEP
            options = msgspec.structs.replace(
                self._options, context_length=rounded, max_sequences=1, num_batch=SOLO_ROWS
            )
            self._context = make_context(self._model, options, self._threads, self._log)
            self._window = rounded
            logger.info("made a context of its own for deterministic requests, window %d", rounded)
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)

    def step(self, chunk: Chunk) -> int | None:
        self._batch.fill([chunk])
        if isinstance(chunk.sampler, ShapedSampler):
            chunk.sampler.prepare()
        started = time.perf_counter_ns()
        status: int = lib.llama_decode(self._context, self._batch.struct)
        self.native_ns += time.perf_counter_ns() - started
        if status == 1:
            raise OutOfCells
        if status != 0:
            raise EngineFault(f"llama_decode returned {status}")
        if chunk.sampler is None:
            return None
        assert isinstance(chunk.sampler, SamplerChain)
        return chunk.sampler.sample(self._context, len(chunk.tokens) - 1)

    def close(self) -> None:
        if self._context is not None:
            lib.llama_free(self._context)
            self._context = None
