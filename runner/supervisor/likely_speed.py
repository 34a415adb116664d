"""How fast a model that is not here yet could answer on the CPU: as fast as its weights are read from memory."""

from __future__ import annotations

import time

_BYTES = 64 << 20
"""More than most processors keep close at hand."""
_SLICE = 4 << 20
_ROUNDS = 3


def most_tokens_per_second(weights: int, bytes_per_second: float) -> float:
    """For every token all weights are read once, except in a mixture of experts."""
    return bytes_per_second / weights


def memory_speed() -> float:
    """Bytes that one thread moves from and to memory in a second; blocks for some hundredths of one."""
    source, target = memoryview(bytearray(_BYTES)), memoryview(bytearray(_BYTES))
    best = min(_seconds_to_copy(source, target) for _ in range(_ROUNDS))
    return 2 * _BYTES / best


def _seconds_to_copy(source: memoryview, target: memoryview) -> float:
    started = time.perf_counter()
    # In slices, so that other threads of the process are not kept from running.
    for start in range(0, _BYTES, _SLICE):
        target[start : start + _SLICE] = source[start : start + _SLICE]
    return time.perf_counter() - started
