"""Keeps what was computed where only whole states can be: recurrent and hybrid models, sliding windows.

A state is of use to a prompt that begins with all of its tokens. So states are saved where that is
likely: just before the end of a prompt, at the end of an answer, and where a prompt parts from one
that was seen before, as prompts with one system text do. Those that wait for such a place to be
reached by another sequence have it stop there.
"""

from __future__ import annotations

from runner.chat.types import CachedTokens
from runner.engine import Engine
from runner.worker.keeper import Keeper, Wait
from runner.worker.prefix_files import PrefixFiles
from runner.worker.sequence import Sequence
from runner.worker.state_cache import StateCache
from runner.worker.step_cost import StepCost

MIN_STATE = 32
"""Tokens that a state must save to be worth keeping, or waiting for."""


class StateKeeper(Keeper):
    """A keeper for memory of the kind STATES."""

    def __init__(self, engine: Engine, cache: StateCache, cost: StepCost, *, files: PrefixFiles | None = None) -> None:
        """Blocks while the list of `files` is read."""
        super().__init__(engine, cache, cost, files)
        self.cache = cache
        for key, header in self._shelf.open():
            segment = self.cache.attach(header.root, header.tokens)
            self._shelf.place(key, segment)
            if segment.key != key or header.start:
                self._shelf.lose(segment)
                self.cache.lose_file(segment)

    def wait_for(self, sequence: Sequence, now: int) -> Wait | None:
        if sequence.starts_alone:
            return None
        limit = len(sequence.tokens) - 1
        found = self.cache.find(sequence.request.cache_scope, sequence.tokens, limit)
        ready = 0 if found is None else found.end
        for donor in self.running.values():
            shared = min(self._shared(sequence, donor), limit)
            if donor.computed < shared and shared >= ready + MIN_STATE and self._is_ahead(donor, sequence):
                if shared not in donor.stops:
                    donor.stops.append(shared)
                return Wait()
        if found is not None and found.state is None:
            until = self._read_until(sequence, found.end, now)
            if now < until:
                self._shelf.fetch([found])
                return Wait(until)
        return None

    def grown(self, sequence: Sequence, count: int) -> None:
        super().grown(sequence, count)
        if sequence.computed in sequence.stops:
            self._save(sequence)

    def release(self, sequence: Sequence) -> None:
        if not sequence.faults:
            self._save(sequence)
        super().release(sequence)

    def park(self, sequence: Sequence) -> None:
        self._save(sequence)
        super().park(sequence)

    def _fill(self, sequence: Sequence, sequence_id: int) -> CachedTokens:
        scope, limit = sequence.request.cache_scope, len(sequence.tokens) - 1
        places = {*self.cache.branches(scope, sequence.tokens), sequence.prompt_tokens - 1, *sequence.stops}
        found = None if sequence.starts_alone else self.cache.find(scope, sequence.tokens, limit)
        restored = 0
        if found is not None and found.state is not None:
            if self.engine.restore(sequence_id, found.state, 0, found.end):
                self.ledger.grow(sequence_id, found.end)
                restored = found.end
            else:
                self.cache.drop_state(found)
                self._lose_file(found)
                found = None
        self.cache.use(found if restored else None)
        sequence.stops = [place for place in places if max(restored, MIN_STATE - 1) < place <= limit]
        if not restored or found is None:
            return CachedTokens()
        self._shelf.touch([found])
        if found.is_from_disk:
            found.is_from_disk = False
            return CachedTokens(disk=restored)
        return CachedTokens(memory=restored)

    def _save(self, sequence: Sequence) -> None:
        """Keep the state as it is now, if it is worth it and nothing of the kind is kept."""
        assert sequence.sequence_id is not None
        if sequence.computed < MIN_STATE or not self.cache.memory_bytes:
            return
        tokens, scope = sequence.tokens[: sequence.computed], sequence.request.cache_scope
        known = self.cache.find(scope, tokens, len(tokens))
        if known is not None and known.end == len(tokens) and known.state is not None:
            return
        segment = self.cache.add(scope, tokens, self.engine.save(sequence.sequence_id, 0, sequence.computed))
        if segment is not None and segment.parent is not None:
            self._shelf.write(segment, segment.parent.key)
