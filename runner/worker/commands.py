"""What the loop is told between two steps."""

from __future__ import annotations

from dataclasses import dataclass

from runner.messages import Grow, KeepWindow, RoomGiven, RoomRefused
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


class Stop:
    """End the loop after the current step."""


MemoryAnswer = Grow | KeepWindow | RoomGiven | RoomRefused
LoopCommand = Sequence | EncodingJob | AwaitWindow | CancelSequence | SetPaused | MemoryAnswer | FileEvent | Stop
