"""What the loop is told between two steps."""

from __future__ import annotations

from dataclasses import dataclass

from runner.engine import Window
from runner.messages import Grow, KeepWindow, RoomGiven, RoomRefused
from runner.worker.adapter_room import AwaitAdapters
from runner.worker.encoding import EncodingJob
from runner.worker.growth import AwaitWindow
from runner.worker.prefix_files import FileEvent
from runner.worker.sequence import Sequence


@dataclass(frozen=True, slots=True)
class CancelSequence:
    request_id: str


@dataclass(frozen=True, slots=True)
class SetPaused:
    request_id: str
    paused: bool


@dataclass(frozen=True, slots=True)
class WindowMade:
    """A larger window is ready to be moved into, or there was no memory for it."""

    window: Window | None
    failure: str = ""


class Stop:
    """End the loop after the current step."""


MemoryWish = AwaitWindow | AwaitAdapters
MemoryAnswer = Grow | KeepWindow | RoomGiven | RoomRefused | WindowMade
LoopCommand = Sequence | EncodingJob | CancelSequence | SetPaused | MemoryWish | MemoryAnswer | FileEvent | Stop
