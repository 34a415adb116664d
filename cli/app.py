"""The commands: their names, groups and examples, and how a command line is run.

What a command takes is said in `cli.usage`. There it only says what is to be done; `run` does it when
the parser has left the stage, since the parser has its own ideas about interrupts and broken pipes.
What is done is in `cli.commands`, imported when it is called for.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli.errors import WRONG_USAGE
from cli.help import Command, Group, examples
from cli.output import fail_output
from cli.usage import access, making, running, sources, store

app = typer.Typer(
    name="puna",
    cls=Group,
    help="Run language models on this machine. `puna COMMAND --help` tells more of a command.",
    epilog=examples('puna run smollm2:135m "Why is the sky blue?"', "puna run smollm2:135m", "puna search qwen"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ANSWERS, _HERE, _ELSEWHERE, _OWN = "Answers", "Models that are here", "Models from elsewhere", "Models of your own"
_COMMANDS = (
    (_ANSWERS, "run", running.run, (
        "puna run smollm2:135m",
        'puna run smollm2:135m "Why is the sky blue?" -o temperature=0',
        'git diff | puna run smollm2:135m "Summarize this change in one sentence."',
    )),
    (_ANSWERS, "ps", running.ps, ("puna ps", "puna ps --json")),
    (_ANSWERS, "stop", running.stop, ("puna stop smollm2:135m", "puna stop --daemon")),
    (_ANSWERS, "serve", running.serve, (
        "puna serve",
        "puna serve --host 127.0.0.1:8080",
        "puna serve --host 0.0.0.0  # for other machines, by their keys: puna key create NAME",
    )),
    (_ANSWERS, "bench", running.bench, ("puna bench smollm2:135m",)),
    (_HERE, "list", store.list_, ("puna list", "puna list smol --json")),
    (_HERE, "show", store.show, ("puna show smollm2:135m", "puna show smollm2:135m --modelfile")),
    (_HERE, "cp", store.cp, ("puna cp smollm2:135m small",)),
    (_HERE, "rm", store.rm, ("puna rm small",)),
    (_HERE, "verify", store.verify, ("puna verify smollm2:135m", "puna verify --all")),
    (_HERE, "repair", store.repair, ("puna repair smollm2:135m",)),
    (_HERE, "gc", store.gc, ("puna gc --dry-run",)),
    (_ELSEWHERE, "pull", sources.pull, (
        "puna pull smollm2:135m",
        "puna pull hf.co/OWNER/REPO:Q4_K_M --dry-run",
        "puna pull https://example.org/model.gguf --as mine",
    )),
    (_ELSEWHERE, "search", sources.search, ("puna search qwen coder", "puna search --offline")),
    (_ELSEWHERE, "outdated", sources.outdated, ("puna outdated",)),
    (_ELSEWHERE, "update", sources.update, ("puna update smollm2:135m", "puna update --all")),
    (_ELSEWHERE, "push", sources.push, ("puna push registry.example.org/team/model:tag",)),
    (_OWN, "create", making.create, (
        "puna create mine -f Modelfile",
        "puna create mine --from ./model.gguf",
        "puna create mine --from ./folder --quantize q4_K_M",
    )),
    (_OWN, "adopt", making.adopt, ("puna adopt --dry-run", "puna adopt ~/models")),
    (_OWN, "export", making.export, ("puna export smollm2:135m ./folder",)),
)  # fmt: skip

for _panel, _name, _function, _examples in _COMMANDS:
    app.command(name=_name, cls=Command, rich_help_panel=_panel, epilog=examples(*_examples))(_function)
app.command(name="ls", cls=Command, hidden=True)(store.list_)
app.add_typer(access.key, name="key", rich_help_panel=_ANSWERS)
app.add_typer(sources.partials, name="partials", rich_help_panel=_ELSEWHERE)
app.add_typer(sources.registry, name="registry", rich_help_panel=_ELSEWHERE)


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from cli.version import VERSION

        typer.echo(f"puna {VERSION}")
        raise typer.Exit


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Wrong usage has been told when it is 2."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    try:
        wanted = typer.main.get_command(app).main(args=arguments, prog_name="puna", standalone_mode=False)
    except OSError as error:
        # The parser does nothing but write, as its help.
        fail_output(error)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", WRONG_USAGE))
    if not callable(wanted):
        return int(wanted or 0)
    return wanted() or 0
