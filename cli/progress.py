"""Progress of pulls, creates and uploads, on standard error: bars for terminals, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Protocol

from cli.errors import ApiError, CliError, DaemonUnreachable
from cli.formats import format_size
from cli.output import note, terminal_width, without_controls
from cli.wire import ProgressRecord

LINE_SECONDS = 5.0
_WIDTH_FOR_TIME = 60
_WIDTH_FOR_SPEED = 80


class ProgressView(Protocol):
    """Shows what goes on, one thing after another."""

    def show(self, text: str, completed: int | None = None, total: int | None = None) -> None:
        """What is going on now; with `total` bytes, how far it has come."""
        ...

    def close(self) -> None: ...


def progress_view() -> ProgressView:
    """The view that fits standard error."""
    return BarView() if sys.stderr.isatty() else LineView()


def follow(records: Iterable[ProgressRecord], view: ProgressView) -> None:
    """Show a pull's or create's records to the end; raises DaemonUnreachable when the last one is missing."""
    status = ""
    try:
        for record in records:
            status = record.get("status", "")
            total = record.get("total")
            view.show(status, record.get("completed", 0) if total else None, total)
    except ApiError as error:
        if error.code != "model_not_found":
            raise
        # To fetch it is what was tried: the usual advice would not help.
        raise CliError(f"{error.sentence.rstrip('.')}.", error.exit_code) from None
    if status != "success":
        raise DaemonUnreachable("The daemon broke off in the middle; its log tells why. Try again.")


class LineView:
    """A line for each thing, and for a long one every few seconds how far it has come."""

    def __init__(self, seconds: float = LINE_SECONDS) -> None:
        self._seconds = seconds
        self._text: str | None = None
        self._told_at = 0.0
        self._told: int | None = None

    def show(self, text: str, completed: int | None = None, total: int | None = None) -> None:
        now = time.monotonic()
        is_done = total is not None and completed == total
        if text == self._text and (total is None or completed == self._told):
            return
        if text == self._text and not is_done and now - self._told_at < self._seconds:
            return
        self._text, self._told_at, self._told = text, now, completed
        if total:
            text += f": {format_size(completed or 0)} of {format_size(total)} ({100 * (completed or 0) // total}%)"
        note(text)

    def close(self) -> None:
        pass


class BarView:
    """A line that moves; those that are done stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            ProgressColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        width = terminal_width()
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), TaskProgressColumn()]
        if width >= _WIDTH_FOR_TIME:
            columns += [BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn(compact=True)]
        if width >= _WIDTH_FOR_SPEED:
            columns.insert(-1, TransferSpeedColumn())
        self._progress = Progress(
            *columns, console=Console(stderr=True, highlight=False), expand=width >= _WIDTH_FOR_TIME
        )
        self._is_started = False
        self._text: str | None = None
        self._task: object = None

    def show(self, text: str, completed: int | None = None, total: int | None = None) -> None:
        text = without_controls(text)
        if total is None:
            self._end_bar()
            if text != self._text:
                # Printed through the console, which keeps it above a moving bar.
                self._progress.console.print(text, markup=False, soft_wrap=True)
        else:
            if text != self._text or not self._is_started:
                self._end_bar()
                self._start_bar(text, total)
            self._progress.update(self._task, completed=completed or 0, total=total)  # type: ignore[arg-type]
        self._text = text

    def close(self) -> None:
        self._end_bar()

    def _start_bar(self, text: str, total: int) -> None:
        self._task = self._progress.add_task(text, total=total)
        self._progress.start()
        self._is_started = True

    def _end_bar(self) -> None:
        if self._is_started:
            self._progress.stop()
            self._progress.remove_task(self._task)  # type: ignore[arg-type]
            self._is_started = False
