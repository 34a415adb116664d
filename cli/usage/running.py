"""Commands that answer, and those about what runs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli.errors import WrongUsage
from cli.usage.arguments import Action, AsJson, Model, Prefix


def run(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model, such as smollm2:135m, or the address of a GGUF file."),
    ],
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What to answer; none opens a conversation.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print counts and speeds after an answer.")] = False,
    keepalive: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long the model stays loaded, such as 10m; -1s is for ever."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Replace the model's system text.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Set an option, such as temperature=0."),
    ] = None,
) -> Action:
    """Answer a prompt, or hold a conversation. Piped input comes before the prompt."""
    from cli.commands.run import RunRequest, run

    return partial(run, RunRequest(model, prompt or (), keepalive, system, option or (), verbose))


def ps(prefix: Prefix = None, as_json: AsJson = False) -> Action:
    """List the models that are loaded."""
    from cli.commands.ps import list_running

    return partial(list_running, prefix, as_json=as_json)


def stop(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model to unload.")] = None,
    daemon: Annotated[bool, typer.Option("--daemon", help="End the background daemon.")] = False,
) -> Action:
    """Unload a model, or end the background daemon."""
    from cli.commands.ps import stop_daemon, stop_model

    if daemon == (model is not None):
        raise WrongUsage("Name the model to unload, or end the daemon itself with `puna stop --daemon`.")
    return stop_daemon if model is None else partial(stop_model, model)


def serve(
    host: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Where to listen.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow other machines to connect without API keys.")
    ] = False,
) -> Action:
    """Run the daemon in the foreground, until Ctrl-C."""
    from cli.commands.serve import serve

    return partial(serve, host, insecure=insecure)


def bench(model: Model, as_json: AsJson = False) -> Action:
    """Measure how fast a model reads and writes on this machine."""
    from cli.commands.bench import bench

    return partial(bench, model, as_json=as_json)
