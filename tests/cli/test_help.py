"""What the command line tells of itself: every command with its arguments and examples that are true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cli.app import app
from cli.outcome import exit_code_of
from tests.cli.fake_daemon import TIMEOUT

README = Path(__file__).parents[2] / "README.md"
PARSER = typer.main.get_command(app)
COMMANDS = ("run", "ps", "stop", "serve", "bench", "list", "show", "cp", "rm", "verify", "repair", "gc", "pull",
            "search", "outdated", "update", "push", "partials", "registry", "key", "create", "adopt",
            "export")  # fmt: skip
NESTED = (("partials", "rm"), ("registry", "add"), ("registry", "list"), ("registry", "remove"), ("registry", "key"),
          ("key", "create"), ("key", "list"), ("key", "remove"))  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert exit_code_of([*arguments]) == 0
    return capsys.readouterr().out


def check(line: str) -> None:
    """Have the parser read a line as somebody would type it; nothing is done."""
    words = shlex.split(line, comments=True)
    start = len(words) - 1 - words[::-1].index("puna")
    assert callable(PARSER.main(args=words[start + 1 :], prog_name="puna", standalone_mode=False)), line


def lines_of_readme() -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", README.read_text("utf-8"), re.DOTALL):
        yield from (line for line in block.splitlines() if re.match(r"(.* \| )?puna ", line))


def test_the_overview_has_every_command_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "--help")
    assert set(COMMANDS) == set(re.findall(r"^  ([a-z]+) {2,}[A-Z]", told, re.MULTILINE))
    assert "..." not in told.replace("[ARGS]...", "")
    assert told.index("Answers:") < told.index("  run ") < told.index("Models that are here:") < told.index("  list ")


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), *NESTED], ids=" ".join)
def test_a_command_tells_what_it_takes_in_plain_words(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    told = printed(capsys, *command, "--help")
    assert told.startswith(f"Usage: puna {' '.join(command)} [OPTIONS]")
    assert not re.search(r"<str>|<list|\{|\[required\]", told)
    arguments = told.partition("Arguments:\n")[2].partition("\n\n")[0]
    assert all(re.match(r"  \S+  +\S", line) or line.startswith("     ") for line in arguments.splitlines())
    assert printed(capsys, "help", *command) == told


def test_required_and_repeated_arguments_look_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: puna run [OPTIONS] MODEL [PROMPT]...\n" in printed(capsys, "run", "-h")
    assert "Usage: puna rm [OPTIONS] MODEL...\n" in printed(capsys, "rm", "-h")
    assert "Usage: puna adopt [OPTIONS] [PATH]\n" in printed(capsys, "adopt", "-h")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_can_be_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, command, "--help").partition("Examples:\n")[2].splitlines()
    assert lines
    for line in lines:
        assert f"puna {command}" in line
        check(line)


def test_every_command_of_the_readme_can_be_typed() -> None:
    lines = list(lines_of_readme())
    assert len(lines) > 5
    for line in lines:
        check(line)


def test_a_narrow_terminal_loses_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = printed(capsys, "--help")
    monkeypatch.setenv("COLUMNS", "40")
    narrow = printed(capsys, "--help")
    assert narrow.split() == wide.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage: puna"),
        (("runn",), "Did you mean 'run'?"),
        (("pull",), "Missing argument 'MODEL|URL|FILE|FOLDER'"),
        (("run", "--nope", "x"), "No such option: --nope"),
        (("cp", "a"), "Missing argument 'DESTINATION'"),
        (("search", "--limit", "0"), "--limit"),
        (("help", "runn"), "Did you mean 'run'?"),
    ],
)
def test_wrong_usage_is_told_with_the_way_to_the_help(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert exit_code_of([*arguments]) == 2
    told = capsys.readouterr()
    assert said in told.err and "Usage: puna" in told.err and told.out == ""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("module", ["cli.outcome", "cli.app", "typer", "cli.commands.bench"])
def test_ctrl_c_while_the_program_is_being_read_is_quiet(environment: dict[str, str], module: str) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv[1:] = ['bench', 'smol']\n"
        "from cli.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(README.parent)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
