"""A second context over the same weights, for one sequence at a time that nothing else may influence."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from llama_cpp import llama_cpp as lib

from runner.engine import SOLO_ROWS, Chunk, EngineFault, Move
from runner.llamacpp.batch import Batch, check_decoded
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.memory import Memory, kind_of
from runner.llamacpp.model import make_context
from runner.llamacpp.sampler import SamplerChain, ShapedSampler
from runner.loaded_model import LoadOptions

logger = logging.getLogger(__name__)

_FIRST = 1024
"""Tokens that a context is made for at first; it grows to twice as many and so on."""


def make_solo_context(model: Any, options: LoadOptions, window: int, threads: int, log: LibraryLog) -> Any:
    """A context for one sequence, over loaded weights, to be freed by the caller. Raises InsufficientMemory."""
    options = msgspec.structs.replace(options, context_length=window, max_sequences=1, num_batch=SOLO_ROWS)
    return make_context(model, options, threads, log)


class Solo:
    """Makes the context when it is first needed, and a larger one when the sequence needs that.

    How llama.cpp adds up depends on how many rows are computed at once and where cells lie. Here
    both depend on the sequence alone.
    """

    def __init__(self, model: Any, options: LoadOptions, threads: int, log: LibraryLog) -> None:
        self._model = model
        self._options = options
        self._threads = threads
        self._log = log
        self._context: Any = None
        self._window = self._most = 0
        self._kind = kind_of(model)
        self._batch = Batch(SOLO_ROWS)
        self.native_ns = 0

    @property
    def context(self) -> Any:
        """None before the first `begin`."""
        return self._context

    def window_for(self, end: int, most: int) -> int:
        """The window of the context that holds a sequence of `end` tokens, which becomes no longer than `most`."""
        if self._context is None:
            return max(_FIRST, end)
        return self._window if end <= self._window else max(end, min(2 * self._window, most))

    @property
    def window(self) -> int:
        """Of the context there is; 0 without one."""
        return self._window

    def begin(self, window: int) -> None:
        """Forget the sequence before; the next one gets no longer than `window`. Raises InsufficientMemory."""
        self._most = window
        if self._context is None:
            self._context = self._make(_FIRST)
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)

    def make_room(self, chunk: Chunk) -> None:
        """See that a chunk fits: the sequence may move, as it is to the bit. Raises InsufficientMemory."""
        end = chunk.start + len(chunk.tokens)
        if end <= self._window:
            return
        larger = self._make(self.window_for(end, self._most))
        moves = [Move(0, chunk.start)] if chunk.start else []
        has_moved = Memory(self._context, self._kind, 1).move_to(Memory(larger, self._kind, 1), moves)
        lib.llama_free(self._context)
        self._context = larger
        if not has_moved:
            raise EngineFault("the sequence did not fit into a larger context")

    def step(self, chunk: Chunk) -> int | None:
        self._batch.fill([chunk])
        if isinstance(chunk.sampler, ShapedSampler):
            chunk.sampler.prepare()
        started = time.perf_counter_ns()
        status: int = lib.llama_decode(self._context, self._batch.struct)
        self.native_ns += time.perf_counter_ns() - started
        check_decoded(status)
        if chunk.sampler is None:
            return None
        assert isinstance(chunk.sampler, SamplerChain)
        return chunk.sampler.sample(self._context, len(chunk.tokens) - 1)

    def _make(self, window: int) -> Any:
        context = make_solo_context(self._model, self._options, window, self._threads, self._log)
        self._window = int(lib.llama_n_ctx_seq(context))
        logger.info("made a context of its own for deterministic requests, window %d", self._window)
        return context

    def close(self) -> None:
        if self._context is not None:
            lib.llama_free(self._context)
            self._context = None
