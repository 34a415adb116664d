"""`puna list`, `cp` and `rm`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cli.connect import connect
from cli.formats import format_age, format_size, parse_time
from cli.output import note, write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import ModelEntry


def list_models(prefix: str | None, *, as_json: bool) -> None:
    """Print the models that are here; with a prefix those whose names begin with it, in whatever case."""
    models = connect().models()
    if prefix:
        models = [model for model in models if model["name"].lower().startswith(prefix.lower())]
    if as_json:
        write_json({"models": models})
    else:
        write_table(("NAME", "ID", "SIZE", "MODIFIED"), model_rows(models, datetime.now(UTC)))
    for model in models:
        if model.get("damaged"):
            _tell_damage(model)


def _tell_damage(model: ModelEntry) -> None:
    in_place = model.get("damaged_in_place", [])
    if not in_place:
        note(f"The files of {model['name']} are damaged; `puna repair {model['name']}` fetches what is.")
        return
    # Only here is the code needed that looks into the store.
    from cli.originals import tell_lost_original

    for digest in in_place:
        tell_lost_original(model["name"], digest)


def model_rows(models: Sequence[ModelEntry], now: datetime) -> list[tuple[str, ...]]:
    return [
        (
            model["name"],
            model["digest"][:12],
            format_size(model["size"]),
            format_age(parse_time(model["modified_at"]), now),
        )
        for model in models
    ]


def copy_model(source: str, destination: str) -> None:
    connect().copy(source, destination)
    write_line(f"copied '{source}' to '{destination}'")


def remove_models(names: Sequence[str], *, force: bool) -> None:
    """Remove one after the other; the first that fails ends it. With `force` also those in use."""
    client = connect()
    for name in names:
        client.delete(name, force=force)
        write_line(f"deleted '{name}'")
