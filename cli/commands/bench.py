"""`puna bench`: how fast a model is on this machine, with how many threads, and which quantizations are fast here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from cli.connect import connect
from cli.errors import DaemonUnreachable
from cli.output import note, table_lines, write_json, write_line
from cli.progress import ProgressView, progress_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import BenchRecord


def bench(name: str, *, as_json: bool) -> None:
    """Have the daemon measure a model, and print what it found."""
    with closing(progress_view()) as view, connect().bench(name) as records:
        found = _follow(records, view)
    if loaded := found.get("also_loaded"):
        note(f"{', '.join(loaded)} is loaded as well; while it answers, this measures too little.")
    if as_json:
        write_json({key: value for key, value in found.items() if key != "status"})
        return
    for line in _lines(found):
        write_line(line)


def _follow(records: Iterable[BenchRecord], view: ProgressView) -> BenchRecord:
    """Show how far it is; returns what was found. Raises DaemonUnreachable when it broke off."""
    found: BenchRecord | None = None
    for record in records:
        if record.get("status") == "measured":
            found = record
        elif record.get("status") != "success":
            view.show(f"measuring, {record.get('completed', 0)} %")
    if found is None:
        raise DaemonUnreachable("The daemon broke off in the middle; its log tells why. Try again.")
    return found


def _lines(found: BenchRecord) -> Iterator[str]:
    speeds, best = found["speeds"], found["best_threads"]
    rows = [
        (
            str(speed["threads"]),
            _cell(speed["prefill"], is_best=speed["threads"] == best["prefill"]),
            _cell(speed["decode"], is_best=speed["threads"] == best["decode"]),
        )
        for speed in speeds
    ]
    yield f"{found['model']} ({found['type']}), loaded in {found['load_seconds']:.1f} s"
    yield found["placement"]
    yield ""
    yield from table_lines(("THREADS", "READS", "WRITES"), rows, None)
    yield ""
    yield "Tokens a second."
    yield f"It reads fastest with {_threads(best['prefill'])}, and writes fastest with {_threads(best['decode'])}."
    yield found["kernel"]
    if types := found["fast_types"]:
        yield f"Fast on this CPU: {', '.join(types)}."


def _cell(speed: float, *, is_best: bool) -> str:
    return f"{speed:.1f}{' *' if is_best else ''}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
