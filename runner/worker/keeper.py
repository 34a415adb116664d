"""Keeper: which sequences the engine holds, under which ids, and how a new one starts.

What is common to the two ways of not doing work twice, `cell_keeper.py` and `state_keeper.py`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

from runner.chat.types import CachedTokens
from runner.engine import Engine, Window
from runner.messages import CacheStats
from runner.worker.ledger import CellLedger
from runner.worker.prefix_cache import Segment, shared_length
from runner.worker.prefix_files import FileEvent, PrefixFiles
from runner.worker.sequence import Sequence
from runner.worker.shelf import Shelf
from runner.worker.step_cost import StepCost

UNMEASURED_READ_NS = 2_000_000_000
"""How long a prompt waits for the disk while nobody knows how long computing it would take."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: what a sequence needs is on its way. Ask again after the next step, or at `until_ns`."""

    until_ns: int | None = None


class Kept(Protocol):
    """The states in host memory, as segments; one cache for each way of keeping them."""

    memory_bytes: int
    memory_used: int

    def __len__(self) -> int: ...

    def put(self, segment: Segment, state: memoryview) -> bool:
        """Take a state that came from disk; False when there is no room for it."""
        ...

    def lose_file(self, segment: Segment) -> None: ...


class Keeper:
    """Owns the sequence ids and the count of cells. Used on the engine thread only."""

    def __init__(self, engine: Engine, kept: Kept, cost: StepCost, files: PrefixFiles | None) -> None:
        self._kept = kept
        self._shelf = Shelf(files)
        self.engine = engine
        self.cost = cost
        self.ledger = CellLedger()
        self.running: dict[int, Sequence] = {}
        self._free_ids = list(range(engine.info.max_sequences))
        self._shifted: list[Sequence] = []
        """Since the last step: the engine has yet to compute what shifting means."""
        self._hits = CachedTokens()
        self._prompt_tokens = 0

    def wait_for(self, sequence: Sequence, now: int) -> Wait | None:
        """Whether it is quicker for a sequence to start later than now; None to start."""
        return None

    def shared_cells(self, sequence: Sequence) -> int:
        """How many cells that are in use already a sequence would start with."""
        return 0

    def begin(self, sequence: Sequence) -> None:
        """Give a sequence an id and whatever of its tokens needs no computing; at least one always does."""
        sequence_id = sequence.sequence_id = heapq.heappop(self._free_ids)
        sequence.computed = 0
        self.running[sequence_id] = sequence
        found = self._fill(sequence, sequence_id)
        sequence.computed = self.ledger.length(sequence_id)
        assert sequence.computed < len(sequence.tokens)
        if not sequence.first_step_ns:
            sequence.cached = found
            self._prompt_tokens += sequence.prompt_tokens
            hits = self._hits
            self._hits = CachedTokens(hits.live + found.live, hits.memory + found.memory, hits.disk + found.disk)

    def grown(self, sequence: Sequence, count: int) -> None:
        """A step has computed `count` tokens of a sequence; its `computed` is up to date."""
        assert sequence.sequence_id is not None
        self.ledger.grow(sequence.sequence_id, count)
        self._shifted.clear()

    def shift(self, sequence: Sequence, keep: int, discard: int) -> None:
        """Forget positions keep..keep+discard; all of it where that cannot be done."""
        assert sequence.sequence_id is not None
        self.engine.shift(sequence.sequence_id, keep, discard)
        self.ledger.shift(sequence.sequence_id, discard)
        self._shifted.append(sequence)

    def forget(self, sequence: Sequence) -> None:
        """A sequence's cells are in doubt, or not wanted; it keeps its id and has computed nothing."""
        assert sequence.sequence_id is not None
        self.engine.remove(sequence.sequence_id)
        self.ledger.remove(sequence.sequence_id)
        sequence.computed = 0

    def release(self, sequence: Sequence) -> None:
        """A sequence has ended; what it computed may be of use to others."""
        self.forget(sequence)
        self._give_back_id(sequence)

    def park(self, sequence: Sequence) -> None:
        """A sequence gives up its cells and will begin again later."""
        self.forget(sequence)
        self._give_back_id(sequence)

    def move_into(self, window: Window) -> None:
        """Have everything in another window."""
        for sequence in self._shifted:
            if sequence.sequence_id is not None:
                self.forget(sequence)
        self._shifted.clear()
        if not self.engine.move_into(window, self.ledger.moves()):
            self._lose_all()

    def free_cells(self, needed: int) -> bool:
        """Let go of what only rests in the cells until `needed` more are free; whether they are."""
        return self.ledger.used + needed <= self.engine.info.context_length

    def let_one_go(self) -> bool:
        """Let go of one thing that only rests in the cells; False when there is none."""
        return False

    def tidy(self, now: int) -> bool:
        """A small piece of the work that may wait; False when there is none."""
        return False

    def take(self, event: FileEvent) -> None:
        """Something became of a file."""
        segment = self._shelf.take(event)
        if segment is None:
            return
        if event.state is None or not self._kept.put(segment, event.state):
            self._lose_file(segment)
        else:
            segment.is_from_disk = True

    @property
    def stats(self) -> CacheStats:
        hits = self._hits
        return CacheStats(
            memory_bytes=self._kept.memory_bytes,
            memory_used=self._kept.memory_used,
            segments=len(self._kept),
            prompt_tokens=self._prompt_tokens,
            live=hits.live,
            memory=hits.memory,
            disk=hits.disk,
        )

    def _fill(self, sequence: Sequence, sequence_id: int) -> CachedTokens:
        """Give a sequence that begins what is there of it; how much came from where."""
        raise NotImplementedError

    def _lose_file(self, segment: Segment) -> None:
        self._shelf.lose(segment)
        self._kept.lose_file(segment)

    def _lose_all(self) -> None:
        """The engine holds nothing any more: what runs starts over."""
        for sequence in self.running.values():
            self.forget(sequence)

    def _shared(self, sequence: Sequence, donor: Sequence) -> int:
        """How many tokens a sequence begins with as one that runs, if it may use what that one has computed.

        What the prompts share does not change; what they generate is compared once they rest.
        """
        if donor is sequence or donor.is_shifted or donor.request.cache_scope != sequence.request.cache_scope:
            return 0
        if donor.request_id not in sequence.shared_with:
            sequence.shared_with[donor.request_id] = shared_length(donor.tokens, sequence.tokens)
        return sequence.shared_with[donor.request_id]

    def _is_ahead(self, donor: Sequence, sequence: Sequence) -> bool:
        """Whether waiting for `donor` is no longer than computing: it goes on as quickly, and is no less urgent."""
        goes_on = not (donor.paused or donor.faults or donor.is_scored)
        return goes_on and donor.is_background <= sequence.is_background

    def _read_until(self, sequence: Sequence, tokens: int, now: int) -> int:
        """How long to wait for the disk: never longer than computing would take; unmeasured, disks are quicker."""
        if not sequence.read_until_ns:
            computing = self.cost.prefill(tokens, self.ledger.used, step_rows=self.engine.info.max_rows)
            sequence.read_until_ns = now + (int(computing) if self.cost.is_known else UNMEASURED_READ_NS)
        return sequence.read_until_ns

    def _give_back_id(self, sequence: Sequence) -> None:
        assert sequence.sequence_id is not None
        del self.running[sequence.sequence_id]
        heapq.heappush(self._free_ids, sequence.sequence_id)
        sequence.sequence_id = None
