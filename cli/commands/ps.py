"""`puna ps` and `puna stop`: models in memory, and the daemon itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cli.client import NotListening
from cli.connect import connect
from cli.errors import MODEL_NOT_FOUND, ApiError, CliError
from cli.formats import format_expiry, format_processor, format_size, parse_time
from cli.output import note, write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import RunningModel


def list_running(prefix: str | None, *, as_json: bool) -> None:
    """Print the loaded models; with a prefix those whose names begin with it, in whatever case.

    Without a daemon none is loaded, so that none is started for this.
    """
    try:
        models = connect(start=False).running()
    except NotListening:
        note("The daemon is not running, so no model is loaded.")
        models = []
    if prefix:
        models = [model for model in models if model["name"].lower().startswith(prefix.lower())]
    if as_json:
        write_json({"models": models})
    else:
        write_table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), running_rows(models, datetime.now(UTC)))


def running_rows(models: Sequence[RunningModel], now: datetime) -> list[tuple[str, ...]]:
    return [
        (
            model["name"],
            model["digest"][:12],
            format_size(model["size"]),
            format_processor(model["size"], model.get("size_vram", 0)),
            _context(model),
            _until(model, now),
        )
        for model in models
    ]


def _context(model: RunningModel) -> str:
    """The window as it is, and what it can grow to."""
    current, largest = model.get("context_length"), model.get("largest_context_length")
    if not current:
        return "-"
    return f"{current} of {largest}" if largest and largest > current else str(current)


def _until(model: RunningModel, now: datetime) -> str:
    state = model.get("state")
    if state == "loading":
        return "Loading..."
    if state == "stopping":
        return "Stopping..."
    return format_expiry(parse_time(model.get("expires_at") or ""), now)


def stop_model(name: str) -> None:
    """Unload a model as soon as its running answers have ended."""
    try:
        connect(start=False).load(name, keep_alive=0)
    except NotListening:
        note("The daemon is not running, so no model is loaded.")
        return
    except ApiError as error:
        if error.code != "model_not_found":
            raise
        raise CliError(
            f'couldn\'t find model "{name}" to stop. `puna ps` shows what is loaded.', MODEL_NOT_FOUND
        ) from None
    write_line(f"stopped '{name}'")


def stop_daemon() -> None:
    """End the daemon that runs in the background."""
    from cli import service

    if service.stop_daemon():
        write_line("The daemon has stopped.")
    else:
        note("The daemon is not running.")
