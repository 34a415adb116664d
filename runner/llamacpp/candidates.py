"""The tokens a sampler chain may choose from, as an array of ours instead of a whole row of logits."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from runner.engine import TokenScore

Array = np.ndarray[Any, np.dtype[Any]]

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_NEGLIGIBLE = 80.0
"""e to the minus 80th: candidates so far behind the first are left out. Their probabilities would become
zero, of which some native samplers take the logarithm."""
_VIEWS = 256


class Candidates:
    """Room for one row's candidates; one for each engine, used on its thread."""

    def __init__(self, vocabulary: int) -> None:
        assert _CANDIDATE.itemsize == ctypes.sizeof(lib.llama_token_data)
        self._data = np.empty(vocabulary, dtype=_CANDIDATE)
        self._all = np.arange(vocabulary, dtype=np.int32)
        self._struct: Any = lib.llama_token_data_array()

    def choose(self, chain: Any, logits: Array, allowed: Array | None, temperature: float) -> int | None:
        """The token that `chain` picks from those `allowed`, of which there is at least one; None allows all.

        The chain is not told of it. None when the logits are no numbers.
        """
        tokens = self._all if allowed is None else allowed
        offered = logits[tokens]
        near = offered >= offered.max() - _NEGLIGIBLE * max(temperature, 1.0)
        if not near.all():
            tokens, offered = tokens[near], offered[near]
        if tokens.size < 2:
            return int(tokens[0]) if tokens.size else None
        count = tokens.size
        data = self._data[:count]
        data["id"], data["logit"], data["p"] = tokens, offered, 0.0
        struct = self._struct
        struct.data = ctypes.cast(self._data.ctypes.data, ctypes.POINTER(lib.llama_token_data))
        struct.size, struct.selected, struct.sorted = count, -1, False
        lib.llama_sampler_apply(chain, ctypes.byref(struct))
        return None if not 0 <= struct.selected < struct.size else int(struct.data[struct.selected].id)


def read_row(context: Any, row: int, vocabulary: int) -> Array:
    """The logits of a row of the last step, as a view: good until the next step."""
    pointer = lib.llama_get_logits_ith(context, row)
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if not address:
        raise RuntimeError(f"row {row} has no logits")
    return _view(address, vocabulary)


@functools.lru_cache(_VIEWS)
def _view(address: int, vocabulary: int) -> Array:
    """Rows come at the same few places again and again."""
    cells = memoryview((ctypes.c_float * vocabulary).from_address(address)).cast("B")
    return np.frombuffer(cells, dtype=np.float32)


def score_of(logits: Array, token: int, alternatives: int) -> TokenScore:
    """How likely `token` is by a row of logits, and which tokens are the likeliest."""
    total = _log_sum(logits)
    return TokenScore(
        token,
        float(logits[token]) - total,
        tuple((other, float(logits[other]) - total) for other in _likeliest(logits, alternatives)),
    )


def _log_sum(logits: Array) -> float:
    """The logarithm of the sum of the exponentials; a logit less this is a log-probability."""
    highest = float(logits.max())
    return highest + float(np.log(np.exp(logits - highest, dtype=np.float32).sum(dtype=np.float64)))


def _likeliest(logits: Array, count: int) -> list[int]:
    """The tokens with the highest logits, falling."""
    if count <= 0:
        return []
    count = min(count, logits.size)
    best = np.argpartition(logits, logits.size - count)[logits.size - count :]
    return [int(token) for token in best[np.argsort(-logits[best], kind="stable")]]
