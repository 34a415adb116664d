"""`puna gc` and `puna partials`: what the store keeps that nothing needs, and downloads that broke off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cli.connect import connect
from cli.formats import format_age, format_size
from cli.output import note, write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import PartialEntry


def collect_garbage(*, dry_run: bool, as_json: bool) -> None:
    """Remove files that no model needs; with `dry_run` tell of each what removing it would free."""
    found = connect().collect_garbage(dry_run=dry_run)
    if as_json:
        write_json(found)
        return
    if found["files"]:
        write_table(
            ("BYTES", "KIND", "FILE"), [(str(one["bytes"]), one["kind"], one["path"]) for one in found["files"]]
        )
    verb = "would be freed" if dry_run else "were freed"
    write_line(f"{found['bytes']} bytes ({format_size(found['bytes'])}) {verb}")
    young = found["too_young"]
    if young["files"]:
        files = "1 file" if young["files"] == 1 else f"{young['files']} files"
        note(
            f"Younger than an hour, so that it may belong to something under way, and kept: {files} "
            f"({format_size(young['bytes'])})."
        )


def list_partials(*, as_json: bool) -> None:
    partials = connect().partials()
    if as_json:
        write_json({"partials": partials})
    else:
        rows = partial_rows(partials, datetime.now(UTC))
        write_table(("NAME", "FETCHED", "SIZE", "STATE", "LAST USED"), rows)
        if any(not one["active"] for one in partials):
            note("`puna pull NAME` goes on with one, `puna partials rm NAME` throws it away.")


def partial_rows(partials: Sequence[PartialEntry], now: datetime) -> list[tuple[str, ...]]:
    return [
        (
            one["model"] or str(one["files"][0].get("digest") or one["files"][0].get("title") or "?"),
            format_size(one["completed"]),
            format_size(one["size"]) if one["size"] is not None else "?",
            "downloading" if one["active"] else "kept",
            format_age(now - timedelta(seconds=one["age_seconds"]), now),
        )
        for one in partials
    ]


def remove_partials(names: Sequence[str]) -> None:
    """Throw away what was fetched of models, each told by its name or a file's digest; the first that fails ends it."""
    client = connect()
    for name in names:
        removed = client.remove_partial(name)
        write_line(f"removed {format_size(removed['completed'])} of '{name}'")
