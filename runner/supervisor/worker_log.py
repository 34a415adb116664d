"""What a worker writes on its standard error, in the daemon's log."""

from __future__ import annotations

import logging
import re

logger = logging.getLogger("runner.worker")

LONGEST_LOG_LINE = 4096


class LogRelay:
    """A worker's standard error, line by line into our log, under the model's name."""

    _LEVELED = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)", re.DOTALL)

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._relay(line)
        if len(self._rest) > LONGEST_LOG_LINE:
            self.flush()

    def flush(self) -> None:
        line, self._rest = self._rest, b""
        self._relay(line)

    def _relay(self, line: bytes) -> None:
        text = line[:LONGEST_LOG_LINE].decode("utf-8", "replace").rstrip()
        if text:
            leveled = self._LEVELED.match(text)
            level = logging.getLevelNamesMapping()[leveled[1]] if leveled else logging.WARNING
            logger.log(level, "%s: %s", self._name, leveled[2] if leveled else text)
