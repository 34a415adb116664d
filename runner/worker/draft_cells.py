"""What a draft model holds of each sequence, kept in step with it, and guesses for several at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from runner.draft_model import DraftChunk, DraftModel, Guess
from runner.engine import EngineFault, OutOfCells
from runner.worker.ledger import CellLedger
from runner.worker.prefix_cache import shared_length
from runner.worker.sequence import Sequence
from runner.worker.step_cost import StepCost

logger = logging.getLogger(__name__)

_MIN_SHARED = 16
_MOST_FAILURES = 3
"""A draft model that failed so often is not asked any more."""


@dataclass(slots=True)
class _Held:
    """A sequence of the draft model."""

    sequence_id: int
    tokens: list[int] = field(default_factory=list)
    """Those that have cells; the last of them may be guesses that were wrong."""
    known: int = 0
    """So many of them are certainly those of the sequence."""


class DraftCells:
    """Owns the sequences of a draft model. Used on the engine thread only.

    Nothing that fails here fails an answer: what the draft model held is forgotten, and after some
    failures it is left alone.
    """

    def __init__(self, model: DraftModel, ids: int, clock: Callable[[], int]) -> None:
        self._model = model
        self._clock = clock
        self._ledger = CellLedger()
        self._held: dict[Sequence, _Held] = {}
        self._free_ids = list(range(ids))
        self._failures = 0
        self.cost = StepCost()
        """What a step of the draft model takes."""

    @property
    def used(self) -> int:
        return self._ledger.used

    def can_guess(self, sequence: Sequence, count: int) -> bool:
        """Whether a sequence with so many guesses is not too long, and the draft model still works."""
        return self._failures < _MOST_FAILURES and len(sequence.tokens) + count <= self._model.longest

    def behind(self, sequence: Sequence) -> int:
        """Tokens to compute before the next one can be guessed; at least one."""
        held = self._held.get(sequence)
        return max(len(sequence.tokens) - (0 if held is None else len(held.tokens)), 1)

    def guess(
        self, wanted: Mapping[Sequence, int], rows: int, goes_on: Callable[[Sequence, Guess], bool]
    ) -> dict[Sequence, list[Guess]]:
        """Guess so many tokens for each, one step for all of them at a time; fewer where one does not go on.

        At most `rows` tokens are computed to catch up; who is not done with that, or finds no room, gets no
        guesses this time.
        """
        self.let_go(sequence for sequence in self._held if sequence.sequence_id is None)
        found: dict[Sequence, list[Guess]] = {}
        try:
            asked, chunks = self._catch_up(wanted, rows)
            while chunks:
                guesses = self._step(chunks)
                for sequence, guess in zip(asked, guesses, strict=True):
                    found.setdefault(sequence, []).append(guess)
                asked = [one for one in asked if len(found[one]) < wanted[one] and goes_on(one, found[one][-1])]
                chunks = [self._chunk(sequence, [found[sequence][-1].token]) for sequence in asked]
        except (OutOfCells, EngineFault) as fault:
            self._failures += 1
            logger.warning("the draft model failed (%s)", fault or "no cells")
            self.let_go(list(self._held))
            return {}
        return found

    def let_go(self, sequences: Iterable[Sequence]) -> None:
        """Forget all that is held of them."""
        for sequence in list(sequences):
            held = self._held.pop(sequence, None)
            if held is not None:
                self._model.remove(held.sequence_id)
                self._ledger.remove(held.sequence_id)
                self._free_ids.append(held.sequence_id)

    def restart(self, window: int) -> None:
        """Forget everything and have room for a window of so many tokens."""
        self.let_go(list(self._held))
        self._model.resize(window)

    def _catch_up(self, wanted: Mapping[Sequence, int], rows: int) -> tuple[list[Sequence], list[DraftChunk]]:
        """Chunks of what the draft model has yet to read, the shortest first, and who can be guessed for then."""
        asked: list[Sequence] = []
        chunks: list[DraftChunk] = []
        left = self._model.max_rows
        rest = {sequence: self._unread(sequence) for sequence in wanted}
        room = self._model.room - self._ledger.used
        for sequence in sorted(rest, key=lambda one: len(rest[one])):
            unread = rest[sequence]
            if self._will_be_read(sequence, [one.sequence_id for one in chunks]):
                self.let_go([sequence])
                continue
            needed = len(unread) + wanted[sequence]
            if needed > room or max(unread) >= self._model.vocabulary:
                continue
            room -= needed
            count = min(len(unread), left, max(rows, 1))
            if not count:
                break
            is_asked = count == len(unread)
            chunks.append(self._chunk(sequence, unread[:count], is_asked=is_asked))
            left, rows = left - count, rows - count + is_asked
            if is_asked:
                asked.append(sequence)
        return asked, chunks

    def _will_be_read(self, sequence: Sequence, reading: list[int]) -> bool:
        """Whether a sequence that holds nothing yet can share, next time, what is read now."""
        if self._held[sequence].tokens:
            return False
        others = [one for one in self._may_share_with(sequence) if one.sequence_id in reading]
        return any(shared_length(one.tokens, sequence.text_tokens) >= _MIN_SHARED for one in others)

    def _unread(self, sequence: Sequence) -> list[int]:
        """The tokens without cells; cells of guesses that were wrong are cut."""
        tokens = sequence.text_tokens
        held = self._held.get(sequence)
        if held is None:
            held = self._held[sequence] = self._begin(sequence)
        same, most = held.known, min(len(held.tokens), len(tokens) - 1)
        while same < most and held.tokens[same] == tokens[same]:
            same += 1
        same = min(same, most)
        if same < len(held.tokens):
            self._model.cut(held.sequence_id, same)
            self._ledger.cut(held.sequence_id, same)
            del held.tokens[same:]
        held.known = same
        return tokens[same:]

    def _begin(self, sequence: Sequence) -> _Held:
        """A sequence that shares the cells of the one that begins most like it."""
        tokens = sequence.text_tokens
        held = _Held(self._free_ids.pop())
        shared = {other.sequence_id: shared_length(other.tokens, tokens) for other in self._may_share_with(sequence)}
        donor = max(shared, key=shared.__getitem__, default=None)
        if donor is not None and shared[donor] >= _MIN_SHARED:
            self._model.copy(donor, held.sequence_id, shared[donor])
            self._ledger.copy(donor, held.sequence_id, shared[donor])
            held.tokens = tokens[: shared[donor]]
            held.known = shared[donor]
        return held

    def _may_share_with(self, sequence: Sequence) -> list[_Held]:
        """What is held of others in its scope."""
        scope = sequence.request.cache_scope
        return [held for other, held in self._held.items() if other.request.cache_scope == scope]

    def _chunk(self, sequence: Sequence, tokens: list[int], *, is_asked: bool = True) -> DraftChunk:
        held = self._held[sequence]
        start = len(held.tokens)
        held.tokens += tokens
        self._ledger.grow(held.sequence_id, len(tokens))
        return DraftChunk(held.sequence_id, start, tokens, is_asked)

    def _step(self, chunks: list[DraftChunk]) -> list[Guess]:
        began = self._clock()
        guesses = self._model.step(chunks)
        self.cost.observe(sum(len(chunk.tokens) for chunk in chunks), self._ledger.used, self._clock() - began)
        return guesses
