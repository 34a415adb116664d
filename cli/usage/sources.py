"""Commands that bring models here from elsewhere, and send them there."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli.errors import WrongUsage
from cli.help import Command, Group, examples
from cli.usage.arguments import Action, AsJson, Host, Insecure, Model, Models


def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|URL|FILE|FOLDER",
            help="A name, such as smollm2:135m or hf.co/OWNER/REPO:Q4_K_M; the address of a GGUF file; or files here.",
        ),
    ],
    given_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Call the model so, instead of what the source says.")
    ] = None,
    insecure: Insecure = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be fetched and whether it fits; fetch nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs; with --dry-run.")] = False,
) -> Action:
    """Fetch a model; one that broke off is gone on with."""
    if dry_run:
        from cli.commands.plan import show_plan

        return partial(show_plan, source, given_name, insecure=insecure, as_json=as_json)
    if as_json:
        raise WrongUsage("--json goes with --dry-run.")
    from cli.commands.pull import pull

    return partial(pull, source, given_name, insecure=insecure)


def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD", help="What to look for; none lists all.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many of the hub's models.")] = 20,
    offline: Annotated[bool, typer.Option("--offline", help="Look in the catalog alone.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Look for models in the catalog and on Hugging Face."""
    from cli.commands.search import search

    return partial(search, words or (), limit=limit, offline=offline, as_json=as_json)


def outdated(models: Models = None, as_json: AsJson = False) -> Action:
    """Tell which models have something newer at their sources."""
    from cli.commands.update import list_outdated

    return partial(list_outdated, models or (), as_json=as_json)


def update(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model to fetch again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are outdated.")] = False,
) -> Action:
    """Fetch models again whose sources have something newer."""
    from cli.commands.update import update

    return partial(update, model, everything=everything)


def push(model: Model, insecure: Insecure = False) -> Action:
    """Send a model to the registry that its name tells."""
    from cli.commands.push import push

    return partial(push, model, insecure=insecure)


partials = typer.Typer(
    cls=Group,
    help="List downloads that broke off, or throw them away.",
    epilog=examples("puna partials", "puna partials rm smollm2:135m"),
    invoke_without_command=True,
    rich_markup_mode=None,
)


@partials.callback()
def list_partials(context: typer.Context, as_json: AsJson = False) -> Action | None:
    if context.invoked_subcommand is not None:
        return None
    from cli.commands.garbage import list_partials

    return partial(list_partials, as_json=as_json)


@partials.command(name="rm", cls=Command)
def remove_partials(
    names: Annotated[list[str], typer.Argument(metavar="NAME|DIGEST", help="Which to throw away.")],
) -> Action:
    """Throw away what was fetched."""
    from cli.commands.garbage import remove_partials

    return partial(remove_partials, names)


registry = typer.Typer(
    cls=Group,
    help="List registries that are private, on this machine or without TLS.",
    epilog=examples("puna registry add localhost:5000 --insecure", "puna registry list"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@registry.command(name="add", cls=Command)
def add_registry(
    host: Host,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Also over plain HTTP, or with a certificate nobody vouches for.")
    ] = False,
    mirror: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT]", help="Another registry to ask first for the same models.")
    ] = None,
    key: Annotated[bool, typer.Option("--key", help="It knows accounts by keys, as Ollama's does.")] = False,
) -> Action:
    """List a registry, or change how it is listed."""
    from cli.commands.registry import add_registry

    return partial(add_registry, host, insecure=insecure, mirror=mirror, key=key)


@registry.command(name="list", cls=Command)
def list_registries(as_json: AsJson = False) -> Action:
    """Print the registries that are listed."""
    from cli.commands.registry import list_registries

    return partial(list_registries, as_json=as_json)


@registry.command(name="remove", cls=Command)
def remove_registry(host: Host) -> Action:
    """Take a registry off the list."""
    from cli.commands.registry import remove_registry

    return partial(remove_registry, host)


@registry.command(name="key", cls=Command)
def registry_key() -> Action:
    """Print this machine's public key. Registries such as Ollama's know an account by it."""
    from cli.commands.registry import print_key

    return partial(print_key)
