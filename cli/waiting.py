"""A word on the terminal while a model is being loaded or reads a long prompt."""

from __future__ import annotations

import sys
import threading

DELAY_SECONDS = 0.8
TEXT = "Waiting for the model..."


class Waiting:
    """Shows TEXT when the wait is long enough to wonder about, and takes it away when it is over; only on terminals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = False
        self._is_shown = False
        self._timer = threading.Timer(DELAY_SECONDS, self._show)
        self._timer.daemon = True
        if sys.stderr.isatty() and sys.stdout.isatty():
            self._timer.start()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The wait is over; nothing is written after this."""
        if self._is_over:
            return
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._is_shown:
                sys.stderr.write("\r" + " " * len(TEXT) + "\r")
                sys.stderr.flush()

    def _show(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_shown = True
                sys.stderr.write(TEXT)
                sys.stderr.flush()
