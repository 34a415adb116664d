"""Commands that say who may use the daemon from other machines."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli.help import Command, Group, examples
from cli.usage.arguments import Action, AsJson

key = typer.Typer(
    cls=Group,
    help="Make API keys for programs on other machines.",
    epilog=examples(
        "puna key create laptop",
        "puna key create build --scope infer,read,manage --background",
        "puna key remove laptop",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@key.command(name="create", cls=Command)
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it here.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPES",
            help="infer (use models), read (see what is here), manage (fetch, make and remove models), with commas "
            "between them. infer,read if none is named.",
        ),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Let the requests of others go before those with this key.")
    ] = False,
    as_json: AsJson = False,
) -> Action:
    """Make a key and print it, this once."""
    from cli.commands.key import create_key

    scopes = ("infer,read",) if scope is None else scope
    return partial(create_key, name, scopes, is_background=background, as_json=as_json)


@key.command(name="list", cls=Command)
def list_keys(as_json: AsJson = False) -> Action:
    """Print which keys there are, and what for."""
    from cli.commands.key import list_keys

    return partial(list_keys, as_json=as_json)


@key.command(name="remove", cls=Command)
def remove_key(
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="Which key is to be good for nothing any more.")],
) -> Action:
    """Take a key back."""
    from cli.commands.key import remove_key

    return partial(remove_key, name)
