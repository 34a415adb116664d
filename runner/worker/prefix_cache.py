"""A tree over token prefixes: which beginnings of prompts are kept as saved states, and which go first.

A node is a segment: consecutive tokens and what was saved for them. A prompt that leaves a segment
in its middle still gets credit up to there, because of a saved range any part can be used; and what
follows hangs on the segment at that place, so nothing is ever divided.

Pure bookkeeping: states are opaque, and who moves them in and out of the engine is `keeper.py`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence

from runner.worker.stand_ins import whole_end

_COMPARED_AT_ONCE = 64


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences of the same type begin with in common."""
    shorter = min(len(one), len(other))
    place = 0
    while place < shorter and one[place : place + _COMPARED_AT_ONCE] == other[place : place + _COMPARED_AT_ONCE]:
        place += _COMPARED_AT_ONCE
    while place < shorter and one[place] == other[place]:
        place += 1
    return min(place, shorter)


def scope_key(scope: str) -> bytes:
    """The name of a scope in keys and files, which tells nothing of it."""
    return hashlib.blake2b(scope.encode(), digest_size=20, person=b"puna scope").digest()


class Segment:
    """Tokens from `start` to `end` behind those of its parents, and their state where it is kept."""

    __slots__ = (
        "_children",
        "_key",
        "children_in_memory",
        "is_from_disk",
        "is_on_disk",
        "last_used",
        "parent",
        "start",
        "state",
        "tokens",
    )

    def __init__(self, parent: Segment | None, start: int, tokens: list[int], key: bytes = b"") -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.state: memoryview | None = None
        self.is_on_disk = False
        self.is_from_disk = False
        """The state was read from its file and not used since."""
        self.last_used = 0
        self.children_in_memory = 0
        self._children: dict[tuple[int, int], Segment] = {}
        self._key = key

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def size(self) -> int:
        return 0 if self.state is None else len(self.state)

    @property
    def key(self) -> bytes:
        """A name for exactly these tokens behind exactly those of the parents, the same in every process."""
        if not self._key:
            assert self.parent is not None
            digest = hashlib.blake2b(self.parent.key, digest_size=20)
            digest.update(self.start.to_bytes(8, "little"))
            digest.update(array("q", self.tokens).tobytes())
            self._key = digest.digest()
        return self._key


class PrefixCache:
    """The tree, one root for each scope, with a budget in bytes for states in memory.

    What goes first when the budget is spent: of the segments that nothing in memory continues, the
    one whose age, counted in uses of the cache, is largest in proportion to the length of the prefix
    it completes. So a conversation of 8,000 tokens outlives fifty times as many other requests as
    one of 160 tokens does, and a burst of short ones pushes out itself.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.memory_used = 0
        self.version = 0
        """Changes when a lookup may find something else than before."""
        self._roots: dict[bytes, Segment] = {}
        self._in_memory: dict[Segment, None] = {}
        self._uses = 0

    def __len__(self) -> int:
        """Segments whose state is in memory."""
        return len(self._in_memory)

    def root(self, scope: str) -> Segment:
        """Where the prefixes of a scope begin; scopes share nothing."""
        return self.root_of_key(scope_key(scope))

    def root_of_key(self, key: bytes) -> Segment:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Segment(None, 0, [], key)
        return root

    def root_key(self, segment: Segment) -> bytes:
        while segment.parent is not None:
            segment = segment.parent
        return segment.key

    def forget_empty(self) -> None:
        """Forget the segments that keep nothing and lead to nothing."""
        for root in self._roots.values():
            for segment in _leaves(root):
                self._prune(segment)

    def match(self, scope: str, tokens: list[int], limit: int) -> list[tuple[Segment, int]]:
        """The way through the tree that `tokens` take: each segment and up to which position it is theirs.

        No position is beyond `limit`. The segments may have lost their states.
        """
        way: list[tuple[Segment, int]] = []
        segment, place = self.root(scope), 0
        while place < limit:
            child = segment._children.get((place, tokens[place]))
            if child is None:
                break
            place += shared_length(child.tokens, tokens[place : min(child.end, limit)])
            way.append((child, place))
            segment = child
        return way

    def find(self, scope: str, tokens: list[int], limit: int) -> list[tuple[Segment, int]]:
        """What of the way can be restored: segments that are in memory or on disk, without a gap from the start."""
        way = self.match(scope, tokens, limit)
        for number, (segment, _) in enumerate(way):
            if not _is_kept(segment):
                return way[:number]
        return way

    def next_missing(self, scope: str, tokens: list[int], length: int, most: int) -> tuple[int, int] | None:
        """The next range of `tokens[:length]` that is to be saved; None when all is kept.

        It is at most `most` long, but for an image that cannot be cut.
        """
        found = self.find(scope, tokens, length)
        start = found[-1][1] if found else 0
        if start == length:
            return None
        for segment, end in self.match(scope, tokens, length):
            if segment.start == start and not _is_kept(segment):
                # It lost its state and leads to others, so it has to come back as it was.
                return (start, end) if end == segment.end else None
        return start, min(whole_end(tokens, start, most), length)

    def add(self, scope: str, tokens: list[int], start: int, end: int, state: memoryview) -> Segment | None:
        """Keep the state of `tokens[start:end]`, whose predecessors are kept; others may have to go for it.

        `tokens` is the whole sequence, and its length tells what the state is worth. None when
        there is no place for it.
        """
        way = self.match(scope, tokens, end)
        parent = self.root(scope) if start == 0 else next((one for one, to in way if one.start < start <= to), None)
        if parent is None:
            return None
        segment = self.attach(parent, start, tokens[start:end])
        if segment.tokens != tokens[start:end]:
            return None
        if not self.put(segment, state, worth=len(tokens)):
            self._prune(segment)
            return None
        return segment

    def attach(self, parent: Segment, start: int, tokens: list[int]) -> Segment:
        """A segment without a state behind position `start` of `parent`; the one that is there if it is."""
        assert parent.start < start <= parent.end or (parent.parent is None and start == 0)
        segment = parent._children.get((start, tokens[0]))
        if segment is None:
            segment = parent._children[start, tokens[0]] = Segment(parent, start, tokens)
            segment.last_used = self._uses
            self.version += 1
        return segment

    def put(self, segment: Segment, state: memoryview, *, worth: int = 0) -> bool:
        """Keep a segment's state in memory, if the budget has a place for it.

        `worth` is how long the prefix is that the segment is a part of, if that is longer than its end.
        """
        if segment.state is not None:
            return True
        segment.last_used = self._uses
        if not self._make_room(len(state), segment, 1 / max(worth, segment.end)):
            return False
        segment.state = state
        self.memory_used += len(state)
        self._in_memory[segment] = None
        if segment.parent is not None:
            segment.parent.children_in_memory += 1
        self.version += 1
        return True

    def use(self, segments: Sequence[Segment]) -> None:
        """Note that one request used these segments, if any; each call makes all others older."""
        self._uses += 1
        for segment in segments:
            segment.last_used = self._uses
            for ancestor in _ancestors(segment):
                ancestor.last_used = self._uses

    def lose_file(self, segment: Segment) -> None:
        """The segment's file is gone or was damaged."""
        segment.is_on_disk = False
        self.version += 1
        self._prune(segment)

    def drop_state(self, segment: Segment) -> None:
        """Let a state in memory go."""
        if segment.state is None:
            return
        self.memory_used -= len(segment.state)
        segment.state = None
        del self._in_memory[segment]
        if segment.parent is not None:
            segment.parent.children_in_memory -= 1
        self.version += 1
        self._prune(segment)

    def _make_room(self, size: int, newcomer: Segment, claim_lost: float) -> bool:
        """Let go of what has lost more of its claim than the newcomer; whether there is a place then."""
        needed_by_newcomer = set(_ancestors(newcomer))
        while self.memory_used + size > self.memory_bytes:
            leaves = [one for one in self._in_memory if not one.children_in_memory and one not in needed_by_newcomer]
            oldest = max(leaves, key=self._claim_lost, default=None)
            if size > self.memory_bytes or oldest is None or self._claim_lost(oldest) < claim_lost:
                return False
            self.drop_state(oldest)
        return True

    def _claim_lost(self, segment: Segment) -> float:
        return (self._uses - segment.last_used + 1) / segment.end

    def _prune(self, segment: Segment) -> None:
        """Forget segments that keep nothing and lead to nothing."""
        while segment.parent is not None and not _is_kept(segment) and not segment._children:
            place = segment.start, segment.tokens[0]
            if segment.parent._children.get(place) is not segment:
                return  # forgotten before
            del segment.parent._children[place]
            segment = segment.parent


def _leaves(segment: Segment) -> list[Segment]:
    leaves, unseen = [], [segment]
    while unseen:
        segment = unseen.pop()
        unseen += segment._children.values()
        if not segment._children:
            leaves.append(segment)
    return leaves


def _ancestors(segment: Segment) -> Iterator[Segment]:
    ancestor = segment.parent
    while ancestor is not None:
        yield ancestor
        ancestor = ancestor.parent


def _is_kept(segment: Segment) -> bool:
    return segment.state is not None or segment.is_on_disk
