"""What a context remembers of its sequences: cells or states, shared, cut, saved and restored."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from runner.engine import Chunk, Move
from runner.loaded_model import MemoryKind

_MOST_IDS = 256
"""llama.cpp's own limit, fixed when it is compiled. A unified cache holds any of them; only those below the
context's `n_seq_max` can be computed, saved and restored."""
_MOVED_AT_ONCE = 256
_LEAST_RESTING_IDS = 8
"""Sequences that may keep their cells after their end, until those are saved, where few are computed together."""


def kind_of(model: Any) -> MemoryKind:
    """What llama.cpp says of a model decides once how its memory is kept."""
    is_whole = (
        lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model) or lib.llama_model_n_swa(model) > 0
    )
    return MemoryKind.STATES if is_whole else MemoryKind.CELLS


def has_sections(model: Any) -> bool:
    """Whether a position has several numbers, as in models that are to see where in an image they look."""
    return lib.llama_model_rope_type(model) in (lib.LLAMA_ROPE_TYPE_MROPE, lib.LLAMA_ROPE_TYPE_IMROPE)


def resting_ids(kind: MemoryKind, max_sequences: int) -> tuple[int, ...]:
    """Ids for what only rests: as many as can end in one step, or the readers of the last would wait until others
    are saved. With states each id costs memory, so there are none to spare."""
    first = native_ids(kind, max_sequences)
    end = min(first + max(max_sequences, _LEAST_RESTING_IDS), _MOST_IDS)
    return () if kind is MemoryKind.STATES else tuple(range(first, end))


def native_ids(kind: MemoryKind, max_sequences: int) -> int:
    """How many ids the context is made for: with cells one more, the scratch that ranges pass through."""
    return max_sequences + (kind is MemoryKind.CELLS)


class Memory:
    """The memory of one context. Used on the engine thread only.

    llama.cpp saves and restores whole sequences. A range takes the way over a scratch sequence,
    which shares the range's cells for as long as that takes.
    """

    def __init__(self, context: Any, kind: MemoryKind, max_sequences: int) -> None:
        self.kind = kind
        self._context = context
        self._handle: Any = None if context is None else lib.llama_get_memory(context)
        self._scratch = max_sequences

    @property
    def form(self) -> str:
        """What has to be equal for a saved state to fit."""
        return str(self.kind)

    def position(self, sequence_id: int, place: int) -> int:
        """Where the cell stands that is number `place` of a sequence."""
        return place

    def placed(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """The chunks as they go into a batch, each with the position of its first token."""
        return chunks

    def remove(self, sequence_id: int) -> None:
        lib.llama_memory_seq_rm(self._handle, sequence_id, -1, -1)

    def cut(self, sequence_id: int, length: int) -> None:
        assert self.kind is MemoryKind.CELLS
        lib.llama_memory_seq_rm(self._handle, sequence_id, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        assert self.kind is MemoryKind.CELLS
        lib.llama_memory_seq_cp(self._handle, source, target, 0, length)

    def shift(self, sequence_id: int, keep: int, discard: int) -> None:
        lib.llama_memory_seq_rm(self._handle, sequence_id, keep, keep + discard)
        lib.llama_memory_seq_add(self._handle, sequence_id, keep + discard, -1, -discard)

    def save(self, sequence_id: int, start: int, end: int) -> memoryview:
        return self._saved(sequence_id, start, end)

    def restore(self, sequence_id: int, state: memoryview, start: int, end: int) -> bool:
        target = sequence_id if self.kind is MemoryKind.STATES else self._scratch
        data = np.frombuffer(state, dtype=np.uint8)
        if lib.llama_state_seq_set_data(self._context, _pointer(data), data.size, target) == 0:
            self.remove(target)
            return False
        if target == self._scratch:
            lib.llama_memory_seq_cp(self._handle, self._scratch, sequence_id, start, end)
            self.remove(self._scratch)
        return True

    def move_to(self, target: Memory, moves: Sequence[Move]) -> bool:
        """Put what the sequences hold into another, empty memory; False when it does not take it, and is empty."""
        for move in moves:
            if move.donor is not None:
                target.copy(move.donor, move.sequence_id, move.shared)
            place = move.shared
            while place < move.length:
                end = self._moved_at_once(place, move.length)
                state = self.save(move.sequence_id, place, end)
                if not target.restore(move.sequence_id, state, place, end):
                    lib.llama_memory_clear(target._handle, False)
                    return False
                place = end
        return True

    def _moved_at_once(self, start: int, length: int) -> int:
        """Where a range that begins at `start` ends: memory for a small one is there already, and warm."""
        return length if self.kind is MemoryKind.STATES else min(start + _MOVED_AT_ONCE, length)

    def _saved(self, sequence_id: int, start: int, end: int, *, head: bytes = b"") -> memoryview:
        """The state of a range of positions, or all of a sequence that is a state, behind `head`."""
        if self.kind is MemoryKind.STATES:
            return self._state_of(sequence_id, head)
        lib.llama_memory_seq_cp(self._handle, sequence_id, self._scratch, start, end)
        try:
            return self._state_of(self._scratch, head)
        finally:
            lib.llama_memory_seq_rm(self._handle, self._scratch, -1, -1)

    def _state_of(self, sequence_id: int, head: bytes) -> memoryview:
        size: int = lib.llama_state_seq_get_size(self._context, sequence_id)
        data = np.empty(len(head) + size, dtype=np.uint8)
        data[: len(head)] = np.frombuffer(head, dtype=np.uint8)
        state = data[len(head) :]
        written: int = lib.llama_state_seq_get_data(self._context, _pointer(state), size, sequence_id)
        return data[: len(head) + written].data


def _pointer(data: np.ndarray[Any, Any]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
