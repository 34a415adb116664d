"""A draft model: weights and a context of its own beside the model that it guesses for."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from llama_cpp import llama_cpp as lib

from runner.draft_model import DraftChunk, DraftFiles, Guess
from runner.engine import EngineFault
from runner.errors import InsufficientMemory, RunnerError, Unsupported
from runner.llamacpp.batch import Batch, check_decoded
from runner.llamacpp.candidates import read_row
from runner.llamacpp.devices import ALL_LAYERS
from runner.llamacpp.library import LibraryLog
from runner.llamacpp.memory import Memory, kind_of
from runner.llamacpp.model import Model, make_context, use_threads
from runner.llamacpp.vocabulary import Vocabulary
from runner.llamacpp.vocabulary_match import vocabulary_difference
from runner.loaded_model import LoadOptions, MemoryKind

logger = logging.getLogger(__name__)

_ROWS = 512


def open_draft(
    files: DraftFiles, options: LoadOptions, vocabulary: Vocabulary, *, on_gpu: bool, threads: int, log: LibraryLog
) -> tuple[LlamaDraft | None, str]:
    """Load a draft model; why it cannot guess for this one, if that is so.

    A model answers without one as well. So nothing is raised, and where only memory lacks, nothing
    is told but in the log.
    """
    try:
        return LlamaDraft(files, options, vocabulary, on_gpu=on_gpu, threads=threads, log=log), ""
    except InsufficientMemory as error:
        logger.warning("the draft model %s is left out: %s", files.name, error.message)
        return None, ""
    except RunnerError as error:
        logger.warning("the draft model %s cannot be used: %s", files.name, error.message)
        return None, f"The draft model {files.name} cannot be used: {error.message}"


class LlamaDraft:
    """Implements `runner.draft_model.DraftModel`. Made, used and closed on the engine thread."""

    def __init__(
        self,
        files: DraftFiles,
        options: LoadOptions,
        vocabulary: Vocabulary,
        *,
        on_gpu: bool,
        threads: int,
        log: LibraryLog,
    ) -> None:
        """Load the files of a model that guesses for the one with `vocabulary`, which was loaded with `options`.

        Blocks. Raises as `Model`, and Unsupported for one that does not fit.
        """
        self._options = own_options(options)
        self._log = log
        self._threads = threads
        self.native_ns = 0
        paths = [Path(path) for path in files.paths]
        self._model = Model(paths, self._options, ALL_LAYERS if on_gpu else 0, threads, log, None)
        try:
            _refuse_what_cannot_guess(self._model, vocabulary)
        except Unsupported:
            self._model.close()
            raise
        self.size = int(sum(log.buffers.values()))
        """Bytes of weights and caches."""
        self.vocabulary = min(Vocabulary(self._model.handle).size, vocabulary.size)
        self.max_rows = self._options.num_batch
        self._trained = int(lib.llama_model_n_ctx_train(self._model.handle))
        self._batch = Batch(self.max_rows)
        self._take_context()
        logger.info("the draft model %s is loaded", files.name)

    @property
    def longest(self) -> int:
        return min(self.room, self._trained) if self._trained > 0 else self.room

    def step(self, chunks: Sequence[DraftChunk]) -> list[Guess]:
        self._batch.fill_for_guesses(chunks)
        started = time.perf_counter_ns()
        try:
            status: int = lib.llama_decode(self._model.context, self._batch.struct)
            check_decoded(status, " of the draft model")
            return self._guesses(chunks)
        finally:
            self.native_ns += time.perf_counter_ns() - started

    def resize(self, window: int) -> None:
        if self._model.context is not None and window == self._options.context_length:
            lib.llama_memory_clear(lib.llama_get_memory(self._model.context), False)
            return
        # What it holds is quickly computed again, so the two contexts need not be there at once.
        self._model.drop_context()
        self._options = msgspec.structs.replace(self._options, context_length=window)
        try:
            self._model.context = make_context(self._model.handle, self._options, self._threads, self._log)
        except InsufficientMemory as error:
            logger.warning("the draft model is left out: %s", error.message)
        self._take_context()

    def set_threads(self, count: int) -> None:
        if self._model.context is not None:
            use_threads(self._model.context, count)

    def close(self) -> None:
        self._model.close()

    def _take_context(self) -> None:
        context = self._model.context
        self.room = 0 if context is None else int(lib.llama_n_ctx_seq(context))
        memory = Memory(context, MemoryKind.CELLS, self._options.max_sequences)
        self.remove, self.cut, self.copy = memory.remove, memory.cut, memory.copy

    def _guesses(self, chunks: Sequence[DraftChunk]) -> list[Guess]:
        guesses, row = [], -1
        for chunk in chunks:
            row += len(chunk.tokens)
            if chunk.is_asked:
                guesses.append(_likeliest(read_row(self._model.context, row, self.vocabulary)))
        return guesses


def _likeliest(logits: np.ndarray[Any, np.dtype[Any]]) -> Guess:
    token = int(logits.argmax())
    chance = 1 / float(np.exp(logits - logits[token]).sum())
    if not 0 < chance <= 1:
        raise EngineFault("the draft model computed no usable numbers")
    return Guess(token, chance)


def own_options(options: LoadOptions) -> LoadOptions:
    """As the model is loaded, but for what only means that one."""
    return LoadOptions(
        context_length=options.context_length,
        max_sequences=options.max_sequences,
        num_batch=min(options.num_batch, _ROWS),
        main_gpu=options.main_gpu,
        use_mmap=options.use_mmap,
        use_mlock=options.use_mlock,
        split_mode=options.split_mode,
        tensor_split=options.tensor_split,
        kv_cache_type=options.kv_cache_type,
        flash_attention=options.flash_attention,
    )


def _refuse_what_cannot_guess(model: Model, vocabulary: Vocabulary) -> None:
    if model.context is None:
        raise Unsupported("it makes vectors and does not generate text.")
    if kind_of(model.handle) is not MemoryKind.CELLS:
        raise Unsupported("its memory cannot forget single tokens, as it must when a guess was wrong.")
    if difference := vocabulary_difference(vocabulary, Vocabulary(model.handle)):
        raise Unsupported(f"{difference}.")
