"""The llama.cpp engine behind the worker's Engine interface."""

from __future__ import annotations

import array
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
from llama_cpp import llama_cpp as lib

from runner.adapters import AdapterSet
from runner.draft_model import DraftFiles
from runner.engine import (
    Chunk,
    EncodingChunk,
    EncodingInput,
    InsertTokens,
    MediaChunk,
    MediaInput,
    MediaPiece,
    Move,
    SamplerPlan,
    Window,
)
from runner.errors import ModelInvalid, Unsupported
from runner.llamacpp.adapters import Adapters
from runner.llamacpp.batch import Batch, VectorBatch, check_decoded
from runner.llamacpp.beside import BesideNeeds
from runner.llamacpp.candidates import Candidates
from runner.llamacpp.constraint import CompiledConstraint, ConstraintCompiler
from runner.llamacpp.description import bytes_on_gpus, describe
from runner.llamacpp.devices import default_threads, list_devices, place
from runner.llamacpp.draft import LlamaDraft, open_draft, own_options
from runner.llamacpp.encoder import Encoder, room_for
from runner.llamacpp.folded_memory import Fold, FoldedMemory
from runner.llamacpp.library import Library
from runner.llamacpp.media import Projector, Vectors, length_of
from runner.llamacpp.memory import Memory, has_sections, kind_of
from runner.llamacpp.model import MICRO_BATCH, Model, NewContext, cache_format, make_context, measure, use_threads
from runner.llamacpp.sampler import GreedySampler, SamplerChain, ShapedSampler, is_greedy
from runner.llamacpp.solo import Solo
from runner.llamacpp.step_rows import StepRows
from runner.llamacpp.vocabulary import Vocabulary
from runner.loaded_model import LoadedModel, LoadOptions, MemoryKind
from runner.sampling import Constraint

logger = logging.getLogger(__name__)


class LlamaEngine:
    """Implements `runner.engine.Engine`. Made, stepped and closed on one thread."""

    def __init__(
        self,
        library: Library,
        path: Path,
        options: LoadOptions,
        on_progress: Callable[[float], None] | None = None,
        shards: Sequence[Path] = (),
        projector: Path | None = None,
    ) -> None:
        """Load `path`, the `shards` that follow it and its projector; `on_progress` hears fractions.

        Blocks. Raises as `Model`.
        """
        files = (path, *shards)
        devices = list_devices()
        gpus = [device for device in devices if device.kind in ("gpu", "igpu")]
        placement = place(gpus, options.num_gpu, lambda: _measure(files, options, library))
        logger.info("placement: %s", placement.reason)
        threads = options.num_thread or default_threads()
        # Every sequence may decode in the same step, whatever batch was asked for.
        rows = max(options.num_batch, options.max_sequences)
        options = msgspec.structs.replace(options, num_batch=rows)
        self.native_ns = 0
        self._library = library
        self._options = options
        self._threads = threads
        self._model = Model(files, options, placement.gpu_layers, threads, library.log, on_progress)
        self._solo = Solo(self._model.handle, options, threads, library.log)
        self._beside = BesideNeeds(self._model, options)
        self._projector: Projector | None = None
        self._projector_size = 0
        self._media_failure = ""
        if projector is not None and self._model.context is not None:
            self._open_projector(projector)
        self._most_at_once = min(rows, MICRO_BATCH)
        """Rows that llama.cpp computes together; kept here for threads that must not touch the context."""
        self._memory = self._memory_of(self._model.context)
        self._adapters = Adapters(self._model.handle, library.log)
        self._adapters_in_use: AdapterSet = ()
        self.load_adapters = self._adapters.load
        self._vocabulary = Vocabulary(self._model.handle)
        self._constraints = ConstraintCompiler(self._vocabulary)
        self._candidates = Candidates(self._vocabulary.size)
        self._rows = StepRows(self._vocabulary.size)
        self._batch = Batch(rows)
        self._window = self._window_of(options)
        self._longest = max(self._window, options.longest_context)
        self._devices = devices
        info = describe(
            self._model, library, options, placement=placement, devices=devices, threads=threads, window=self._window
        )
        self._encoding = info.encoding
        self._encoder: Encoder | None = None
        self._chat_template = self._model.chat_template
        self._template_tokens = self._vocabulary.special_texts
        self._rerank_template = self._model.rerank_template
        self.tokenize = self._vocabulary.tokenize
        self.tokenize_whole = self._vocabulary.tokenize_whole
        self.detokenize = self._vocabulary.detokenize
        self.token_bytes = self._vocabulary.token_bytes
        self.written = self._vocabulary.written
        self.ends_generation = self._vocabulary.ends_generation
        self._bind(self._memory)
        self._info = msgspec.structs.replace(
            info,
            size=info.size + self._projector_size,
            size_vram=info.size_vram + (self._projector_size if info.gpu_layers else 0),
            media=() if self._projector is None else self._projector.kinds,
            media_failure=self._media_failure,
        )
        self._making = threading.Lock()
        """Held while another thread makes a window."""
        self._made: NewContext | None = None
        self._freeing: threading.Thread | None = None
        self._draft: LlamaDraft | None = None
        if options.draft is not None and self._model.context is not None:
            self._open_draft(options.draft)

    def _memory_of(self, context: object) -> Memory:
        handle = self._model.handle
        kind = FoldedMemory if has_sections(handle) else Memory
        return kind(context, kind_of(handle), self._options.max_sequences)

    def _bind(self, memory: Memory) -> None:
        self._memory = memory
        self.remove = memory.remove
        self.cut = memory.cut
        self.copy = memory.copy
        self.save = memory.save
        self.restore = memory.restore
        self.shift = memory.shift

    @property
    def info(self) -> LoadedModel:
        return self._info

    @property
    def draft(self) -> LlamaDraft | None:
        return self._draft

    @property
    def chat_template(self) -> str | None:
        return self._chat_template

    @property
    def template_tokens(self) -> dict[str, str]:
        return self._template_tokens

    @property
    def longest_token(self) -> int:
        return self._vocabulary.longest_token

    def compile_constraint(self, constraint: Constraint) -> CompiledConstraint:
        return self._constraints.compile(constraint)

    def create_sampler(self, plan: SamplerPlan, prompt: Sequence[int]) -> SamplerChain:
        size, window = self._vocabulary.size, self._longest
        if plan.constraint is None and plan.alternatives is None and not plan.logit_bias:
            if is_greedy(plan.params):
                return GreedySampler(vocabulary=size)
            return SamplerChain(plan, prompt, vocabulary=size, window=window)
        return ShapedSampler(plan, prompt, self._candidates, vocabulary=size, window=window)

    def set_threads(self, count: int) -> None:
        if self._model.context is not None:
            use_threads(self._model.context, count)
        if self._draft is not None:
            self._draft.set_threads(count)

    def use_adapters(self, adapters: AdapterSet) -> None:
        self._adapters_in_use = adapters
        self._adapters.apply(self._model.context, adapters)

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        self._batch.fill(self._memory.placed(chunks))
        started = time.perf_counter_ns()
        status: int = lib.llama_decode(self._model.context, self._batch.struct)
        if status == 0:
            tokens = self._rows.sample(self._model.context, chunks)
        self.native_ns += time.perf_counter_ns() - started
        check_decoded(status)
        return tokens

    @property
    def media_marker(self) -> str:
        assert self._projector is not None
        return self._projector.marker

    def tokenize_media(
        self, text: str, media: Sequence[MediaInput], *, add_special: bool
    ) -> list[list[int] | MediaPiece]:
        assert self._projector is not None
        pieces = self._projector.tokenize(text, media)
        begin = self._vocabulary.tokenize("", add_special=True, parse_special=False) if add_special else []
        longest = self._most_at_once
        for piece in pieces:
            if isinstance(piece, MediaPiece) and piece.is_whole and piece.count > longest:
                raise Unsupported(
                    f"One of the images takes {piece.count} tokens that have to be computed at once, and this "
                    f"model is loaded to compute {longest}; num_batch can make that up to 512."
                )
        first = pieces[0] if pieces and isinstance(pieces[0], list) else []
        return pieces if first[: len(begin)] == begin else [begin, *pieces]

    def encode_media(self, piece: MediaPiece) -> Vectors:
        assert self._projector is not None
        started = time.perf_counter_ns()
        try:
            return self._projector.encode(piece)
        finally:
            self.native_ns += time.perf_counter_ns() - started

    def step_media(self, chunk: MediaChunk) -> int | None:
        assert isinstance(chunk.vectors, np.ndarray)
        assert self._projector is not None
        context, sampler = self._model.context, chunk.sampler
        begin, end = chunk.first, chunk.first + chunk.count
        start = self._memory.position(chunk.sequence_id, chunk.start - begin)
        positions = self._projector.positions(chunk.piece, start)[..., begin:end]
        batch = VectorBatch(chunk.vectors[begin:end], positions, chunk.sequence_id)
        row = batch.want_logits() if sampler is not None else 0
        started = time.perf_counter_ns()
        lib.llama_set_causal_attn(context, not chunk.piece.is_whole)
        status: int = lib.llama_decode(context, batch.struct)
        # Computing may go on behind the call, and it reads the vectors.
        lib.llama_synchronize(context)
        lib.llama_set_causal_attn(context, True)
        if status == 0 and chunk.piece.is_grid:
            assert isinstance(self._memory, FoldedMemory)
            self._memory.fold(chunk.sequence_id, Fold(chunk.start - begin, chunk.piece.count, length_of(chunk.piece)))
        token = None
        if status == 0 and sampler is not None:
            assert isinstance(sampler, SamplerChain)
            if isinstance(sampler, ShapedSampler):
                sampler.prepare()
            token = sampler.sample(context, row)
        self.native_ns += time.perf_counter_ns() - started
        check_decoded(status)
        return token

    def _open_projector(self, file: Path) -> None:
        """Without its projector a model still answers to text; why it has none is told to whoever sends more."""
        log = self._library.log
        on_gpu = bool(log.offloaded and log.offloaded[0])
        try:
            self._projector = Projector(self._model.handle, file, on_gpu=on_gpu, threads=self._threads, log=log)
        except ModelInvalid as error:
            logger.warning("%s", error.message)
            self._media_failure = error.message
        else:
            self._projector_size = file.stat().st_size

    def _open_draft(self, files: DraftFiles) -> None:
        """Without its draft model a model still answers; what is wrong with it is told."""
        on_gpu = self._info.gpu_layers > 0
        draft, failure = None, "This model's memory cannot forget single tokens, so no draft model can guess for it."
        if self._memory.kind is MemoryKind.CELLS:
            draft, failure = open_draft(
                files, self._options, self._vocabulary, on_gpu=on_gpu, threads=self._threads, log=self._library.log
            )
        size = 0 if draft is None else draft.size
        self._draft = draft
        self._info = msgspec.structs.replace(
            self._info,
            size=self._info.size + size,
            size_vram=self._info.size_vram + (size if on_gpu else 0),
            draft_failure=failure,
        )

    def sample_next(self, chunk: Chunk, right: int) -> int:
        started = time.perf_counter_ns()
        token = self._rows.sample_next(self._model.context, chunk, right)
        self.native_ns += time.perf_counter_ns() - started
        return token

    def tokenize_pair(self, query: str, document: str) -> EncodingInput:
        return self._vocabulary.tokenize_pair(query, document, self._rerank_template)

    def prepare_encoding(self, tokens: int) -> None:
        assert self._encoding is not None
        if self._encoder is None:
            kind = self._encoding
            model, log = self._model.handle, self._library.log
            self._encoder = Encoder(
                model, self._options, self._threads, log, pooling=kind.pooling, is_whole=kind.is_whole
            )
        self._encoder.prepare(tokens)

    @property
    def encoding_room(self) -> int:
        return 0 if self._encoder is None else self._encoder.room

    @property
    def encoding_rows(self) -> int:
        return 0 if self._encoder is None else self._encoder.rows

    def encoding_memory(self, tokens: int) -> int:
        assert self._encoding is not None
        return self._beside.encoder(max(self.encoding_room, room_for(tokens)), is_whole=self._encoding.is_whole)

    def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        assert self._encoder is not None
        before = self._encoder.native_ns
        try:
            return self._encoder.encode(chunks)
        finally:
            self.native_ns += self._encoder.native_ns - before

    def _window_of(self, options: LoadOptions) -> int:
        if self._model.context is not None:
            return int(lib.llama_n_ctx_seq(self._model.context))
        trained = int(lib.llama_model_n_ctx_train(self._model.handle))
        return min(options.context_length, trained) if trained > 0 else options.context_length

    def make_window(self, size: int) -> NewContext:
        with self._making:
            assert self._made is None, "another one waits to be moved into"
            log, options = self._library.log, msgspec.structs.replace(self._options, context_length=size)
            log.start_recording()
            context = make_context(self._model.handle, options, self._threads, log)
            self._made = NewContext(context, dict(log.buffers))
            return self._made

    def move_into(self, window: Window, moves: Sequence[Move]) -> bool:
        made, self._made = self._made, None
        assert made is not None and window is made
        memory = self._memory_of(made.context)
        has_moved = self._memory.move_to(memory, moves)
        before = self._model.context_buffers
        more = {name: size - before.get(name, 0) for name, size in made.buffers.items()}
        self._free_aside(self._model.replace_context(made))
        self._bind(memory)
        self._window = self._window_of(self._options)
        self._info = msgspec.structs.replace(
            self._info,
            context_length=self._window,
            size=self._info.size + int(sum(more.values())),
            size_vram=self._info.size_vram + bytes_on_gpus(more, self._devices),
        )
        logger.info("the window has grown to %d tokens", self._window)
        return has_moved

    def _free_aside(self, context: object) -> None:
        """Giving so much memory back takes a while: steps need not wait for that."""
        if self._freeing is not None:
            self._freeing.join()
        self._freeing = threading.Thread(target=lib.llama_free, args=(context,), name="free")
        self._freeing.start()

    def solo_memory(self, end: int, most: int) -> int:
        window = self._solo.window_for(end, most)
        needed = self._beside.solo(window)
        # Both are there while the sequence moves.
        return needed + (self._beside.solo(self._solo.window) if 0 < self._solo.window < window else 0)

    def begin_solo(self, window: int) -> None:
        self._solo.begin(window)

    def step_solo(self, chunk: Chunk) -> int | None:
        assert self._solo is not None
        self._solo.make_room(chunk)
        self._adapters.apply(self._solo.context, self._adapters_in_use)
        before = self._solo.native_ns
        try:
            return self._solo.step(chunk)
        finally:
            self.native_ns += self._solo.native_ns - before

    @property
    def insert_tokens(self) -> InsertTokens | None:
        return self._vocabulary.insert_tokens

    @property
    def state_format(self) -> str:
        version, form = llama_cpp.__version__, self._memory.form
        return f"llama-cpp-python {version}, unified, {form}, {cache_format(self._options)}"

    def close(self) -> None:
        if self._freeing is not None:
            self._freeing.join()
        with self._making:
            if self._made is not None:
                lib.llama_free(self._made.context)
        for other in (self._solo, self._encoder, self._projector, self._draft):
            if other is not None:
                other.close()
        self._constraints.close()
        self._model.close()


def _measure(files: Sequence[Path], options: LoadOptions, library: Library) -> int:
    """Bytes that all layers need with their caches, and those of the draft model."""
    needed = measure(files, options, library.log)
    if options.draft is not None:
        needed += measure([Path(path) for path in options.draft.paths], own_options(options), library.log)
    return needed
