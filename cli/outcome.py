"""How a command ends: every exception becomes a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys

from cli.errors import FAILED, INTERRUPTED, ApiError, CliError
from cli.output import OutputFailed, drop_output, flush_output, note, prepare_streams, show_error, write_line


def exit_code_of(arguments: list[str]) -> int:
    """Run the command line and tell its exit code; what went wrong has been said on standard error."""
    prepare_streams()
    try:
        try:
            return _run(arguments)
        finally:
            flush_output()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has had what it wanted.
        drop_output()
        return 0
    except OutputFailed as error:
        drop_output()
        show_error(error.message)
        return error.exit_code
    except CliError as error:
        show_error(error.message)
        if isinstance(error, ApiError) and error.facts.get("in_place"):
            from cli.originals import tell_original

            tell_original(error.facts.get("digest"))
        return error.exit_code
    except Exception as error:
        _record_crash(error)
        return FAILED


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        from cli.version import VERSION

        write_line(f"puna {VERSION}")
        return 0
    listing = _plain_listing(arguments)
    if listing is not None:
        from cli.commands.models import list_models
        from cli.commands.ps import list_running

        command = list_models if listing != "ps" else list_running
        command(prefix=None, as_json="--json" in arguments)
        return 0
    from cli.app import run

    return run(arguments)


def _plain_listing(arguments: list[str]) -> str | None:
    """The listing asked for in its simplest form, for which the command line parser would cost most of the time."""
    if arguments and arguments[0] in ("list", "ls", "ps") and arguments[1:] in ([], ["--json"]):
        return arguments[0]
    return None


def _record_crash(error: Exception) -> None:
    """Write the traceback where the user can find it, and say where."""
    import traceback
    from datetime import datetime

    told = "".join(traceback.format_exception(error))
    try:
        from registry.paths import Paths

        folder = Paths.from_environment(os.environ).logs
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "puna-crash.log"
        with log.open("a", encoding="utf-8") as file:
            file.write(f"--- {datetime.now().astimezone().isoformat()} puna {sys.argv[1:2]}\n{told}\n")
    except Exception:
        show_error(f"Something went wrong inside puna ({type(error).__name__}: {error}).")
        return
    show_error(f"Something went wrong inside puna ({type(error).__name__}).")
    note(f"The details are in {log}")
