"""The llama.cpp engine behind the worker's Engine interface."""

from __future__ import annotations

import array
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp
import msgspec
import psutil
from llama_cpp import llama_cpp as lib

from runner.engine import (
    Chunk,
    DeviceUse,
    Encoding,
    EncodingChunk,
    EncodingInput,
    EngineFault,
    InsertTokens,
    LoadedModel,
    LoadOptions,
    OutOfCells,
    PromptScoring,
    SamplerPlan,
)
from runner.llamacpp.batch import Batch
from runner.llamacpp.candidates import Candidates, read_row, score_of
from runner.llamacpp.constraint import CompiledConstraint, ConstraintCompiler
from runner.llamacpp.devices import Device, Placement, list_devices, place
from runner.llamacpp.encoder import WHOLE_ROWS, Encoder
from runner.llamacpp.library import Library
from runner.llamacpp.memory import Memory, kind_of, resting_ids
from runner.llamacpp.model import Model, cache_format, measure
from runner.llamacpp.sampler import SamplerChain, ShapedSampler
from runner.llamacpp.solo import Solo
from runner.llamacpp.vocabulary import Vocabulary
from runner.sampling import Constraint

logger = logging.getLogger(__name__)

_NO_SLOT = 1


class LlamaEngine:
    """Implements `runner.engine.Engine`. Made, stepped and closed on one thread."""

    def __init__(
        self,
        library: Library,
        path: Path,
        options: LoadOptions,
        on_progress: Callable[[float], None] | None = None,
        shards: Sequence[Path] = (),
    ) -> None:
        """Load `path`, and the `shards` that follow it; `on_progress` hears fractions. Blocks. Raises as `Model`."""
        files = (path, *shards)
        devices = list_devices()
        gpus = [device for device in devices if device.kind in ("gpu", "igpu")]
        placement = place(gpus, options.num_gpu, lambda: measure(files, options, library.log))
        logger.info("placement: %s", placement.reason)
        threads = options.num_thread or default_threads()
        # Every sequence may decode in the same step, whatever batch was asked for.
        rows = max(options.num_batch, options.max_sequences)
        options = msgspec.structs.replace(options, num_batch=rows)
        self.native_ns = 0
        self._library = library
        self._options = options
        self._threads = threads
        self._solo: Solo | None = None
        self._model = Model(files, options, placement.gpu_layers, threads, library.log, on_progress)
        self._memory = Memory(self._model.context, kind_of(self._model.handle), options.max_sequences)
        self._vocabulary = Vocabulary(self._model.handle)
        self._constraints = ConstraintCompiler(self._vocabulary)
        self._candidates = Candidates(self._vocabulary.size)
        self._batch = Batch(rows)
        self._window = self._window_of(options)
        self._encoding = encoding_of(self._model, self._window)
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
        self.remove = self._memory.remove
        self.cut = self._memory.cut
        self.copy = self._memory.copy
        self.save = self._memory.save
        self.restore = self._memory.restore
        self.shift = self._memory.shift
        self._info = self._describe(library, options, placement, devices, threads)

    @property
    def info(self) -> LoadedModel:
        return self._info

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
        size, window = self._vocabulary.size, self._window
        if plan.constraint is None and plan.alternatives is None and not plan.logit_bias:
            return SamplerChain(plan, prompt, vocabulary=size, window=window)
        return ShapedSampler(plan, prompt, self._candidates, vocabulary=size, window=window)

    def set_threads(self, count: int) -> None:
        if self._model.context is not None:
            lib.llama_set_n_threads(self._model.context, count, count)

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        self._batch.fill(chunks)
        started = time.perf_counter_ns()
        status: int = lib.llama_decode(self._model.context, self._batch.struct)
        if status == 0:
            tokens = self._sample(chunks)
        self.native_ns += time.perf_counter_ns() - started
        if status == _NO_SLOT:
            raise OutOfCells
        if status != 0:
            raise EngineFault(f"llama_decode returned {status}")
        return tokens

    def _sample(self, chunks: Sequence[Chunk]) -> list[int]:
        context = self._model.context
        for chunk in chunks:
            # On a GPU the step is still being computed.
            if isinstance(chunk.sampler, ShapedSampler):
                chunk.sampler.prepare()
        tokens = []
        row = -1
        for chunk in chunks:
            if chunk.scoring is not None:
                self._score(chunk, chunk.scoring, row + 1)
            row += len(chunk.tokens)
            sampler = chunk.sampler
            if sampler is not None:
                assert isinstance(sampler, SamplerChain)
                tokens.append(sampler.sample(context, row))
        return tokens

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

    def begin_solo(self, window: int) -> None:
        if self._solo is None:
            self._solo = Solo(self._model.handle, self._options, self._threads, self._library.log)
        self._solo.begin(window)

    def step_solo(self, chunk: Chunk) -> int | None:
        assert self._solo is not None
        before = self._solo.native_ns
        try:
            return self._solo.step(chunk)
        finally:
            self.native_ns += self._solo.native_ns - before

    def _score(self, chunk: Chunk, scoring: PromptScoring, first_row: int) -> None:
        for number, target in enumerate(scoring.targets):
            logits = read_row(self._model.context, first_row + number, self._vocabulary.size)
            scoring.scores[chunk.start + number + 1] = score_of(logits, target, scoring.alternatives)

    @property
    def insert_tokens(self) -> InsertTokens | None:
        return self._vocabulary.insert_tokens

    @property
    def state_format(self) -> str:
        version, kind = llama_cpp.__version__, self._memory.kind
        return f"llama-cpp-python {version}, unified, {kind}, {cache_format(self._options)}"

    def close(self) -> None:
        for other in (self._solo, self._encoder):
            if other is not None:
                other.close()
        self._model.close()

    def _describe(
        self,
        library: Library,
        options: LoadOptions,
        placement: Placement,
        devices: Sequence[Device],
        threads: int,
    ) -> LoadedModel:
        model, log = self._model, library.log
        layers = int(lib.llama_model_n_layer(model.handle)) + 1
        gpu_layers = log.offloaded[0] if log.offloaded else 0
        gpu_names = [device.name for device in devices if device.kind in ("gpu", "igpu")]
        on_gpu = sum(size for name, size in log.buffers.items() if name.startswith(tuple(gpu_names) or ("\0",)))
        return LoadedModel(
            architecture=model.metadata("general.architecture") or "",
            engine=library.description,
            context_length=self._window,
            training_context=int(lib.llama_model_n_ctx_train(model.handle)),
            max_sequences=options.max_sequences,
            vocabulary=self._vocabulary.size,
            size=int(sum(log.buffers.values())),
            size_vram=int(on_gpu),
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
            has_chat_template=self._chat_template is not None,
            can_shift=model.can_shift,
            max_rows=options.num_batch,
            memory=self._memory.kind,
            resting_ids=resting_ids(self._memory.kind, options.max_sequences),
            generates=model.context is not None,
            encoding=self._encoding,
            options=self._options,
            has_fixed_threads=options.num_thread is not None,
        )


def encoding_of(model: Model, window: int) -> Encoding | None:
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


def default_threads() -> int:
    """One thread for each physical core this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))
