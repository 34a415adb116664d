"""The worker's end of the pipe to the daemon."""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO

from runner.messages import FRAME_HEADER, MAX_FRAME_BYTES, Command, Report, decode_command, encode_frame


class Pipe:
    """Frames in and out. One thread receives; any thread may send."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._sending = threading.Lock()

    @classmethod
    def take_over_standard_streams(cls) -> Pipe:
        """Claim standard input and output, and send whatever else writes to standard output to standard error."""
        sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(sys.stdin.buffer, sink)

    def receive(self) -> Command | None:
        """The next command; None when the daemon has closed the pipe. Blocks.

        Raises msgspec.DecodeError or ValueError for what is not a command.
        """
        header = self._source.read(FRAME_HEADER.size)
        if len(header) < FRAME_HEADER.size:
            return None
        (length,) = FRAME_HEADER.unpack(header)
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        payload = self._source.read(length)
        return decode_command(payload) if len(payload) == length else None

    def send(self, report: Report) -> None:
        """Write a report; blocks while the daemon does not read. Raises OSError when it is gone."""
        frame = memoryview(encode_frame(report))
        with self._sending:
            while frame:
                frame = frame[self._sink.write(frame) or 0 :]
