"""The commands and their arguments.

A command here only says what is to be done; `run` does it when the parser has left the stage, since
the parser has its own ideas about interrupts and broken pipes. What is done is in `cli.commands`,
imported when it is called for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from cli.errors import WRONG_USAGE, WrongUsage
from cli.output import fail_output

app = typer.Typer(
    name="puna",
    help="Run language models on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model, such as smollm2:135m.")]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow plain HTTP and any certificate, of a registry that is listed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]


Action = Callable[[], int | None]


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Wrong usage has been told when it is 2."""
    try:
        wanted = typer.main.get_command(app).main(args=arguments, prog_name="puna", standalone_mode=False)
    except OSError as error:
        # The parser does nothing but write, as its help.
        fail_output(error)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", WRONG_USAGE))
    if not callable(wanted):
        return int(wanted or 0)
    return wanted() or 0


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from cli.version import VERSION

        typer.echo(f"puna {VERSION}")
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Where to listen.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow other machines to connect, without keys.")
    ] = False,
) -> Action:
    """Run the daemon in the foreground, until Ctrl-C."""
    from cli.commands.serve import serve

    return partial(serve, host, insecure=insecure)


@app.command(name="run")
def run_(
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


@app.command()
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
    as_json: AsJson = False,
) -> Action:
    """Fetch a model; one that broke off is gone on with."""
    if dry_run:
        from cli.commands.plan import show_plan

        return partial(show_plan, source, given_name, insecure=insecure, as_json=as_json)
    if as_json:
        raise WrongUsage("--json goes with --dry-run.")
    from cli.commands.pull import pull

    return partial(pull, source, given_name, insecure=insecure)


@app.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="The models to read again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All models.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Read the files of models again, and tell which are damaged."""
    from cli.commands.verify import verify

    return partial(verify, models or (), everything=everything, as_json=as_json)


@app.command()
def repair(model: Model) -> Action:
    """Fetch again what is damaged of a model, and nothing else."""
    from cli.commands.verify import repair

    return partial(repair, model)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go; remove nothing.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Remove files that no model needs."""
    from cli.commands.garbage import collect_garbage

    return partial(collect_garbage, dry_run=dry_run, as_json=as_json)


partials = typer.Typer(
    help="List downloads that broke off, or throw them away.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(partials, name="partials")


@partials.callback()
def list_partials(context: typer.Context, as_json: AsJson = False) -> Action | None:
    if context.invoked_subcommand is not None:
        return None
    from cli.commands.garbage import list_partials

    return partial(list_partials, as_json=as_json)


@partials.command(name="rm")
def remove_partials(
    names: Annotated[list[str], typer.Argument(metavar="NAME|DIGEST", help="Which to throw away.")],
) -> Action:
    """Throw away what was fetched."""
    from cli.commands.garbage import remove_partials

    return partial(remove_partials, names)


@app.command()
def push(model: Model, insecure: Insecure = False) -> Action:
    """Send a model to the registry that its name tells."""
    from cli.commands.push import push

    return partial(push, model, insecure=insecure)


registry = typer.Typer(
    help="Say which registries may be asked that are not public, or not protected.", no_args_is_help=True
)
app.add_typer(registry, name="registry")
Host = Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A registry, as it stands in names of models.")]


@registry.command(name="add")
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


@registry.command(name="key")
def registry_key() -> Action:
    """Print this machine's public key, which registries such as Ollama's know an account by."""
    from cli.commands.registry import print_key

    return partial(print_key)


@registry.command(name="list")
def list_registries(as_json: AsJson = False) -> Action:
    """List them."""
    from cli.commands.registry import list_registries

    return partial(list_registries, as_json=as_json)


@registry.command(name="remove")
def remove_registry(host: Host) -> Action:
    """Take a registry off the list."""
    from cli.commands.registry import remove_registry

    return partial(remove_registry, host)


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD", help="What to look for; none lists all.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many of the hub's models.")] = 20,
    offline: Annotated[bool, typer.Option("--offline", help="Look in the catalog alone.")] = False,
    as_json: AsJson = False,
) -> Action:
    """Look for models in the catalog and on Hugging Face."""
    from cli.commands.search import search

    return partial(search, words or (), limit=limit, offline=offline, as_json=as_json)


@app.command()
def outdated(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Only these models.")] = None,
    as_json: AsJson = False,
) -> Action:
    """Tell which models have something newer at their sources."""
    from cli.commands.update import list_outdated

    return partial(list_outdated, models or (), as_json=as_json)


@app.command()
def update(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model to fetch again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are outdated.")] = False,
) -> Action:
    """Fetch models again whose sources have something newer."""
    from cli.commands.update import update

    return partial(update, model, everything=everything)


@app.command(name="list")
def list_(
    prefix: Annotated[str | None, typer.Argument(metavar="PREFIX", help="Only names that begin with this.")] = None,
    as_json: AsJson = False,
) -> Action:
    """List the models that are here (also: ls)."""
    from cli.commands.models import list_models

    return partial(list_models, prefix, as_json=as_json)


app.command(name="ls", hidden=True)(list_)


@app.command()
def ps(
    prefix: Annotated[str | None, typer.Argument(metavar="PREFIX", help="Only names that begin with this.")] = None,
    as_json: AsJson = False,
) -> Action:
    """List the models that are loaded."""
    from cli.commands.ps import list_running

    return partial(list_running, prefix, as_json=as_json)


@app.command()
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
    """Show what a model is."""
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


@app.command()
def bench(model: Model, as_json: AsJson = False) -> Action:
    """Measure how fast a model reads and writes on this machine."""
    from cli.commands.bench import bench

    return partial(bench, model, as_json=as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new model.")],
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="MODELFILE", help="The Modelfile; - is standard input.", show_default="Modelfile"
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|FOLDER|MODEL",
            help="A GGUF file, a folder with a model, or a model, instead of a Modelfile.",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "-q", metavar="TYPE", help="Bring F16, BF16 or F32 weights into a type: q4_K_M."),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="llama.cpp's importance matrix for --quantize; the smallest types need one."),
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="TEXT_FILE", help="Compute the matrix from what the model makes of a text.")
    ] = None,
    draft_quantize: Annotated[
        str | None, typer.Option("--draft-quantize", metavar="TYPE", help="The same as --quantize for the draft model.")
    ] = None,
) -> Action:
    """Make a model."""
    from cli.commands.create import create, quantization_of

    return partial(create, name, file, origin, quantization_of(quantize, imatrix, calibrate, draft_quantize))


@app.command()
def adopt(
    place: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="A folder or a GGUF file; none: the usual places of other programs."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What to call the one model that is there.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be adopted.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of sharing them.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace models that have the names.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show the files that are used where other programs keep them.")
    ] = False,
    as_json: AsJson = False,
) -> Action:
    """Use models of Ollama, LM Studio, Hugging Face or any folder without a second copy."""
    from cli.commands.adopt import AdoptRequest, adopt_models, list_adoptable, list_references

    if status:
        if place is not None or name is not None or dry_run or copy or force:
            raise WrongUsage("--status only shows what was adopted; it takes nothing but --json.")
        return partial(list_references, as_json=as_json)
    request = AdoptRequest(place, name, copy, force, as_json)
    return partial(list_adoptable if dry_run else adopt_models, request)


@app.command()
def export(
    model: Model,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to put the files; made if need be.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files of the same names.")] = False,
) -> Action:
    """Write a model as plain GGUF files and a Modelfile."""
    from cli.commands.export import export

    return partial(export, model, folder, force=force)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION")],
) -> Action:
    """Give a model a second name."""
    from cli.commands.models import copy_model

    return partial(copy_model, source, destination)


@app.command()
def rm(
    models: Annotated[list[str], typer.Argument(metavar="MODEL")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also models that answer or are being downloaded.")
    ] = False,
) -> Action:
    """Remove models."""
    from cli.commands.models import remove_models

    return partial(remove_models, models, force=force)


@app.command()
def stop(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model to unload.")] = None,
    daemon: Annotated[bool, typer.Option("--daemon", help="End the background daemon.")] = False,
) -> Action:
    """Unload a model, or end the background daemon."""
    from cli.commands.ps import stop_daemon, stop_model

    if daemon == (model is not None):
        raise WrongUsage("Name the model to unload, or end the daemon itself with `puna stop --daemon`.")
    return stop_daemon if model is None else partial(stop_model, model)
