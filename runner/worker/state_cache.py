"""Kept states that stand for whole sequences: the longest that a prompt begins with is of use, others are not.

Pure bookkeeping, as `prefix_cache.py` is for memory that can be cut.
"""

from __future__ import annotations

from runner.worker.prefix_cache import Segment, scope_key, shared_length


class StateCache:
    """A list of segments that all begin at 0, with a budget in bytes for those in memory.

    As with ranges, what goes first is what is oldest in proportion to the tokens it saves.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.memory_used = 0
        self._roots: dict[bytes, Segment] = {}
        self._kept: dict[Segment, None] = {}
        self._uses = 0

    def __len__(self) -> int:
        """States in memory."""
        return sum(segment.state is not None for segment in self._kept)

    def root_of_key(self, key: bytes) -> Segment:
        if key not in self._roots:
            self._roots[key] = Segment(None, 0, [], key)
        return self._roots[key]

    def find(self, scope: str, tokens: list[int], limit: int) -> Segment | None:
        """The longest state, in memory or on disk, of which `tokens[:limit]` is the same or a continuation."""
        best: Segment | None = None
        for segment in self._of(scope):
            if (best is None or segment.end > best.end) and segment.end <= limit and _begins(tokens, segment):
                best = segment
        return best

    def branches(self, scope: str, tokens: list[int]) -> set[int]:
        """Where kept sequences and this one part: a state there would have been of use."""
        return {shared_length(segment.tokens, tokens) for segment in self._of(scope)}

    def add(self, scope: str, tokens: list[int], state: memoryview) -> Segment | None:
        """Keep a state for exactly `tokens`; None when it was kept already or has no place."""
        root = self.root_of_key(scope_key(scope))
        for segment in self._of(scope):
            if segment.end == len(tokens) and segment.tokens == tokens:
                return segment if segment.state is None and self.put(segment, state) else None
        segment = Segment(root, 0, tokens)
        return segment if self.put(segment, state) else None

    def attach(self, root: bytes, tokens: list[int]) -> Segment:
        """A segment that is only on disk."""
        segment = Segment(self.root_of_key(root), 0, tokens)
        self._kept[segment] = None
        return segment

    def put(self, segment: Segment, state: memoryview) -> bool:
        """Keep a segment's state in memory, if the budget has a place for it."""
        if segment.state is not None:
            return True
        segment.last_used = self._uses
        while self.memory_used + len(state) > self.memory_bytes:
            held = [one for one in self._kept if one.state is not None]
            oldest = max(held, key=self._claim_lost, default=None)
            if len(state) > self.memory_bytes or oldest is None:
                return False
            if self._claim_lost(oldest) < self._claim_lost(segment):
                return False
            self.drop_state(oldest)
        segment.state = state
        self.memory_used += len(state)
        self._kept[segment] = None
        return True

    def use(self, segment: Segment | None) -> None:
        """Note that one request used this state, or none; each call makes all others older."""
        self._uses += 1
        if segment is not None:
            segment.last_used = self._uses

    def drop_state(self, segment: Segment) -> None:
        if segment.state is not None:
            self.memory_used -= len(segment.state)
            segment.state = None
        if not segment.is_on_disk:
            self._kept.pop(segment, None)

    def lose_file(self, segment: Segment) -> None:
        segment.is_on_disk = False
        if segment.state is None:
            self._kept.pop(segment, None)

    def _of(self, scope: str) -> list[Segment]:
        root = self._roots.get(scope_key(scope))
        return [segment for segment in self._kept if segment.parent is root]

    def _claim_lost(self, segment: Segment) -> float:
        return (self._uses - segment.last_used + 1) / segment.end


def _begins(tokens: list[int], segment: Segment) -> bool:
    return tokens[: segment.end] == segment.tokens
