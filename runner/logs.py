"""Logging of both processes: one line for one event, never a prompt or an answer."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

LOG_FILE_BYTES = 10 << 20
OLD_LOG_FILES = 3

_QUIET = ("httpx", "httpcore", "uvicorn", "asyncio")
"""They tell of each request, with its address; here only their warnings count."""


def set_up_daemon_logging(log_file: Path | None = None) -> None:
    """Log to `log_file`, which is kept small by rotation, or to standard error."""
    handler: logging.Handler
    if log_file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            log_file, maxBytes=LOG_FILE_BYTES, backupCount=OLD_LOG_FILES, encoding="utf-8", errors="backslashreplace"
        )
    _set_up(handler, "%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_up_worker_logging() -> None:
    """Log to standard error, which the daemon reads: the level comes first, the time is added there."""
    _set_up(logging.StreamHandler(sys.stderr), "%(levelname)s %(name)s: %(message)s")


def _set_up(handler: logging.Handler, layout: str) -> None:
    handler.setFormatter(logging.Formatter(layout))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
