"""Every message between daemon and worker, and its encoding.

A frame is a little-endian unsigned 32-bit length and that many bytes of msgpack. Commands go
down the worker's standard input, reports come up its standard output. The first command is
`Load`; the worker answers with `LoadProgress`, then `Loaded` or `LoadFailed`. Each `Generate`
is answered by events that end with exactly one `Finished` or `Failed`, except after a `Cancel`
for it, which is answered by the events already under way or by `Stats`. The worker ends when
its input ends.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from runner.chat.types import ChatEvent, ChatRequest
from runner.errors import Fact
from runner.loaded_model import LoadedModel, LoadOptions
from runner.tasks import Task

FRAME_HEADER = struct.Struct("<I")
MAX_FRAME_BYTES = 512 * 1024 * 1024


class CacheOptions(msgspec.Struct, frozen=True):
    """How much of what was computed is kept for requests that begin alike. Without arguments: a little, in memory."""

    memory_bytes: int = 256 * 1024 * 1024
    """In the worker's memory; 0 keeps nothing there, and then nothing on disk either."""
    disk_bytes: int = 0
    """In the files of all models together; 0 writes none."""
    directory: str = ""
    weights_digest: str = ""
    """Of the model's files: what names its cache files."""


class Load(msgspec.Struct, frozen=True, tag="load"):
    model_path: str
    options: LoadOptions
    shards: tuple[str, ...] = ()
    """The other files of a model that is split, in order."""
    projector: str = ""
    """The file that makes vectors of images and sounds, if the model has one."""
    cache: CacheOptions = CacheOptions()
    largest_context: int = 0
    """The largest window there is memory for, as far as is known; 0: unknown."""
    step_target_ms: float = 80.0
    """How long a step should take at most while an answer is being read."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    request_id: str
    request: ChatRequest
    taken: tuple[int, ...] = ()
    """Tokens of the answer that a worker took before it died: the answer goes on behind them.

    No event that they brought is sent again.
    """


class Perform(msgspec.Struct, frozen=True, tag="perform"):
    """As `Generate`, for a task that is no answer: its last event is one of `LAST_TASK_EVENTS` or a `Failed`."""

    request_id: str
    task: Task


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Forget a request; unknown ids are ignored, since it may just have ended."""

    request_id: str


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Its reader is too slow: compute nothing for this request until `Resume`."""

    request_id: str


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    request_id: str


class Grow(msgspec.Struct, frozen=True, tag="grow"):
    """Have a larger window; answered by `Grown` or `GrowFailed`."""

    context_length: int


class KeepWindow(msgspec.Struct, frozen=True, tag="keep_window"):
    """There is no memory for the window that was wanted."""

    largest: int
    """The largest that there is memory for."""


class Beside(enum.StrEnum):
    """What takes memory beside the weights and the main context, from when it is first needed."""

    DETERMINISTIC = "deterministic"
    VECTORS = "vectors"
    ADAPTERS = "adapters"


class RoomGiven(msgspec.Struct, frozen=True, tag="room_given"):
    """The memory that was wanted is there."""

    purpose: Beside
    size: int


class RoomRefused(msgspec.Struct, frozen=True, tag="room_refused"):
    """It is not, not even when everybody else who is idle went."""

    purpose: Beside
    size: int
    """That was wanted."""
    available: int


class LoadProgress(msgspec.Struct, frozen=True, tag="load_progress"):
    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    model: LoadedModel


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The worker ends after this."""

    code: str
    message: str
    facts: dict[str, Fact] = {}


class WindowWanted(msgspec.Struct, frozen=True, tag="window_wanted"):
    """Requests need more cells than there are. Answered by `Grow` or `KeepWindow`; one is under way at a time."""

    cells: int
    """The fewest that help."""


class Grown(msgspec.Struct, frozen=True, tag="grown"):
    """The window is larger now; every sequence has moved."""

    model: LoadedModel


class GrowFailed(msgspec.Struct, frozen=True, tag="grow_failed"):
    """The engine found no memory for the larger window; all is as it was."""

    message: str


class RoomWanted(msgspec.Struct, frozen=True, tag="room_wanted"):
    """Something beside the main context needs so many bytes in all. Answered by `RoomGiven` or `RoomRefused`."""

    purpose: Beside
    size: int


class Events(msgspec.Struct, frozen=True, tag="events"):
    """What one step or a few quick ones brought: request ids and their events, in order."""

    events: list[tuple[str, ChatEvent]]
    tokens: list[tuple[str, int]] = []
    """What was taken into answers since the last of these frames, for `Generate.taken`."""


class CacheStats(msgspec.Struct, frozen=True):
    """What is kept of prefixes, and how many prompt tokens needed no computing since loading."""

    memory_bytes: int = 0
    """The budget."""
    memory_used: int = 0
    segments: int = 0
    prompt_tokens: int = 0
    """Of all requests that began."""
    live: int = 0
    memory: int = 0
    disk: int = 0


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """Totals since loading: about twice a second while something runs, ahead of each end, and once when idle."""

    running: int
    waiting: int
    cells_used: int
    steps: int
    rows: int
    """Tokens computed, of prompts and answers."""
    sampled: int
    step_ns: int
    """Wall time of steps: planning, computing, sampling, text, sending."""
    native_ns: int
    """The part of `step_ns` inside the inference library."""
    preempted: int
    cache: CacheStats = CacheStats()
    decode_threads: int = 0
    """Threads that compute answers, as measured to be best at the moment."""
    prefill_threads: int = 0
    """Threads that compute prompts, and many answers at a time."""


Command = Load | Generate | Perform | Cancel | Pause | Resume | Grow | KeepWindow | RoomGiven | RoomRefused
Report = LoadProgress | Loaded | LoadFailed | Events | Stats | WindowWanted | Grown | GrowFailed | RoomWanted

_encoder = msgspec.msgpack.Encoder()
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_report_decoder: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def encode_frame(message: Command | Report) -> bytes:
    """The message with its length in front, ready to be written."""
    payload = _encoder.encode(message)
    return FRAME_HEADER.pack(len(payload)) + payload


def decode_command(payload: bytes) -> Command:
    """Raises msgspec.DecodeError for anything that is not a command."""
    return _command_decoder.decode(payload)


def decode_report(payload: bytes | memoryview) -> Report:
    """Raises msgspec.DecodeError for anything that is not a report."""
    return _report_decoder.decode(payload)
