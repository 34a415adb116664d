"""Chooses which sequences run and which tokens go into the next batch."""

from __future__ import annotations

from collections.abc import Sequence as ReadOnlySequence
from dataclasses import dataclass

from runner.adapters import AdapterSet
from runner.engine import MAX_SCORED_ROWS
from runner.worker.sequence import BACKGROUND_DELAY_NS, Sequence


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """The next `count` pending tokens of a sequence."""

    sequence: Sequence
    count: int


class Scheduler:
    """Which sequences run, which wait, and what each step computes. Knows nothing of cells.

    Who is due earlier goes first: interactive requests before background ones that came less than
    `BACKGROUND_DELAY_NS` before them. Who gives way under pressure: sequences whose reader is slow,
    then those that are due last.
    """

    def __init__(self, *, max_sequences: int, max_rows: int) -> None:
        self._max_sequences = max_sequences
        self._max_rows = max_rows
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        """In order of admission."""
        self._turns: dict[AdapterSet, int] = {}
        """When the adapters that want a step had their last one; rising numbers."""

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def has_prompts(self) -> bool:
        """Whether somebody who runs has more to compute than the token sampled last."""
        return any(not sequence.is_decoding for sequence in self.running)

    @property
    def pending(self) -> int:
        """Tokens of running sequences that have no cell yet."""
        return sum(sequence.pending for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)

    def candidates(self) -> list[Sequence]:
        """Those that wait, in the order in which they should start."""
        return sorted(self.waiting, key=lambda sequence: sequence.due_ns)

    @property
    def has_place(self) -> bool:
        return len(self.running) < self._max_sequences

    def start(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        self.running.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """A running sequence waits again, before all that is due at the same time."""
        self.running.remove(sequence)
        self.waiting.insert(0, sequence)

    def victim(self) -> Sequence | None:
        """Who gives way when the cells run out; None when only one runs, which then cannot be helped."""
        if len(self.running) < 2:
            return None
        numbered = enumerate(self.running)
        return max(numbered, key=lambda item: (item[1].paused, item[1].due_ns, item[0]))[1]

    def gives_way_to(self, candidate: Sequence) -> Sequence | None:
        """A background sequence that an interactive one need not wait for, if there is any."""
        if candidate.is_background:
            return None
        background = [one for one in self.running if one.is_background and one.due_ns > candidate.due_ns]
        return max(background, key=lambda one: one.due_ns, default=None)

    def next_with_media(self) -> Sequence | None:
        """Whose turn it is with an image or a sound: who is due first."""
        standing = [one for one in self.running if not one.paused and one.next_span is not None]
        return min(standing, key=lambda one: one.due_ns, default=None)

    def plan_step(self, *, prefill_rows: int, now: int) -> list[PlannedChunk]:
        """The next batch, with at most `prefill_rows` of prompts beside running answers; empty when nothing can run.

        After a failed step its sequences are tried one at a time, so that the one that causes
        the failure is found and the others go on.
        """
        runnable = [one for one in self.running if not one.paused and one.next_span is None]
        runnable = self._with_one_set(runnable)
        suspects = [sequence for sequence in runnable if sequence.faults]
        return plan_step(suspects[:1] or runnable, max_rows=self._max_rows, prefill_rows=prefill_rows, now=now)

    def _with_one_set(self, runnable: list[Sequence]) -> list[Sequence]:
        """Those that may share a step: its rows have one set of adapters, the one that has waited longest."""
        sets = dict.fromkeys(sequence.request.adapters for sequence in runnable)
        if len(sets) < 2:
            return runnable
        turns = {adapters: self._turns.get(adapters, 0) for adapters in sets}
        chosen = min(turns, key=turns.__getitem__)
        self._turns = turns | {chosen: max(turns.values()) + 1}
        return [sequence for sequence in runnable if sequence.request.adapters == chosen]


def plan_step(running: ReadOnlySequence[Sequence], *, max_rows: int, prefill_rows: int, now: int) -> list[PlannedChunk]:
    """One token for every answer in progress, then chunks of prompts.

    Answers come first, and prompts get no more than `prefill_rows` beside them, so that a long
    prompt slows the others down by a bounded step and never by its whole length. Background
    prompts get what the others leave, until they have waited long enough.
    """
    decoding = [sequence for sequence in running if sequence.is_decoding]
    chunks = [PlannedChunk(sequence, 1) for sequence in decoding]
    prefilling = [sequence for sequence in running if not sequence.is_decoding]
    room = max_rows - len(decoding)
    if decoding:
        room = min(room, max(prefill_rows, 0))
    deferred = [one for one in prefilling if one.is_background and now - one.received_ns < BACKGROUND_DELAY_NS]
    for group in filter(None, ([one for one in prefilling if one not in deferred], deferred)):
        shares = share_rows([sequence.next_rows for sequence in group], room)
        chunks += [PlannedChunk(one, share) for one, share in zip(group, shares, strict=True) if share]
        room -= sum(shares)
    return _limit_scored(chunks) if any(sequence.is_scored for sequence in running) else chunks


def _limit_scored(chunks: list[PlannedChunk]) -> list[PlannedChunk]:
    """Cut the chunks of scored prompts: there is room for so many rows of logits, and the first come first."""
    left = MAX_SCORED_ROWS
    limited = []
    for chunk in chunks:
        count = min(chunk.count, left) if chunk.sequence.is_scored else chunk.count
        left -= count if chunk.sequence.is_scored else 0
        if count:
            limited.append(PlannedChunk(chunk.sequence, count))
    return limited


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
