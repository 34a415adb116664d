"""`puna outdated` and `puna update`: models whose sources have something newer."""

from __future__ import annotations

from collections.abc import Sequence

from cli.client import DaemonClient
from cli.commands.pull import pull_model
from cli.connect import connect
from cli.errors import FAILED, CliError, WrongUsage
from cli.output import note, show_error, write_json, write_line, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cli.wire import SourceVerdict

_STATES = {"current": "up to date", "outdated": "outdated", "unknown": "not known"}


def list_outdated(names: Sequence[str], *, as_json: bool) -> None:
    """Print for each model, or for those named, whether its source has something newer, or why nobody can tell."""
    verdicts = connect().outdated(names)
    if as_json:
        write_json({"models": verdicts})
        return
    write_table(
        ("NAME", "STATE", "WHY"),
        [(one["name"], _STATES.get(one["state"], one["state"]), one.get("reason", "")) for one in verdicts],
    )
    if any(one["state"] == "outdated" for one in verdicts):
        note("`puna update NAME` or `puna update --all` fetches what is newer.")


def update(name: str | None, *, everything: bool) -> int:
    """Pull a model again from where it came from, or every model that is outdated; returns the exit code.

    With `everything`, a model that fails does not keep the others from being updated.
    """
    if everything == (name is not None):
        raise WrongUsage("Name the model to update, or update all that are outdated with --all.")
    client = connect()
    if name is not None:
        [verdict] = client.outdated([name])
        _update_one(client, verdict)
        return 0
    code = 0
    verdicts = client.outdated([])
    for verdict in verdicts:
        if verdict["state"] == "outdated":
            try:
                _update_one(client, verdict)
            except CliError as error:
                show_error(f"{verdict['name']}: {error.message}")
                code = error.exit_code
        elif verdict["state"] == "unknown" and "source" in verdict:
            note(f"{verdict['name']} is left as it is: {verdict['reason'].rstrip('.')}.")
    if not any(one["state"] == "outdated" for one in verdicts):
        write_line("Nothing to update.")
    return code


def _update_one(client: DaemonClient, verdict: SourceVerdict) -> None:
    name, source = verdict["name"], verdict.get("source")
    if verdict["state"] == "current":
        write_line(f"{name} is up to date.")
        return
    if source is None:
        raise CliError(f"{name} cannot be updated: {verdict['reason'].rstrip('.')}.", FAILED)
    write_line(f"updating {name}")
    pull_model(client, source, name)
