"""Sampling settings to a llama.cpp sampler chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from runner.engine import NO_NUMBERS, SamplerPlan, TokenScore
from runner.llamacpp.candidates import Array, Candidates, read_row, score_of
from runner.llamacpp.constraint import CompiledConstraint, ConstraintState
from runner.sampling import SamplingParams

_MIN_KEEP = 1
_SEED_STEP = 0x9E3779B1
"""Odd and far from small: seeds of neighbouring requests do not meet."""
_MIROSTAT_CANDIDATES = 100
"""`m` of the first mirostat paper's estimator; llama.cpp's own constant."""


class SamplerChain:
    """Owns a native chain. Used and closed on the engine thread."""

    score: TokenScore | None = None
    is_complete = False
    failure: str | None = None

    def __init__(self, plan: SamplerPlan, prompt: Sequence[int], *, vocabulary: int, window: int) -> None:
        params = plan.params
        chain_params = lib.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        self.handle: Any = lib.llama_sampler_chain_init(chain_params)
        for sampler in _chain(params, native_seed(plan.seed, len(plan.taken)), vocabulary, window):
            lib.llama_sampler_chain_add(self.handle, sampler)
        if _looks_back(params):
            for token in prompt[-_last_n(params, window) :]:
                lib.llama_sampler_accept(self.handle, token)

    def prepare(self) -> None:
        """What can be done while the device still computes."""

    def sample(self, context: Any, row: int) -> int:
        """The next token, from a row of the last step."""
        token: int = lib.llama_sampler_sample(self.handle, context, row)
        return token

    def close(self) -> None:
        if self.handle is not None:
            lib.llama_sampler_free(self.handle)
            self.handle = None


class GreedySampler(SamplerChain):
    """The likeliest token, where nothing else is asked for: without copying the row, as a chain has to."""

    def __init__(self, *, vocabulary: int) -> None:
        self.handle = None
        self._vocabulary = vocabulary

    def sample(self, context: Any, row: int) -> int:
        logits = read_row(context, row, self._vocabulary)
        token = int(logits.argmax())
        if np.isnan(logits[token]):
            self.failure = NO_NUMBERS
        return token


class ShapedSampler(SamplerChain):
    """A chain that chooses within a constraint, with biased logits, or tells log-probabilities.

    Forbidden tokens never reach the chain, so that no sampler can bring one back. The row of
    logits stays as it is.
    """

    def __init__(
        self, plan: SamplerPlan, prompt: Sequence[int], candidates: Candidates, *, vocabulary: int, window: int
    ) -> None:
        super().__init__(plan, prompt, vocabulary=vocabulary, window=window)
        self._candidates = candidates
        self._vocabulary = vocabulary
        self._temperature = plan.params.temperature
        self._alternatives = plan.alternatives
        self._bias = _Bias(plan.logit_bias) if plan.logit_bias else None
        self._constraint: ConstraintState | None = None
        if plan.constraint is not None:
            assert isinstance(plan.constraint, CompiledConstraint)
            self._constraint = plan.constraint.begin()
            for token in plan.taken:
                self._constraint.accept(token)
        self._allowed: Array | None = None
        self._is_prepared = False

    def prepare(self) -> None:
        if self._constraint is not None and not self._is_prepared:
            self._allowed = self._constraint.allowed()
            self._is_prepared = True

    def sample(self, context: Any, row: int) -> int:
        self.prepare()
        constraint = self._constraint
        if constraint is not None and constraint.failure is not None:
            self.failure = constraint.failure
            return 0
        is_shaped = self._allowed is not None or self._bias is not None
        token = self._sample_shaped(context, row) if is_shaped else super().sample(context, row)
        if token is None:
            self.failure = NO_NUMBERS
            return 0
        if self._alternatives is not None:
            self.score = score_of(read_row(context, row, self._vocabulary), token, self._alternatives)
        if constraint is not None:
            constraint.accept(token)
            self.failure, self.is_complete = constraint.failure, constraint.is_complete
            self._is_prepared = False
        return token

    def _sample_shaped(self, context: Any, row: int) -> int | None:
        logits = read_row(context, row, self._vocabulary)
        if self._bias is not None:
            logits = self._bias.applied(logits)
        token = self._choose(logits)
        if token is not None:
            lib.llama_sampler_accept(self.handle, token)
        return token

    def _choose(self, logits: Array) -> int | None:
        allowed, constraint = self._allowed, self._constraint
        while True:
            token = self._candidates.choose(self.handle, logits, allowed, self._temperature)
            if token is None or allowed is None or allowed.size < 2:
                return token
            if constraint is None or constraint.permits(token):
                return token
            allowed = allowed[allowed != token]


class _Bias:
    """What a request adds to the logits of some tokens."""

    def __init__(self, logit_bias: Sequence[tuple[int, float]]) -> None:
        self._tokens = np.array([token for token, _ in logit_bias], dtype=np.int64)
        self._added = np.array([bias for _, bias in logit_bias], dtype=np.float32)

    def applied(self, logits: Array) -> Array:
        shaped: Array = logits.copy()
        shaped[self._tokens] += self._added
        return shaped


def native_seed(seed: int, taken: int = 0) -> int:
    """The 32 bits llama.cpp takes; it reads all ones as a wish for a random seed, so that value gives way.

    An answer that goes on behind `taken` tokens gets others than the one it began with.
    """
    return min((seed + taken * _SEED_STEP) & 0xFFFFFFFF, 0xFFFFFFFE)


def is_greedy(params: SamplingParams) -> bool:
    """Whether the likeliest token is taken, whatever came before."""
    return params.temperature <= 0 and not _looks_back(params)


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
