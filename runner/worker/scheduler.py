"""Chooses which tokens go into the next batch."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence as ReadOnlySequence
from dataclasses import dataclass

from runner.worker.sequence import Sequence


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """The next `count` pending tokens of a sequence."""

    sequence: Sequence
    count: int


@dataclass(frozen=True, slots=True)
class Preemption:
    """A sequence that gave up its cells and waits again; the engine must forget `sequence_id`."""

    sequence: Sequence
    sequence_id: int


class Scheduler:
    """Which sequences run, which wait, and what each step computes.

    Admission counts the tokens that exist, never those a request might still generate; so the
    cells can run out, and then a sequence goes back to the head of the queue and is computed anew
    later. Its text is not repeated, and nobody sees more than a pause. Sequences that give way:
    those whose reader is slow, then the youngest.
    """

    def __init__(self, *, cells: int, max_sequences: int, max_rows: int, prefill_rows_while_decoding: int) -> None:
        self._cells = cells
        self._max_rows = max_rows
        self._prefill_rows_while_decoding = min(prefill_rows_while_decoding, max_rows)
        self._free_ids = list(range(max_sequences))
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """In order of admission."""
        self._is_full = False
        """Whether the engine ran out of cells unexpectedly; nothing is admitted until a sequence ends."""

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def cells_used(self) -> int:
        return sum(sequence.computed for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> int | None:
        """Take a sequence out; its sequence id when it held one, which the engine must forget."""
        if sequence.sequence_id is None:
            self.waiting.remove(sequence)
            return None
        self.running.remove(sequence)
        self._is_full = False
        return self._release_id(sequence)

    def make_room(self) -> list[Preemption]:
        """Take cells back until every running sequence's tokens fit."""
        preempted = []
        while len(self.running) > 1 and sum(len(sequence.tokens) for sequence in self.running) > self._cells:
            preempted.append(self._preempt())
        return preempted

    def give_way(self) -> Preemption | None:
        """The engine has fewer cells than it said: let one sequence wait until another has ended.

        None when only one runs, which then cannot be computed at all.
        """
        if len(self.running) < 2:
            return None
        self._is_full = True
        return self._preempt()

    def admit(self) -> None:
        """Start waiting sequences, oldest first, while they fit."""
        committed = sum(len(sequence.tokens) + 1 for sequence in self.running)
        while self.waiting and self._free_ids and not self._is_full:
            needed = len(self.waiting[0].tokens) + 1
            if self.running and committed + needed > self._cells:
                return
            sequence = self.waiting.popleft()
            sequence.sequence_id = heapq.heappop(self._free_ids)
            self.running.append(sequence)
            committed += needed

    def plan_step(self) -> list[PlannedChunk]:
        """The next batch; empty when nothing can run.

        After a failed step its sequences are tried one at a time, so that the one that causes
        the failure is found and the others go on.
        """
        runnable = [sequence for sequence in self.running if not sequence.paused]
        suspects = [sequence for sequence in runnable if sequence.faults]
        return plan_step(
            suspects[:1] or runnable,
            max_rows=self._max_rows,
            prefill_rows_while_decoding=self._prefill_rows_while_decoding,
        )

    def _preempt(self) -> Preemption:
        victim = max(enumerate(self.running), key=lambda numbered: (numbered[1].paused, numbered[0]))[1]
        self.running.remove(victim)
        sequence_id = self._release_id(victim)
        victim.computed = 0
        self.waiting.appendleft(victim)
        return Preemption(victim, sequence_id)

    def _release_id(self, sequence: Sequence) -> int:
        assert sequence.sequence_id is not None
        sequence_id, sequence.sequence_id = sequence.sequence_id, None
        heapq.heappush(self._free_ids, sequence_id)
        return sequence_id


def plan_step(
    running: ReadOnlySequence[Sequence], *, max_rows: int, prefill_rows_while_decoding: int
) -> list[PlannedChunk]:
    """One token for every answer in progress, then chunks of prompts.

    Answers come first, and prompts get fewer rows beside them, so that a long prompt slows the
    others down by a bounded step and never by its whole length.
    """
    decoding = [sequence for sequence in running if sequence.is_decoding]
    prefilling = [sequence for sequence in running if not sequence.is_decoding]
    room = max_rows - len(decoding)
    if decoding:
        room = min(room, prefill_rows_while_decoding)
    shares = share_rows([sequence.pending for sequence in prefilling], room)
    return [PlannedChunk(sequence, 1) for sequence in decoding] + [
        PlannedChunk(sequence, share) for sequence, share in zip(prefilling, shares, strict=True) if share
    ]


def share_rows(pending: ReadOnlySequence[int], room: int) -> list[int]:
    """Divide `room` rows among prompts: equal shares, and what a short prompt leaves goes to the longer ones.

    Returns a count for each prompt, in order; their sum is the smaller of `room` and all that is pending.
    """
    shares = [0] * len(pending)
    by_length = sorted(range(len(pending)), key=pending.__getitem__)
    for place, index in enumerate(by_length):
        # What does not divide evenly stays for those that come later, the longest prompts.
        shares[index] = min(pending[index], room // (len(by_length) - place))
        room -= shares[index]
    return shares
