"""Whether a model that is not here yet would run on this machine: reckoned from its size alone."""

from __future__ import annotations

import enum

from runner.supervisor.memory import SHORTEST_WINDOW, Gpus, Machine, Room, plan_memory
from runner.supervisor.types import LoadWishes, MemoryFacts

_WEIGHTS_PER_CACHED_TOKEN = 40_000
"""Bytes of weights for each byte of cache that one token takes: usual for models of some billion parameters."""
_LEAST_CACHE_PER_TOKEN = 16 << 10
COMFORT = 0.85
"""A model that takes more of the memory than this leaves little for anything else."""


class LikelyFit(enum.StrEnum):
    GPU = "gpu"
    """Wholly in the GPUs' own memory."""
    MEMORY = "memory"
    TIGHT = "tight"
    """Only when nearly nothing else runs."""
    NO = "no"


def likely_fit(size: int, machine: Machine, gpus: Gpus) -> LikelyFit:
    """Where a model of that many bytes would go on this machine with nothing else loaded, for a short conversation."""
    room = Room(machine.total(), gpus.memory * 95 // 100)
    kv_per_token = max(_LEAST_CACHE_PER_TOKEN, size // _WEIGHTS_PER_CACHED_TOKEN)
    facts = MemoryFacts(weights=size, kv_per_token=kv_per_token, training_context=0)
    needed = plan_memory(facts, LoadWishes(num_ctx=SHORTEST_WINDOW), room).needed
    if room.vram is not None and needed <= room.vram:
        return LikelyFit.GPU
    if needed <= room.ram * COMFORT:
        return LikelyFit.MEMORY
    return LikelyFit.TIGHT if needed <= room.ram + (room.vram or 0) else LikelyFit.NO
