"""`puna verify` and `puna repair`: whether models are still what was fetched, and making them so again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from cli.connect import connect
from cli.errors import FAILED, DaemonUnreachable, WrongUsage
from cli.formats import format_size
from cli.originals import tell_lost_original
from cli.output import note, write_json, write_line
from cli.progress import ProgressView, progress_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import FileVerdict, VerifyRecord

_SHOWN_DIGEST = 12


def verify(names: Sequence[str], *, everything: bool, as_json: bool) -> int:
    """Read the files of models again; returns 1 when one is damaged. The verdicts are kept by the daemon."""
    if bool(names) == everything:
        raise WrongUsage("Name models to verify, or give --all.")
    client = connect()
    found = []
    for name in names or (None,):
        with closing(progress_view()) as view, client.verify(name) as records:
            found.append(_follow(records, view))
    damaged = sum(one.get("damaged", 0) for one in found)
    if as_json:
        write_json({"damaged": damaged, "files": [file for one in found for file in one.get("files", [])]})
    else:
        for one in found:
            _tell(one)
    return FAILED if damaged else 0


def repair(name: str) -> None:
    """Fetch again what is damaged of a model."""
    with closing(progress_view()) as view, connect().repair(name) as records:
        found = _follow(records, view)
    damaged = found.get("damaged", 0)
    write_line(f"repaired '{name}'" if damaged else f"'{name}' is sound")


def _follow(records: Iterable[VerifyRecord], view: ProgressView) -> VerifyRecord:
    """Show how far it is; returns what was found. Raises DaemonUnreachable when it broke off."""
    found: VerifyRecord | None = None
    for record in records:
        status = record.get("status", "")
        if status == "verified":
            found = record
        elif status != "success":
            total = record.get("total")
            view.show(status, record.get("completed", 0) if total else None, total)
    if found is None:
        raise DaemonUnreachable("The daemon broke off in the middle; its log tells why. Try again.")
    return found


def _tell(found: VerifyRecord) -> None:
    files = found.get("files", [])
    bad = [file for file in files if file["state"] != "sound"]
    if not files:
        write_line("there are no models")
    elif not bad:
        count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
        write_line(f"{', '.join(found.get('models', []))}: {count} sound")
    for file in bad:
        write_line(_damage(file))
    in_place = [file for file in bad if file.get("in_place")]
    for file in in_place:
        tell_lost_original(file["models"][0], file["digest"])
    for model in sorted({model for file in bad if file not in in_place for model in file["models"]}):
        note(f"`puna repair {model}` fetches what is damaged.")


def _damage(file: FileVerdict) -> str:
    digest = file["digest"].removeprefix("sha256:")[:_SHOWN_DIGEST]
    of = f"{format_size(file['damaged_bytes'])} of {format_size(file['size'])}"
    return f"{', '.join(file['models'])}: {digest} is {file['state']} ({of})"
