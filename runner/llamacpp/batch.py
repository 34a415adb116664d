"""One reusable llama_batch whose arrays are written through numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from runner.draft_model import DraftChunk
from runner.engine import Chunk, EncodingChunk, EngineFault, OutOfCells

_NO_CELLS = 1


class Batch:
    """The arrays of a `llama_batch`, owned here: one sequence id for each token, no embeddings."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.int32)
        self._wants_logits = np.zeros(capacity, dtype=np.int8)
        self._sequence_count = np.ones(capacity, dtype=np.int32)
        # seq_id is an array of pointers, one for each token, each to an array of ids: here of one.
        self._sequence_pointers = (
            self._sequence.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._sequence.itemsize
        ).astype(np.uintp)
        self.struct: Any = lib.llama_batch()
        self.struct.token = _pointer(self._token, lib.llama_batch, "token")
        self.struct.pos = _pointer(self._position, lib.llama_batch, "pos")
        self.struct.n_seq_id = _pointer(self._sequence_count, lib.llama_batch, "n_seq_id")
        self.struct.seq_id = _pointer(self._sequence_pointers, lib.llama_batch, "seq_id")
        self.struct.logits = _pointer(self._wants_logits, lib.llama_batch, "logits")

    def fill(self, chunks: Sequence[Chunk]) -> None:
        """Write the chunks one after another; logits are asked where something is sampled or scored."""
        end = 0
        self._write(chunks)
        for chunk in chunks:
            start, end = end, end + len(chunk.tokens)
            if chunk.scoring is not None:
                self._wants_logits[start : start + len(chunk.scoring.targets)] = 1
            if chunk.sampler is not None:
                self._wants_logits[end - 1 - chunk.drafted : end] = 1

    def fill_for_guesses(self, chunks: Sequence[DraftChunk]) -> None:
        """Write the chunks one after another; logits are asked where something is to be guessed."""
        end = 0
        self._write(chunks)
        for chunk in chunks:
            end += len(chunk.tokens)
            self._wants_logits[end - 1] = chunk.is_asked

    def fill_for_vectors(self, chunks: Sequence[EncodingChunk]) -> None:
        """Write the chunks one after another, their slots as sequence ids; every token gives a vector."""
        total = 0
        for chunk in chunks:
            end = total + len(chunk.tokens)
            self._token[total:end] = chunk.tokens
            self._position[total:end] = np.arange(chunk.start, chunk.start + len(chunk.tokens))
            self._sequence[total:end] = chunk.slot
            total = end
        self._wants_logits[:] = 1
        self.struct.n_tokens = total

    def _write(self, chunks: Sequence[Chunk] | Sequence[DraftChunk]) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        for chunk in chunks:
            count = len(chunk.tokens)
            tokens += chunk.tokens
            positions += range(chunk.start, chunk.start + count)
            sequences += [chunk.sequence_id] * count
        total = len(tokens)
        self._token[:total] = tokens
        self._position[:total] = positions
        self._sequence[:total] = sequences
        self._wants_logits[:] = 0
        self.struct.n_tokens = total


class VectorBatch:
    """A `llama_batch` of vectors in place of tokens, for one sequence."""

    def __init__(
        self,
        vectors: np.ndarray[Any, np.dtype[np.float32]],
        positions: np.ndarray[Any, np.dtype[np.int32]],
        sequence_id: int,
    ) -> None:
        """`vectors` has one in each row; they are not copied, and live as long as the batch.

        Each has a column of `positions`, with as many numbers as a position of the model has.
        """
        count = len(vectors)
        self._vectors = np.ascontiguousarray(vectors)
        self._position = np.ascontiguousarray(positions)
        self._sequence = np.full(1, sequence_id, dtype=np.int32)
        self._sequence_count = np.ones(count, dtype=np.int32)
        self._sequence_pointers = np.full(count, self._sequence.ctypes.data, dtype=np.uintp)
        self._wants_logits = np.zeros(count, dtype=np.int8)
        self.struct: Any = lib.llama_batch()
        self.struct.embd = _pointer(self._vectors, lib.llama_batch, "embd")
        self.struct.pos = _pointer(self._position, lib.llama_batch, "pos")
        self.struct.n_seq_id = _pointer(self._sequence_count, lib.llama_batch, "n_seq_id")
        self.struct.seq_id = _pointer(self._sequence_pointers, lib.llama_batch, "seq_id")
        self.struct.logits = _pointer(self._wants_logits, lib.llama_batch, "logits")
        self.struct.n_tokens = count

    def want_logits(self) -> int:
        """Ask for those of the last row; which one it is."""
        self._wants_logits[-1] = 1
        return len(self._wants_logits) - 1


def check_decoded(status: int, whose: str = "") -> None:
    """Raise OutOfCells or EngineFault for what `llama_decode` returned, if it is one; `whose` tells of the context."""
    if status == _NO_CELLS:
        raise OutOfCells
    if status != 0:
        raise EngineFault(f"llama_decode{whose} returned {status}")


def _pointer(array: np.ndarray[Any, Any], struct: Any, field: str) -> Any:
    kind = dict(struct._fields_)[field]
    return ctypes.cast(array.ctypes.data, kind)
