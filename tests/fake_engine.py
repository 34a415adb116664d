"""An engine without a model: the next token is a function of exactly the tokens its cells hold.

A scheduler that computes a token twice, at a wrong place, or for the wrong sequence changes the
text, so comparing texts shows whether the bookkeeping is right.
"""

from __future__ import annotations

import array
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from runner.adapters import AdapterSet
from runner.draft_model import DraftModel
from runner.engine import (
    SOLO_ROWS,
    Chunk,
    CompiledConstraint,
    EncodingChunk,
    EncodingInput,
    EngineFault,
    InsertTokens,
    MediaChunk,
    MediaInput,
    MediaPiece,
    MediaVectors,
    Move,
    OutOfCells,
    SamplerPlan,
    TokenScore,
    Window,
)
from runner.loaded_model import Encoding, LoadedModel, MemoryKind, Pooling
from runner.sampling import Constraint

ALPHABET = "abcdefghijklmnopqrstuvwxyz ."
END = len(ALPHABET)
CHAT_TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}.{% endfor %}a:"


class FakeSampler:
    """Says of each token what it was told to."""

    def __init__(self, plan: SamplerPlan) -> None:
        self.plan = plan
        self.score: TokenScore | None = None
        self.is_complete = False
        self.failure: str | None = None
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True


class Cell:
    """One token at one place; sequences may share it."""

    __slots__ = ("position", "token")

    def __init__(self, position: int, token: int) -> None:
        self.position = position
        self.token = token


class FakeEngine:
    """Checks what it is asked, and records it in `steps`.

    `cells` has the cells of each sequence id in order; with MemoryKind.STATES they stand for one
    state, which cannot be cut, shared or saved in part.
    """

    def __init__(
        self,
        *,
        cells: int = 64,
        max_sequences: int = 4,
        max_rows: int = 16,
        ends_every: int = 0,
        fault: Callable[[Sequence[Chunk]], bool] = lambda _chunks: False,
        hidden_cells: int = 0,
        memory: MemoryKind = MemoryKind.CELLS,
        resting: int = 2,
        longest: int = 0,
        forgets_when_growing: bool = False,
        step_ns: Callable[[int, int], int] = lambda _rows, _cells: 1000,
        reads_whole: bool = False,
        vector_of: Callable[[Sequence[int]], list[float]] = lambda tokens: [float(len(tokens)), float(sum(tokens))],
    ) -> None:
        self.native_ns = 0
        self.draft: DraftModel | None = None
        self.beside_bytes = 0
        """For each token of a context beside the main one."""
        self.growths: list[tuple[int, int]] = []
        self._forgets_when_growing = forgets_when_growing
        self.cells: dict[int, list[Cell]] = {}
        self.steps: list[list[Chunk]] = []
        self.saves: list[tuple[int, int]] = []
        self.restores: list[tuple[int, int]] = []
        self.samplers: list[FakeSampler] = []
        self.solo_chunks: list[int] = []
        self.loaded_adapters: set[str] = set()
        self.adapters_in_use: AdapterSet = ()
        self.encoding_steps: list[list[EncodingChunk]] = []
        self.encoding_room = 0
        self.encoding_rows = max_rows
        self._reads_whole = reads_whole
        self._vector_of = vector_of
        self._inputs: dict[int, list[int]] = {}
        self.now_ns = 0
        """A clock that only steps move: by what `step_ns` says for their rows and the cells in use."""
        self.step_times: list[int] = []
        self._step_ns = step_ns
        self._capacity = cells
        self._hidden_cells = hidden_cells
        self._ends_every = ends_every
        self._fault = fault
        self._info = LoadedModel(
            architecture="fake",
            engine="fake",
            context_length=cells,
            training_context=cells,
            max_sequences=max_sequences,
            vocabulary=len(ALPHABET) + 1,
            size=0,
            size_vram=0,
            layers=1,
            gpu_layers=0,
            devices=(),
            placement="nowhere",
            threads=1,
            has_chat_template=True,
            can_shift=True,
            max_rows=max_rows,
            memory=memory,
            encoding=Encoding(Pooling.MEAN, 2, max(cells, longest), is_whole=reads_whole),
            longest_context=longest,
            resting_ids=()
            if memory is MemoryKind.STATES
            else tuple(range(max_sequences + 1, max_sequences + 1 + resting)),
        )

    @property
    def info(self) -> LoadedModel:
        return self._info

    @property
    def chat_template(self) -> str | None:
        return CHAT_TEMPLATE

    @property
    def template_tokens(self) -> dict[str, str]:
        return {}

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ALPHABET.index(character) if character in ALPHABET else 0 for character in text]

    @property
    def longest_token(self) -> int:
        return 1

    @property
    def insert_tokens(self) -> InsertTokens | None:
        return None

    def token_bytes(self, token: int) -> bytes:
        return ALPHABET[token].encode()

    def written(self, token: int) -> bytes:
        return b"<end>" if token == END else self.token_bytes(token)

    def ends_generation(self, token: int) -> bool:
        return token == END

    def compile_constraint(self, constraint: Constraint) -> CompiledConstraint:
        return constraint

    def create_sampler(self, plan: SamplerPlan, prompt: Sequence[int]) -> FakeSampler:
        sampler = FakeSampler(plan)
        self.samplers.append(sampler)
        return sampler

    def set_threads(self, count: int) -> None:
        assert 1 <= count <= self._info.threads
        self.threads = count

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        assert chunks and all(chunk.tokens for chunk in chunks), "an empty step"
        assert sum(len(chunk.tokens) for chunk in chunks) <= self._info.max_rows, "more rows than a step holds"
        assert len({chunk.sequence_id for chunk in chunks}) == len(chunks), "a sequence twice in one step"
        if self.used + sum(len(chunk.tokens) for chunk in chunks) > self._capacity - self._hidden_cells:
            raise OutOfCells
        if self._fault(chunks):
            raise EngineFault("told to fail")
        self.steps.append(list(chunks))
        tokens = []
        for chunk in chunks:
            assert 0 <= chunk.sequence_id < self._info.max_sequences
            cells = self.cells.setdefault(chunk.sequence_id, [])
            assert chunk.start == len(cells), "a chunk that does not continue its sequence"
            cells.extend(Cell(chunk.start + offset, token) for offset, token in enumerate(chunk.tokens))
            if chunk.sampler is not None:
                tokens.append(self.sample_next(chunk, 0))
        self.step_times.append(self._step_ns(sum(len(chunk.tokens) for chunk in chunks), self.used))
        self.now_ns += self.step_times[-1]
        return tokens

    def make_window(self, size: int) -> Window:
        return size

    def move_into(self, window: Window, moves: Sequence[Move]) -> bool:
        assert isinstance(window, int)
        assert window > self._capacity, "a window that is not larger"
        self.growths.append((self._capacity, window))
        before, self.cells, self._capacity = self.cells, {}, window
        self._info = msgspec.structs.replace(self._info, context_length=window)
        if self._forgets_when_growing:
            return False
        for move in moves:
            held = before[move.sequence_id]
            assert len(held) == move.length, "a sequence that holds something else"
            if move.donor is not None:
                self.copy(move.donor, move.sequence_id, move.shared)
            mine = self.cells.setdefault(move.sequence_id, [])
            assert [cell.token for cell in mine] == [cell.token for cell in held[: move.shared]], "another's cells"
            mine += [Cell(cell.position, cell.token) for cell in held[move.shared :]]
        assert {name for name, held in before.items() if held} == set(self.cells), "somebody was left behind"
        assert self.used <= len({id(cell) for cells in before.values() for cell in cells}), "what was shared is not"
        return True

    def load_adapters(self, adapters: AdapterSet) -> None:
        self.loaded_adapters.update(use.digest for use in adapters)

    def use_adapters(self, adapters: AdapterSet) -> None:
        assert all(use.digest in self.loaded_adapters for use in adapters), "used before it was loaded"
        self.adapters_in_use = adapters

    def sample_next(self, chunk: Chunk, right: int) -> int:
        held = [cell.token for cell in self.cells[chunk.sequence_id]]
        assert held[chunk.start :] == list(chunk.tokens), "the guesses are gone already"
        assert right <= chunk.drafted < len(chunk.tokens)
        return self.next_token(held[: len(held) - chunk.drafted + right])

    def solo_memory(self, end: int, most: int) -> int:
        return end * self.beside_bytes

    def encoding_memory(self, tokens: int) -> int:
        return tokens * self.beside_bytes

    def begin_solo(self, window: int) -> None:
        self.solo_window = window
        self.solo: list[int] = []

    @property
    def media_marker(self) -> str:
        raise AssertionError("there is no projector")

    def tokenize_media(
        self, text: str, media: Sequence[MediaInput], *, add_special: bool
    ) -> list[list[int] | MediaPiece]:
        raise AssertionError("there is no projector")

    def encode_media(self, piece: MediaPiece) -> MediaVectors:
        raise AssertionError("there is no projector")

    def step_media(self, chunk: MediaChunk) -> int | None:
        raise AssertionError("there is no projector")

    def step_solo(self, chunk: Chunk) -> int | None:
        assert chunk.start == len(self.solo), "a chunk that does not continue its sequence"
        assert 0 < len(chunk.tokens) <= SOLO_ROWS
        assert chunk.start + len(chunk.tokens) <= self.solo_window
        self.solo += chunk.tokens
        self.solo_chunks.append(len(chunk.tokens))
        self.now_ns += 1000
        return None if chunk.sampler is None else self.next_token(self.solo)

    def tokenize_whole(self, text: str, *, parse_special: bool) -> EncodingInput:
        return EncodingInput([*self.tokenize(text, add_special=True, parse_special=parse_special), END], 0, 1)

    def tokenize_pair(self, query: str, document: str) -> EncodingInput:
        first, second = (self.tokenize(text, add_special=False, parse_special=False) for text in (query, document))
        return EncodingInput([*first, END, *second, END], len(first) + 1, 1)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return b"".join(self.written(token) for token in tokens).decode()

    def prepare_encoding(self, tokens: int) -> None:
        assert tokens <= self._capacity
        self._inputs.clear()
        self.encoding_room = max(self.encoding_room, tokens)
        if self._reads_whole:
            self.encoding_rows = self.encoding_room

    def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        assert chunks and all(chunk.tokens for chunk in chunks), "an empty step"
        assert sum(len(chunk.tokens) for chunk in chunks) <= self.encoding_rows, "more rows than a step holds"
        self.encoding_steps.append(list(chunks))
        self.now_ns += self._step_ns(sum(len(chunk.tokens) for chunk in chunks), 0)
        vectors: list[array.array[float] | None] = []
        for chunk in chunks:
            assert chunk.is_last or not self._reads_whole, "a piece for a model that wants the whole"
            held = self._inputs.setdefault(chunk.slot, [])
            if chunk.start == 0:
                held.clear()
            assert chunk.start == len(held), "a chunk that does not continue its input"
            held += chunk.tokens
            vectors.append(array.array("f", self._vector_of(held)) if chunk.is_last else None)
        if sum(len(held) for held in self._inputs.values()) > self.encoding_room:
            raise OutOfCells
        for chunk in chunks:
            if chunk.is_last:
                del self._inputs[chunk.slot]
        return vectors

    @property
    def used(self) -> int:
        """Cells that hold anything; one that is shared counts once."""
        return len({id(cell) for cells in self.cells.values() for cell in cells})

    def next_token(self, held: Sequence[int]) -> int:
        value = int.from_bytes(hashlib.blake2b(bytes(held), digest_size=4).digest(), "big")
        if self._ends_every and value % self._ends_every == 0:
            return END
        return value % len(ALPHABET)

    def answer(self, prompt: Sequence[int], count: int) -> str:
        """The text that follows `prompt` when nothing else runs."""
        held, text = list(prompt), ""
        for _ in range(count):
            token = self.next_token(held)
            if token == END:
                break
            held.append(token)
            text += ALPHABET[token]
        return text

    def remove(self, sequence_id: int) -> None:
        self.cells.pop(sequence_id, None)

    def cut(self, sequence_id: int, length: int) -> None:
        assert self._info.memory is MemoryKind.CELLS, "a state cannot be cut"
        del self.cells[sequence_id][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        assert self._info.memory is MemoryKind.CELLS, "a part of a state cannot be shared"
        assert not self.cells.get(target), "the target holds something already"
        assert target < self._info.max_sequences or target in self._info.resting_ids
        assert length <= len(self.cells[source]), "what was not computed cannot be shared"
        self.cells[target] = self.cells[source][:length]

    @property
    def state_format(self) -> str:
        return "fake"

    def save(self, sequence_id: int, start: int, end: int) -> memoryview:
        held = self.cells[sequence_id]
        assert 0 <= start < end <= len(held), "what is not there cannot be saved"
        if self._info.memory is MemoryKind.STATES:
            assert (start, end) == (0, len(held)), "a state is saved whole"
        self.saves.append((start, end))
        numbers = [start, *(cell.token for cell in held[start:end])]
        return memoryview(b"".join(number.to_bytes(4, "little") for number in numbers))

    def restore(self, sequence_id: int, state: memoryview, start: int, end: int) -> bool:
        assert sequence_id < self._info.max_sequences
        numbers = [int.from_bytes(state[place : place + 4], "little") for place in range(0, len(state), 4)]
        first, tokens = numbers[0], numbers[1:]
        if self._info.memory is MemoryKind.STATES:
            self.remove(sequence_id)
            assert (start, end) == (first, first + len(tokens)), "a state is restored whole"
        held = self.cells.get(sequence_id, [])
        assert len(held) == start, "restored out of order"
        assert first <= start < end <= first + len(tokens), "a range that the state does not hold"
        if self.used + len(tokens) > self._capacity - self._hidden_cells:
            return False
        self.restores.append((start, end))
        self.cells[sequence_id] = held + [Cell(place, tokens[place - first]) for place in range(start, end)]
        return True

    def shift(self, sequence_id: int, keep: int, discard: int) -> None:
        held = self.cells[sequence_id]
        others = {id(cell) for other, cells in self.cells.items() if other != sequence_id for cell in cells}
        assert not any(id(cell) in others for cell in held[keep:]), "a shared cell cannot be shifted"
        for cell in held[keep + discard :]:
            cell.position -= discard
        del held[keep : keep + discard]

    def close(self) -> None:
        pass
