"""What the worker asks of an inference engine."""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.adapters import AdapterSet
from runner.draft_model import DraftModel
from runner.loaded_model import LoadedModel
from runner.sampling import Constraint, SamplingParams


@dataclass(frozen=True, slots=True)
class InsertTokens:
    """The tokens before the text, before what is to follow the answer, and before the answer."""

    prefix: int
    suffix: int
    middle: int


class CompiledConstraint(Protocol):
    """A constraint made ready by `Engine.compile_constraint`; opaque to everybody else."""


@dataclass(frozen=True, slots=True)
class SamplerPlan:
    """All that decides how one sequence's tokens are chosen."""

    params: SamplingParams
    seed: int
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Tokens of the vocabulary and what is added to their logits."""
    constraint: CompiledConstraint | None = None
    alternatives: int | None = None
    """How many of the likeliest tokens are told with each; None: no log-probabilities at all."""
    taken: tuple[int, ...] = ()
    """The answer so far, of which another sampler chose every token: the constraint goes on behind it.

    Random numbers cannot: they begin anew, from the seed and how many tokens there are.
    """


@dataclass(frozen=True, slots=True)
class TokenScore:
    """What the model thought of a token, before any sampling setting: natural logarithms of probabilities."""

    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    """The likeliest tokens, falling; the token itself is among them only when it is one."""


NO_NUMBERS = "the model computed no usable numbers"
"""What a sampler says that failed for no fault of the request."""


class Sampler(Protocol):
    """One sequence's way of choosing tokens, with its own random state; used on the engine thread only.

    What it says of itself is about the token that was sampled last.
    """

    score: TokenScore | None
    is_complete: bool
    """Whether the constraint lets nothing follow this token."""
    failure: str | None
    """Why no token could be sampled within the constraint; the one that came then means nothing."""

    def close(self) -> None: ...


MAX_DRAFTED_ROWS = 32
"""Guessed tokens in one step, of all sequences together."""

MAX_SCORED_ROWS = 32
"""Tokens of prompts in one step, of all sequences together, whose likelihood can be told."""


@dataclass(frozen=True, slots=True)
class PromptScoring:
    """Asks how likely the model finds what follows each of a chunk's tokens."""

    targets: Sequence[int]
    """What follows the first of them, the second, …; no more than the chunk has tokens."""
    alternatives: int
    scores: dict[int, TokenScore]
    """Where the answers go, under the positions of the targets."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence in a step."""

    sequence_id: int
    start: int
    """Position of the first token."""
    tokens: Sequence[int]
    sampler: Sampler | None = None
    """When set, a token is sampled after the last of these; made by `Engine.create_sampler`."""
    scoring: PromptScoring | None = None
    drafted: int = 0
    """So many of the tokens, the last ones, are guesses; what is sampled follows the token before them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to be read, decoded."""

    width: int
    height: int
    pixels: bytes
    """Red, green and blue of each pixel, row by row."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound to be heard: a WAV or MP3 file."""

    data: bytes


MediaInput = Picture | Sound


@dataclass(frozen=True, slots=True, eq=False)
class MediaPiece:
    """A part of a prompt that is no text: so many places in a sequence, for vectors that an image or sound gives."""

    count: int
    source: int
    """Which of the media it comes from; an image may give several pieces."""
    is_whole: bool
    """Its places see one another in both directions, so all of them have to be in one step."""
    native: object
    """The engine's own."""
    is_grid: bool = False
    """Its places are not one behind the other: a sequence may be cut, shared and saved before and behind it only."""


class MediaVectors(Protocol):
    """What `Engine.encode_media` made; opaque to everybody else."""


@dataclass(frozen=True, slots=True)
class MediaChunk:
    """Consecutive places of one piece in a step."""

    sequence_id: int
    start: int
    """Position of the first place."""
    piece: MediaPiece
    vectors: MediaVectors
    first: int
    """Which place of the piece is the first one."""
    count: int
    sampler: Sampler | None = None
    """As in a Chunk."""


@dataclass(frozen=True, slots=True)
class EncodingInput:
    """The tokens of an input; only what is between the first `head` and the last `tail` of them may be left out."""

    tokens: Sequence[int]
    head: int = 0
    tail: int = 0


ENCODING_SLOTS = 64
"""Inputs that may be in progress at a time on their way to become vectors."""


@dataclass(frozen=True, slots=True)
class EncodingChunk:
    """Consecutive tokens of one input that is to become a vector."""

    slot: int
    start: int
    """Position of the first token; an input begins at 0 and lets the one before it in its slot go."""
    tokens: Sequence[int]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Move:
    """How a sequence comes into a larger window: what it shares with one that is there already, and the rest."""

    sequence_id: int
    length: int
    donor: int | None = None
    shared: int = 0
    """Positions shared with `donor`, from 0."""


class Window(Protocol):
    """What `Engine.make_window` made; opaque to everybody else."""


SOLO_ROWS = 128
"""Most rows of a solo step: prompts are always cut into chunks of so many, and others wait no longer than that."""


class OutOfCells(Exception):
    """The KV cache has no room for a step; nothing of it was computed."""


class EngineFault(Exception):
    """A step failed inside the engine; the cells of its sequences are in doubt."""


class Engine(Protocol):
    """A loaded model.

    `tokenize`, `token_bytes` and the properties may be called from any thread; everything else
    from the one engine thread. All calls block.
    """

    native_ns: int
    """Nanoseconds spent inside the inference library since loading (for the Python share of a step)."""

    @property
    def info(self) -> LoadedModel: ...

    @property
    def draft(self) -> DraftModel | None:
        """The model that guesses for this one, if it was loaded with one that can."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja source in the model's file."""
        ...

    @property
    def template_tokens(self) -> dict[str, str]:
        """Texts of special tokens under the names chat templates use: `bos_token`, `eos_token`, …"""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`; with `add_special` the begin token where the model wants one, once."""
        ...

    def tokenize_whole(self, text: str, *, parse_special: bool) -> EncodingInput:
        """As `tokenize`, with all that the model wants in front and behind: what an input for a vector looks like."""
        ...

    def tokenize_pair(self, query: str, document: str) -> EncodingInput:
        """A query and a document, as reranking models of this kind want to see them."""
        ...

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens of the vocabulary, control tokens written out; broken characters become U+FFFD."""
        ...

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token: no text has fewer tokens than its bytes divided by this."""
        ...

    @property
    def insert_tokens(self) -> InsertTokens | None:
        """What marks the texts around an insertion; None when the model has no such tokens."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""
        ...

    def written(self, token: int) -> bytes:
        """As `token_bytes`, with control tokens written out."""
        ...

    def ends_generation(self, token: int) -> bool: ...

    def compile_constraint(self, constraint: Constraint) -> CompiledConstraint:
        """Raises ConstraintInvalid; may be called from any thread and takes up to two seconds."""
        ...

    def create_sampler(self, plan: SamplerPlan, prompt: Sequence[int]) -> Sampler:
        """A sampler with its own random state that has seen `prompt` (for the penalties)."""
        ...

    def set_threads(self, count: int) -> None:
        """How many threads, at most `info.threads`, compute the next steps; those of solo sequences always have all."""
        ...

    def load_adapters(self, adapters: AdapterSet) -> None:
        """Make adapters ready; may be called from any thread and blocks. Raises ModelInvalid or Unsupported."""
        ...

    def use_adapters(self, adapters: AdapterSet) -> None:
        """The next steps are computed with exactly these, which were loaded."""
        ...

    def step(self, chunks: Sequence[Chunk]) -> list[int]:
        """Compute the chunks in one batch; one sampled token for each chunk with a sampler, in order.

        Raises OutOfCells (nothing computed) or EngineFault.
        """
        ...

    def sample_next(self, chunk: Chunk, right: int) -> int:
        """Of a chunk of the last step: the token after its first `right` guesses, which the ones sampled were.

        Asked for one after another, until a token is no longer the one that was guessed; the positions
        of the guesses that were wrong, or not asked about, then have to be cut.
        """
        ...

    @property
    def media_marker(self) -> str:
        """Stands in a text where an image or sound belongs; nobody outside of the worker can know it."""
        ...

    def tokenize_media(
        self, text: str, media: Sequence[MediaInput], *, add_special: bool
    ) -> list[list[int] | MediaPiece]:
        """Tokens of a text, and pieces in the places of its markers, one for each of `media`; as `tokenize`.

        Control tokens of the text are read. Raises InvalidRequest for what cannot be read, Unsupported for
        what this engine cannot compute.
        """
        ...

    def encode_media(self, piece: MediaPiece) -> MediaVectors:
        """Compute the vectors of a piece, apart from all sequences. Blocks, for seconds on slow machines.

        Raises EngineFault.
        """
        ...

    def step_media(self, chunk: MediaChunk) -> int | None:
        """Compute places of one sequence from vectors; the token sampled, with a sampler. Raises as `step`."""
        ...

    def remove(self, sequence_id: int) -> None:
        """Forget all of a sequence. Cells it shares with others stay theirs."""
        ...

    def cut(self, sequence_id: int, length: int) -> None:
        """Forget the positions from `length` on; needs MemoryKind.CELLS."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, which holds nothing, share the first `length` cells of `source`; needs MemoryKind.CELLS.

        Only what was computed can be shared. A shared cell must not be shifted.
        """
        ...

    @property
    def state_format(self) -> str:
        """What has to be equal, besides the weights, for a saved state to fit into another engine."""
        ...

    def save(self, sequence_id: int, start: int, end: int) -> memoryview:
        """The state of positions `start` to `end`: any range of cells, or all of a sequence that is a state."""
        ...

    def restore(self, sequence_id: int, state: memoryview, start: int, end: int) -> bool:
        """Put positions `start` to `end` of a saved state behind what the sequence holds, which is `start` positions.

        The state may hold more on both sides, and its cells become new ones. False when it does
        not fit or there are no cells; then the sequence is as it was (a whole state: empty).
        """
        ...

    def make_window(self, size: int) -> Window:
        """A window of so many tokens, to be moved into; one at a time. Raises InsufficientMemory.

        May be called from any thread, takes a part of a second, and steps go on meanwhile.
        """
        ...

    def move_into(self, window: Window, moves: Sequence[Move]) -> bool:
        """Have this window for all sequences, which move into it in this order; tells of it in `info`.

        False when they could not be moved: then nothing is held any more. No shift may have been made
        since the last step.
        """
        ...

    def solo_memory(self, end: int, most: int) -> int:
        """Bytes that the solo context takes for a sequence of `end` tokens, which becomes no longer than `most`."""
        ...

    def begin_solo(self, window: int) -> None:
        """Start a sequence that is computed apart from all others, with room for `window` tokens.

        It takes the place of the solo sequence before. Raises InsufficientMemory.
        """
        ...

    def step_solo(self, chunk: Chunk) -> int | None:
        """Compute at most SOLO_ROWS tokens of the solo sequence; the token sampled, with a sampler. Raises as `step`.

        What comes out depends on the sequence and the sizes of its chunks alone. Its id does not count.
        """
        ...

    def encoding_memory(self, tokens: int) -> int:
        """Bytes that the context for vectors takes once it is prepared for an input of so many tokens."""
        ...

    def prepare_encoding(self, tokens: int) -> None:
        """Have room for an input of so many tokens; forgets all inputs in progress. Raises InsufficientMemory."""
        ...

    @property
    def encoding_room(self) -> int:
        """Tokens that all inputs in progress may have together; 0 before `prepare_encoding`."""
        ...

    @property
    def encoding_rows(self) -> int:
        """Most tokens of one `encode`."""
        ...

    def encode(self, chunks: Sequence[EncodingChunk]) -> list[array.array[float] | None]:
        """Compute chunks of inputs in one batch; the vectors of those that end with it, as the model makes them.

        Leaves the sequences alone. Raises as `step`; then all inputs in progress are in doubt.
        """
        ...

    def shift(self, sequence_id: int, keep: int, discard: int) -> None:
        """Forget positions keep..keep+discard and move the later ones down; needs `info.can_shift`."""
        ...

    def close(self) -> None: ...
