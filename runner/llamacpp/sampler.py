"""Sampling settings to a llama.cpp sampler chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_cpp import llama_cpp as lib

from runner.sampling import SamplingParams

_MIN_KEEP = 1
_MIROSTAT_CANDIDATES = 100
"""`m` of the first mirostat paper's estimator; llama.cpp's own constant."""


class SamplerChain:
    """Owns a native chain. Used and closed on the engine thread."""

    def __init__(
        self, params: SamplingParams, seed: int, prompt: Sequence[int], *, vocabulary: int, window: int
    ) -> None:
        chain_params = lib.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self.handle: Any = lib.llama_sampler_chain_init(chain_params)
        for sampler in _chain(params, native_seed(seed), vocabulary, window):
            lib.llama_sampler_chain_add(self.handle, sampler)
        if _looks_back(params):
            for token in prompt[-_last_n(params, window) :]:
                lib.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        if self.handle is not None:
            lib.llama_sampler_free(self.handle)
            self.handle = None


def native_seed(seed: int) -> int:
    """The 32 bits llama.cpp takes; it reads all ones as a wish for a random seed, so that value gives way."""
    return min(seed & 0xFFFFFFFF, 0xFFFFFFFE)


def _looks_back(params: SamplingParams) -> bool:
    penalised = (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) != (1.0, 0.0, 0.0)
    return penalised and params.repeat_last_n != 0


def _last_n(params: SamplingParams, window: int) -> int:
    return window if params.repeat_last_n < 0 else min(params.repeat_last_n, window)


def _chain(params: SamplingParams, seed: int, vocabulary: int, window: int) -> list[Any]:
    """Native samplers in the order of llama.cpp's own programs: penalties, cuts, temperature, draw."""
    chain: list[Any] = []
    if _looks_back(params):
        chain.append(
            lib.llama_sampler_init_penalties(
                vocabulary,
                _last_n(params, window),
                params.repeat_penalty,
                params.frequency_penalty,
                params.presence_penalty,
            )
        )
    if params.temperature <= 0:
        return [*chain, lib.llama_sampler_init_greedy()]
    if params.mirostat:
        chain.append(lib.llama_sampler_init_temp(params.temperature))
        if params.mirostat == 1:
            final = lib.llama_sampler_init_mirostat(
                vocabulary, seed, params.mirostat_tau, params.mirostat_eta, _MIROSTAT_CANDIDATES
            )
        else:
            final = lib.llama_sampler_init_mirostat_v2(seed, params.mirostat_tau, params.mirostat_eta)
        return [*chain, final]
    if params.top_k > 0:
        chain.append(lib.llama_sampler_init_top_k(params.top_k))
    if params.typical_p < 1:
        chain.append(lib.llama_sampler_init_typical(params.typical_p, _MIN_KEEP))
    if params.top_p < 1:
        chain.append(lib.llama_sampler_init_top_p(params.top_p, _MIN_KEEP))
    if params.min_p > 0:
        chain.append(lib.llama_sampler_init_min_p(params.min_p, _MIN_KEEP))
    return [
        *chain,
        lib.llama_sampler_init_temp(params.temperature),
        lib.llama_sampler_init_dist(seed),
    ]
