"""Keeps what was computed where any range of it can be shared, saved and restored.

Three places, the nearer the better:

    live cells ──tidy()──▶ host memory ──write──▶ disk
        ▲ ◀──restore()─────────┘ ◀──────read───────┘

A sequence that begins shares the cells of whichever live one has computed the longest beginning of
its prompt, and has the rest restored from memory. One that ends rests in its cells just until they
are saved, a segment at a time between steps: every step looks at all cells up to the highest in
use, so idle ones would slow down everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runner.chat.types import CachedTokens
from runner.engine import Engine
from runner.worker.keeper import Keeper, Wait
from runner.worker.prefix_cache import PrefixCache, Segment, shared_length
from runner.worker.prefix_files import PrefixFiles
from runner.worker.sequence import Sequence
from runner.worker.stand_ins import whole_length
from runner.worker.step_cost import StepCost

SEGMENT_TOKENS = 256
"""Most tokens of a segment, so that saving one is no longer than a step."""
MIN_SHARED = 32
"""Tokens that another must be about to compute before a sequence begins to wait for it; then it waits for them all."""
MIN_KEPT = 16
"""Shorter sequences are not worth keeping."""


@dataclass(eq=False, slots=True)
class _Resting:
    """The cells of a sequence that has ended."""

    sequence_id: int
    scope: str
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class _Donor:
    """A live sequence whose first `length` cells are those of another's prompt."""

    sequence_id: int
    length: int


class CellKeeper(Keeper):
    """A keeper for memory of the kind CELLS."""

    def __init__(
        self,
        engine: Engine,
        cache: PrefixCache,
        cost: StepCost,
        *,
        files: PrefixFiles | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Blocks while the list of `files` is read."""
        super().__init__(engine, cache, cost, files)
        self.cache = cache
        self._clock = clock
        self._resting: list[_Resting] = []
        """In the order they came to rest."""
        self._resting_ids = list(engine.info.resting_ids)
        self._restore_ns_per_token = 0.0
        self._take_index()

    def wait_for(self, sequence: Sequence, now: int) -> Wait | None:
        if sequence.starts_alone:
            return None
        limit = sequence.most_taken
        ready = max(self._shared_with_live(sequence).length, self._kept_length(sequence, limit))
        coming = max((shared for donor, shared in self._ahead(sequence) if shared > donor.computed), default=0)
        # Whoever computes the shared part is ahead of where this one would begin, so waiting takes no longer.
        if (until := self._read_files(sequence, limit, now)) is not None:
            return Wait(until)
        sequence.awaits_other = min(coming, limit) >= ready + (1 if sequence.awaits_other else MIN_SHARED)
        return Wait() if sequence.awaits_other else None

    def shared_cells(self, sequence: Sequence) -> int:
        return self._shared_with_live(sequence).length

    def shift(self, sequence: Sequence, keep: int, discard: int) -> None:
        if self._make_own(sequence, keep):
            super().shift(sequence, keep, discard)
        else:
            self.forget(sequence)

    def release(self, sequence: Sequence) -> None:
        if self._is_worth_keeping(sequence) and self._resting_ids_left():
            self._rest(sequence)
        super().release(sequence)

    def park(self, sequence: Sequence) -> None:
        assert sequence.sequence_id is not None
        if self._is_worth_keeping(sequence):
            while self._save_next(sequence.request.cache_scope, sequence.kept_tokens, sequence.sequence_id):
                pass
        super().park(sequence)

    def free_cells(self, needed: int) -> bool:
        while not super().free_cells(needed) and self.let_one_go():
            pass
        return super().free_cells(needed)

    def let_one_go(self) -> bool:
        if not self._resting:
            return False
        self._let_go(self._resting[0])
        return True

    def tidy(self, now: int) -> bool:
        if not self._resting or not self.cache.memory_bytes:
            return False
        resting = self._resting[0]
        if not self._save_next(resting.scope, resting.tokens, resting.sequence_id):
            self._remove(resting)
        return bool(self._resting)

    # --- beginning --------------------------------------------------------------------------------

    def _fill(self, sequence: Sequence, sequence_id: int) -> CachedTokens:
        if sequence.starts_alone:
            self.cache.use([])
            return CachedTokens()
        donor = self._shared_with_live(sequence)
        if donor.length:
            self.engine.copy(donor.sequence_id, sequence_id, donor.length)
            self.ledger.copy(donor.sequence_id, sequence_id, donor.length)
        used = []
        from_memory = from_disk = 0
        for segment, end in self.cache.find(sequence.request.cache_scope, sequence.tokens, sequence.most_taken):
            place = self.ledger.length(sequence_id)
            if end > place and not self._restore(segment, end, place, sequence_id):
                break
            used.append(segment)
            if segment.is_from_disk:
                from_disk += max(end - place, 0)
                segment.is_from_disk = False
            else:
                from_memory += max(end - place, 0)
        self.cache.use(used)
        self._shelf.touch(used)
        return CachedTokens(live=donor.length, memory=from_memory, disk=from_disk)

    def _restore(self, segment: Segment, end: int, place: int, sequence_id: int) -> bool:
        state = segment.state
        if state is None or not self.free_cells(len(segment.tokens)):
            return False
        if not self._is_restoring_quicker(end - place):
            return False
        began = self._clock()
        if not self.engine.restore(sequence_id, state, max(segment.start, place), end):
            self.cache.drop_state(segment)
            self._lose_file(segment)
            return False
        spent = (self._clock() - began) / len(segment.tokens)
        self._restore_ns_per_token = (
            spent if not self._restore_ns_per_token else (0.8 * self._restore_ns_per_token + 0.2 * spent)
        )
        self.ledger.grow(sequence_id, end - place)
        return True

    def _is_restoring_quicker(self, tokens: int) -> bool:
        if not self.cost.is_known:
            return True
        computing = self.cost.prefill(tokens, self.ledger.used, step_rows=self.engine.info.max_rows)
        return self._restore_ns_per_token * tokens < computing

    def _kept_length(self, sequence: Sequence, limit: int) -> int:
        """Up to where a prompt is kept in memory; looked up again only when the cache has changed."""
        if sequence.kept_version != self.cache.version:
            found = self.cache.find(sequence.request.cache_scope, sequence.tokens, limit)
            sequence.kept_version = self.cache.version
            sequence.kept_length = found[-1][1] if found else 0
        return sequence.kept_length

    # --- files ------------------------------------------------------------------------------------

    def _take_index(self) -> None:
        """Put what is on disk into the tree; what hangs in the air or is not what its name says is removed."""
        for key, header in self._shelf.open():
            parent = self._shelf.find(header.parent)
            if header.parent == header.root and header.start == 0:
                parent = self.cache.root_of_key(header.root)
            segment = None
            if parent is not None and (parent.start < header.start <= parent.end or header.start == 0):
                segment = self.cache.attach(parent, header.start, header.tokens)
            if segment is None or segment.key != key:
                self._shelf.refuse(key)
            else:
                self._shelf.place(key, segment)
        self.cache.forget_empty()

    def _read_files(self, sequence: Sequence, limit: int, now: int) -> int | None:
        """Have what only the disk knows of a prompt read; until when to wait for it, or None not to wait."""
        if not self._shelf.has_any:
            return None
        live = self._shared_with_live(sequence).length
        way = self.cache.find(sequence.request.cache_scope, sequence.tokens, limit)
        missing = [segment for segment, end in way if segment.state is None and end > live]
        if not missing:
            return None
        until = self._read_until(sequence, sum(len(segment.tokens) for segment in missing), now)
        if now >= until:
            return None
        self._shelf.fetch(missing)
        return until

    # --- live sequences ---------------------------------------------------------------------------

    def _shared_with_live(self, sequence: Sequence) -> _Donor:
        limit = sequence.most_taken
        best = _Donor(-1, 0)
        if sequence.starts_alone:
            return best
        for donor in self.running.values():
            assert donor.sequence_id is not None
            shared = self._shared(sequence, donor)
            length = whole_length(sequence.tokens, min(shared, donor.computed, limit))
            if length > best.length:
                best = _Donor(donor.sequence_id, length)
        for resting in self._resting:
            if resting.scope == sequence.request.cache_scope:
                length = min(shared_length(resting.tokens, sequence.tokens), limit)
                if length > best.length:
                    best = _Donor(resting.sequence_id, length)
        return best

    def _ahead(self, sequence: Sequence) -> Iterator[tuple[Sequence, int]]:
        """Prompts that are computed now, no less urgent than this one, and what they have in common with it."""
        for donor in self.running.values():
            if self._is_ahead(donor, sequence):
                yield donor, self._shared(sequence, donor)

    def _make_own(self, sequence: Sequence, start: int) -> bool:
        """See that no cell from `start` on is shared: what is shared is saved and comes back in cells of its own."""
        assert sequence.sequence_id is not None
        if self.ledger.own_from(sequence.sequence_id) <= start:
            return True
        if not self.free_cells(sequence.computed - start):
            return False
        state = self.engine.save(sequence.sequence_id, start, sequence.computed)
        self.engine.cut(sequence.sequence_id, start)
        self.ledger.cut(sequence.sequence_id, start)
        if not self.engine.restore(sequence.sequence_id, state, start, sequence.computed):
            return False
        self.ledger.grow(sequence.sequence_id, sequence.computed - start)
        return True

    # --- resting and saving -----------------------------------------------------------------------

    def _is_worth_keeping(self, sequence: Sequence) -> bool:
        return sequence.computed >= MIN_KEPT and not sequence.is_shifted and not sequence.faults

    def _resting_ids_left(self) -> bool:
        if not self._resting_ids and self._resting:
            self._let_go(self._resting[0])
        return bool(self._resting_ids)

    def _rest(self, sequence: Sequence) -> None:
        assert sequence.sequence_id is not None
        tokens = sequence.kept_tokens
        resting = _Resting(self._resting_ids.pop(), sequence.request.cache_scope, tokens)
        self.engine.copy(sequence.sequence_id, resting.sequence_id, len(tokens))
        self.ledger.copy(sequence.sequence_id, resting.sequence_id, len(tokens))
        self._resting.append(resting)

    def _let_go(self, resting: _Resting) -> None:
        """Save the rest of a resting sequence at once and give its cells back."""
        while self.cache.memory_bytes and self._save_next(resting.scope, resting.tokens, resting.sequence_id):
            pass
        self._remove(resting)

    def _remove(self, resting: _Resting) -> None:
        self._resting.remove(resting)
        self.engine.remove(resting.sequence_id)
        self.ledger.remove(resting.sequence_id)
        self._resting_ids.append(resting.sequence_id)

    def _lose_all(self) -> None:
        for resting in list(self._resting):
            self._remove(resting)
        super()._lose_all()

    def _save_next(self, scope: str, tokens: list[int], sequence_id: int) -> bool:
        """Save one more segment; False when all is kept, or no more can be."""
        missing = self.cache.next_missing(scope, tokens, len(tokens), SEGMENT_TOKENS)
        if missing is None:
            return False
        start, end = missing
        state = self.engine.save(sequence_id, start, end)
        segment = self.cache.add(scope, tokens, start, end, state)
        if segment is None:
            return False
        self._shelf.write(segment, self.cache.root_key(segment))
        return True
