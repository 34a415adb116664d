"""One answer: written as it comes, with its statistics."""

from __future__ import annotations

from collections.abc import Iterator

from cli.client import RecordStream
from cli.errors import DaemonUnreachable
from cli.formats import format_duration
from cli.output import note, write
from cli.waiting import Waiting
from cli.wire import AnswerRecord


class Answer:
    """The text so far, and when it has ended the record of counts."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.final: AnswerRecord | None = None
        """None until the answer is complete."""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def write(self, records: RecordStream[AnswerRecord]) -> None:
        """Write the text to standard output piece by piece, to its end.

        Raises DaemonUnreachable when it ends without its last record. Whatever is raised,
        KeyboardInterrupt too, the daemon is told to stop and `text` is what came so far.
        """
        with records, Waiting() as waiting:
            if records.ignored:
                note(f"The daemon ignored: {records.ignored}")
            for record in records:
                piece = _text_of(record)
                if piece:
                    waiting.stop()
                    self._pieces.append(piece)
                    write(piece)
                if record.get("done"):
                    self.final = record
        if self.final is None:
            raise DaemonUnreachable("The answer broke off in the middle; the daemon's log tells why. Try again.")

    def tell_shortened(self) -> None:
        """Say so when the daemon shortened the prompt."""
        truncated = self.final and self.final.get("truncated")
        if truncated:
            note(f"The prompt was shortened from {truncated.get('from')} to {truncated.get('to')} tokens.")

    def tell_statistics(self) -> None:
        """Write counts and speeds to standard error, if the answer is complete."""
        if self.final is not None:
            for line in statistics_lines(self.final):
                note(line)


def statistics_lines(final: AnswerRecord) -> Iterator[str]:
    """`eval rate:            42.00 tokens/s` and its like; what the daemon did not tell is left out."""
    if "total_duration" in final:
        yield _line("total duration", format_duration(final["total_duration"]))
    if "load_duration" in final:
        yield _line("load duration", format_duration(final["load_duration"]))
    count, duration = final.get("prompt_eval_count", 0), final.get("prompt_eval_duration", 0)
    yield from _counted("prompt eval", count, duration, final.get("cached_tokens", 0))
    yield from _counted("eval", final.get("eval_count", 0), final.get("eval_duration", 0), 0)


def _counted(what: str, count: int, nanoseconds: int, cached: int) -> Iterator[str]:
    if count:
        of_which = f" ({cached} cached)" if cached else ""
        yield _line(f"{what} count", f"{count} token(s){of_which}")
    if nanoseconds:
        yield _line(f"{what} duration", format_duration(nanoseconds))
        yield _line(f"{what} rate", f"{(count - cached) / nanoseconds * 1e9:.2f} tokens/s")


def _line(name: str, value: str) -> str:
    return f"{name + ':':<22}{value}"


def _text_of(record: AnswerRecord) -> str:
    message = record.get("message")
    return message["content"] if message else record.get("response", "")
