"""A draft model that guesses what a FakeEngine will say, wrong at times; checks the bookkeeping like that one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from runner.draft_model import DraftChunk, Guess
from runner.engine import EngineFault, OutOfCells
from tests.fake_engine import ALPHABET, FakeEngine


class FakeDraft:
    """Implements `runner.draft_model.DraftModel` for an engine, whose clock its steps move on."""

    def __init__(
        self,
        engine: FakeEngine,
        *,
        wrong_of_ten: int = 1,
        step_ns: int = 20_000,
        room: int = 2000,
        longest: int = 2000,
        vocabulary: int = len(ALPHABET),
        failures: int = 0,
    ) -> None:
        self.native_ns = 0
        self.vocabulary = vocabulary
        self.room = room
        self.longest = longest
        self.max_rows = 64
        self.steps: list[list[DraftChunk]] = []
        self.cells: dict[int, list[list[int]]] = {}
        """Of each sequence: its cells, each with one token; shared ones are the same object."""
        self.failures = failures
        self._engine = engine
        self._wrong_of_ten = wrong_of_ten
        self.step_ns = step_ns

    @property
    def used(self) -> int:
        return len({id(cell) for cells in self.cells.values() for cell in cells})

    def step(self, chunks: Sequence[DraftChunk]) -> list[Guess]:
        assert chunks and all(chunk.tokens for chunk in chunks), "an empty step"
        assert sum(len(chunk.tokens) for chunk in chunks) <= self.max_rows, "more rows than a step holds"
        assert len({chunk.sequence_id for chunk in chunks}) == len(chunks), "a sequence twice in one step"
        if self.failures:
            self.failures -= 1
            raise EngineFault("told to fail")
        if self.used + sum(len(chunk.tokens) for chunk in chunks) > self.room:
            raise OutOfCells
        self.steps.append(list(chunks))
        self._engine.now_ns += self.step_ns
        guesses = []
        for chunk in chunks:
            cells = self.cells.setdefault(chunk.sequence_id, [])
            assert chunk.start == len(cells), "a chunk that does not continue its sequence"
            assert all(0 <= token < self.vocabulary for token in chunk.tokens), "what it cannot read"
            cells += [[token] for token in chunk.tokens]
            assert len(cells) <= self.longest
            if chunk.is_asked:
                guesses.append(self._guess([token for [token] in cells]))
        return guesses

    def remove(self, sequence_id: int) -> None:
        self.cells.pop(sequence_id, None)

    def cut(self, sequence_id: int, length: int) -> None:
        del self.cells[sequence_id][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.cells.get(target), "the target holds something already"
        assert length <= len(self.cells[source]), "what was not computed cannot be shared"
        self.cells[target] = self.cells[source][:length]

    def resize(self, window: int) -> None:
        self.cells.clear()
        self.room = window

    def _guess(self, held: list[int]) -> Guess:
        token = self._engine.next_token(held)
        digest = hashlib.blake2b(bytes(held), digest_size=2, salt=b"draft").digest()
        if int.from_bytes(digest, "big") % 10 < self._wrong_of_ten:
            token = (token + 1) % len(ALPHABET)
        return Guess(min(token, len(ALPHABET) - 1), 0.7)
