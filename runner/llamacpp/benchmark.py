"""How fast a model reads and writes here, with several numbers of threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from llama_cpp import llama_cpp as lib

from runner.engine import Chunk, EngineFault, SamplerPlan
from runner.errors import Unsupported
from runner.jobs import Benchmark, Benchmarked, Speed
from runner.llamacpp.batch import Batch
from runner.llamacpp.devices import list_devices, place
from runner.llamacpp.fit import cpu_features
from runner.llamacpp.library import Library
from runner.llamacpp.model import Model, measure
from runner.llamacpp.sampler import SamplerChain
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams

_WINDOW = 1024
_PROMPT = 512
_FIRST_PROMPT = 32
"""Tells how long a prompt may be, so that a large model on a small machine is done in time as well."""
_ANSWER = 64
_LEAST_ANSWER = 4
_SEQUENCE = 0


def benchmark(job: Benchmark, library: Library, on_progress: Callable[[float], None]) -> Benchmarked:
    """Load the model and time it; blocks for as long as loading takes, and about `job.seconds`.

    Every number of threads gets the same share of the time, and the first is gone over untimed before,
    for the sake of pages that come from the disk. Raises as `Model` does, and Unsupported for a model
    that does not generate.
    """
    files = [Path(file) for file in job.files]
    options = LoadOptions(_WINDOW, max_sequences=1, num_batch=_PROMPT)
    gpus = [device for device in list_devices() if device.kind in ("gpu", "igpu")]
    placement = place(gpus, None, lambda: measure(files, options, library.log))
    counts = thread_counts(_usable(), psutil.cpu_count(logical=False) or _usable())
    started = time.perf_counter()
    model = Model(files, options, placement.gpu_layers, counts[0], library.log, None)
    loaded = time.perf_counter()
    try:
        if model.context is None:
            raise Unsupported("This model makes vectors and writes nothing; only models that write are measured.")
        speeds = _speeds(model, counts, job.seconds, on_progress)
    finally:
        model.close()
    return Benchmarked(speeds, loaded - started, placement.reason, library.description, cpu_features())


def _speeds(
    model: Model, counts: Sequence[int], seconds: float, on_progress: Callable[[float], None]
) -> tuple[Speed, ...]:
    rounds = _Rounds(model, seconds / (2 * len(counts)))
    try:
        rounds.warm_up()
        speeds = []
        for done, threads in enumerate(counts, start=1):
            speeds.append(rounds.speed(threads))
            on_progress(done / len(counts))
        return tuple(speeds)
    finally:
        rounds.close()


def thread_counts(usable: int, physical: int) -> tuple[int, ...]:
    """The numbers of threads worth trying: one, half, all but one, and all cores, and their hardware threads."""
    cores = max(1, min(usable, physical))
    tried = {1, cores // 2, cores - 1, cores, usable}
    return tuple(sorted(count for count in tried if count > 0))


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Rounds:
    """Times prompts and answers of one sequence, each for so many seconds."""

    def __init__(self, model: Model, seconds: float) -> None:
        self._context, self._memory = model.context, model.memory
        self._seconds = seconds
        self._vocabulary = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model.handle)))
        self._batch = Batch(_PROMPT)
        plan = SamplerPlan(SamplingParams(temperature=0.0), seed=0)
        self._sampler = SamplerChain(plan, (), vocabulary=self._vocabulary, window=_WINDOW)

    def close(self) -> None:
        self._sampler.close()

    def warm_up(self) -> None:
        self._prefill(_FIRST_PROMPT)
        self._decode(_FIRST_PROMPT, 1)

    def speed(self, threads: int) -> Speed:
        lib.llama_set_n_threads(self._context, threads, threads)
        first = self._prefill(_FIRST_PROMPT)
        length = max(_FIRST_PROMPT, min(_PROMPT, int(_FIRST_PROMPT * self._seconds / first / 2)))
        # A short prompt is slower for each token, so a longer one takes its place as soon as there is time for it.
        prefill = length / (self._prefill(length) if length > _FIRST_PROMPT else first)
        count, seconds = self._decode(length, _ANSWER)
        return Speed(threads, prefill, count / seconds)

    def _prefill(self, length: int) -> float:
        """Seconds that a prompt of so many tokens takes, from nothing."""
        lib.llama_memory_clear(self._memory, True)
        tokens = [number * 7919 % self._vocabulary for number in range(length)]
        return self._step(tokens, 0)

    def _decode(self, start: int, most: int) -> tuple[int, float]:
        """How many tokens were written, and in how many seconds."""
        token, spent, count = 0, 0.0, 0
        while count < most and (spent < self._seconds or count < _LEAST_ANSWER):
            began = time.perf_counter()
            self._step([token], start + count)
            token = self._sampler.sample(self._context, 0)
            spent += time.perf_counter() - began
            count += 1
        return count, spent

    def _step(self, tokens: Sequence[int], start: int) -> float:
        self._batch.fill([Chunk(_SEQUENCE, start, tokens, sampler=self._sampler)])
        began = time.perf_counter()
        status: int = lib.llama_decode(self._context, self._batch.struct)
        lib.llama_synchronize(self._context)
        if status != 0:
            raise EngineFault(f"llama_decode returned {status}")
        return time.perf_counter() - began
