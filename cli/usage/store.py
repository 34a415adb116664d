"""Commands about the models that are here."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli.errors import WrongUsage
from cli.usage.arguments import Action, AsJson, Model, Prefix


def list_(prefix: Prefix = None, as_json: AsJson = False) -> Action:
    """List the models that are here (also: ls)."""
    from cli.commands.models import list_models

    return partial(list_models, prefix, as_json=as_json)


def show(
    model: Model,
    license: Annotated[bool, typer.Option("--license", help="Print the licence alone.")] = False,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Print the Modelfile alone.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print the parameters alone.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Print the system text alone.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the template alone.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print metadata and tensors too.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Show what a model is, and how it fits this machine."""
    from cli.commands.show import PARTS, show

    wanted = [
        part
        for part, is_wanted in zip(PARTS, (license, modelfile, parameters, system, template), strict=True)
        if is_wanted
    ]
    if len(wanted) > 1:
        raise WrongUsage(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
        )
    return partial(show, model, wanted[0] if wanted else None, verbose=verbose, as_json=as_json)


def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model that is here.")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="What to call it as well.")],
) -> Action:
    """Give a model a second name."""
    from cli.commands.models import copy_model

    return partial(copy_model, source, destination)


def rm(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="The models to remove.")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also models that answer or are being downloaded.")
    ] = False,
) -> Action:
    """Remove models."""
    from cli.commands.models import remove_models

    return partial(remove_models, models, force=force)


def verify(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="The models to read again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All models.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Read the files of models again, and tell which are damaged."""
    from cli.commands.verify import verify

    return partial(verify, models or (), everything=everything, as_json=as_json)


def repair(model: Model) -> Action:
    """Fetch again what is damaged of a model, and nothing else."""
    from cli.commands.verify import repair

    return partial(repair, model)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go; remove nothing.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Remove files that no model needs."""
    from cli.commands.garbage import collect_garbage

    return partial(collect_garbage, dry_run=dry_run, as_json=as_json)
