"""Bytes to text: whole characters only, and nothing that may still become a stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """One answer's way from token bytes to text that may be sent."""

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = stops
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that was met; nothing comes after it."""

    def push(self, data: bytes) -> str:
        """More bytes in, the text that is certain out."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, when no more bytes come; a cut character becomes U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text if self.stopped_by is not None else text + held

    def _release(self, new: str) -> str:
        if not self._stops:
            return new
        if self.stopped_by is not None or not new:
            return ""
        text = self._held + new
        matches = [(position, stop) for stop in self._stops if (position := text.find(stop)) >= 0]
        if matches:
            position, self.stopped_by = min(matches)
            self._held = ""
            return text[:position]
        keep = max(_overlap(text, stop) for stop in self._stops)
        certain = len(text) - keep
        self._held = text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
