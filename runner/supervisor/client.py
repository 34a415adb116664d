"""WorkerClient: send messages to a worker, and sort its events into one stream per request.

The hot path is `feed`: bytes from the pipe become events in the streams they belong to, decoded
once, with no task and no lock in between.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.chat.types import LAST_EVENTS, Failed
from runner.messages import (
    FRAME_HEADER,
    Cancel,
    Command,
    Events,
    GrowFailed,
    Grown,
    Loaded,
    LoadFailed,
    LoadProgress,
    Pause,
    Report,
    Resume,
    RoomWanted,
    Stats,
    WindowWanted,
    decode_report,
    encode_frame,
)
from runner.supervisor.stream import EventStream

MAX_REPORT_BYTES = 64 << 20
"""Far above any honest report, and below what four bytes of stray text read as a length."""

LoadReport = LoadProgress | Loaded | LoadFailed
MemoryReport = WindowWanted | Grown | GrowFailed | RoomWanted


class GarbledPipe(Exception):
    """What came from the worker is not a report; nothing after it can be trusted."""


class WorkerClient:
    """One worker's end of the pipe in the daemon. Owns the streams of its running requests.

    `write` puts bytes into the pipe without blocking. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_load_report: Callable[[LoadReport], None],
        clock: Callable[[], float],
        on_memory_report: Callable[[MemoryReport], None] = lambda _report: None,
    ) -> None:
        self.stats: Stats | None = None
        self._write = write
        self._on_load_report = on_load_report
        self._clock = clock
        self._on_memory_report = on_memory_report
        self._streams: dict[str, EventStream] = {}
        self._partial = bytearray()
        self._last_progress = clock()
        self._awaits_sign = False
        """A cancel was sent, and nothing came back since: a worker that stands still would not show otherwise."""
        self._ended: Failed | None = None

    def send(self, command: Command) -> None:
        self._write(encode_frame(command))

    def start(self, stream: EventStream) -> None:
        """Send a stream's request, or what is still to come of it. Ids of running requests differ."""
        request_id = stream.request_id
        if request_id in self._streams:
            raise ValueError(f"request {request_id} is running already")
        stream.owner = self
        if self._ended is not None:
            stream.fail(self._ended)
            return
        if not self._streams and not self._awaits_sign:
            self._last_progress = self._clock()
        self._streams[request_id] = stream
        self.send(stream.next_command())
        if stream.is_paused:
            self.send(Pause(request_id))

    def feed(self, data: bytes) -> None:
        """Take bytes as they came out of the pipe; raises GarbledPipe."""
        source: bytes | bytearray = data
        if self._partial:
            self._partial += data
            source = self._partial
        size = len(source)
        offset = 0
        with memoryview(source) as view:
            while size - offset >= FRAME_HEADER.size:
                (length,) = FRAME_HEADER.unpack_from(view, offset)
                if length > MAX_REPORT_BYTES:
                    raise GarbledPipe(f"a report of {length} bytes was announced")
                end = offset + FRAME_HEADER.size + length
                if end > size:
                    break
                try:
                    report = decode_report(view[offset + FRAME_HEADER.size : end])
                except (msgspec.DecodeError, RecursionError) as error:
                    raise GarbledPipe(f"a report could not be read: {error}") from None
                offset = end
                self._dispatch(report)
        if source is self._partial:
            del self._partial[:offset]
        elif offset < size:
            self._partial = bytearray(data[offset:])

    def end_all(self, failed: Failed) -> None:
        """End every stream with `failed`, now, and any stream that is opened later."""
        if self._ended is None:
            self._ended = failed
        for stream in self.abandon():
            stream.fail(failed)

    def abandon(self) -> list[EventStream]:
        """Let go of all streams, in the order in which they were started; nothing comes out of them any more."""
        streams = list(self._streams.values())
        self._streams.clear()
        return streams

    def silence(self) -> float:
        """Seconds without progress, as long as the worker should have made any; else 0.

        Paused requests hold their places, so one that has not begun may honestly be waiting for
        one of those. A cancelled request is answered by some report, whatever it is.
        """
        someone_paused = any(stream.is_paused for stream in self._streams.values())
        if not self._awaits_sign and not any(
            not stream.is_paused and (stream.has_begun or not someone_paused) for stream in self._streams.values()
        ):
            self._last_progress = self._clock()
        return self._clock() - self._last_progress

    def _dispatch(self, report: Report) -> None:
        if self._awaits_sign:
            self._awaits_sign = False
            self._last_progress = self._clock()
        if type(report) is Events:
            self._last_progress = self._clock()
            streams = self._streams
            for request_id, token in report.tokens:
                if (stream := streams.get(request_id)) is not None:
                    stream.taken.append(token)
            for request_id, event in report.events:
                stream = streams.get(request_id)
                if stream is None:
                    continue  # cancelled while this was under way
                if type(event) in LAST_EVENTS:
                    del streams[request_id]
                stream.push(event)
        elif type(report) is Stats:
            if self.stats is None or (self.stats.steps, self.stats.rows) != (report.steps, report.rows):
                self._last_progress = self._clock()
            self.stats = report
        elif isinstance(report, LoadProgress | Loaded | LoadFailed):
            self._on_load_report(report)
        elif isinstance(report, WindowWanted | Grown | GrowFailed | RoomWanted):
            self._last_progress = self._clock()
            self._on_memory_report(report)

    # --- as the owner of streams ---

    def cancel(self, stream: EventStream) -> None:
        if stream.request_id in self._streams:
            self.silence()  # what counts so far is decided while the stream is still there
            del self._streams[stream.request_id]
            self._awaits_sign = True
            self.send(Cancel(stream.request_id))

    def pause(self, stream: EventStream) -> None:
        if stream.request_id in self._streams:
            self.send(Pause(stream.request_id))

    def resume(self, stream: EventStream) -> None:
        if stream.request_id in self._streams:
            self._last_progress = self._clock()
            self.send(Resume(stream.request_id))
