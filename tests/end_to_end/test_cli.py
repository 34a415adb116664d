"""The command line against a live daemon with a real model, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PUNA
from tests.end_to_end.conftest import MODEL, REPOSITORY, TIMEOUT, Daemon, daemon_environment
from tests.kept_port import kept_port

SHORT = ("-o", "temperature=0", "-o", "num_predict=32")
"""Left alone, a model this small may repeat itself until its window is full."""


def puna(daemon: Daemon, *arguments: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PUNA, *arguments],
        env=daemon.environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_a_prompt_is_answered_on_standard_output(shared_daemon: Daemon) -> None:
    done = puna(shared_daemon, "run", MODEL, "Why is the sky blue?", *SHORT)
    assert re.search("sky|light", done.stdout)


def test_piped_input_is_joined_to_the_prompt(shared_daemon: Daemon) -> None:
    piped = puna(shared_daemon, "run", MODEL, "Which city is it?", *SHORT, stdin="The Eiffel tower is in Paris.\n")
    assert "Paris" in piped.stdout


def test_verbose_tells_counts_and_speeds(shared_daemon: Daemon) -> None:
    done = puna(shared_daemon, "run", MODEL, "Hello", "--verbose", "-o", "num_predict=8")
    assert re.search(r"prompt eval rate:\s+[\d.,]+ tokens/s", done.stderr)
    assert re.search(r"eval count:\s+\d+ token", done.stderr)


def test_listings_are_tables_for_people_and_json_for_programs(shared_daemon: Daemon) -> None:
    assert re.search(rf"{MODEL}\s+[0-9a-f]{{12}}\s+98 MB", puna(shared_daemon, "list").stdout)
    assert MODEL in {model["name"] for model in json.loads(puna(shared_daemon, "list", "--json").stdout)["models"]}
    puna(shared_daemon, "run", MODEL, "Hi", "-o", "num_predict=2")
    assert re.search(rf"{MODEL}.*100% CPU\s+4096 of 8192", puna(shared_daemon, "ps").stdout)
    assert json.loads(puna(shared_daemon, "ps", "--json").stdout)["models"][0]["placement"]
    shown = puna(shared_daemon, "show", MODEL).stdout
    assert "Q4_1" in shown
    assert "8192" in shown


def test_a_model_is_stopped_copied_and_removed(changing_daemon: Daemon) -> None:
    puna(changing_daemon, "run", MODEL, "Hi", "-o", "num_predict=2")
    puna(changing_daemon, "stop", MODEL)
    assert changing_daemon.loaded() == []
    puna(changing_daemon, "cp", MODEL, "copy")
    puna(changing_daemon, "rm", "copy")
    assert "copy" not in puna(changing_daemon, "list").stdout
    puna(changing_daemon, "rm", "copy", code=66)


def test_a_model_that_answers_is_removed_by_force_alone(daemon: Daemon) -> None:
    answering = subprocess.Popen(
        [*PUNA, "run", MODEL, "Write a very long story.", "-o", "temperature=0", "-o", "num_predict=2000"],
        env=daemon.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert answering.stdout is not None
    assert answering.stdout.read(1)
    assert "--force" in puna(daemon, "rm", MODEL, code=1).stderr
    puna(daemon, "rm", "--force", MODEL)
    _, error = answering.communicate(timeout=TIMEOUT)
    assert (answering.returncode, "was removed while it was in use" in error) == (66, True), error
    assert daemon.loaded() == []
    assert MODEL not in puna(daemon, "list").stdout


def test_an_unknown_model_is_one_sentence_and_an_exit_code(shared_daemon: Daemon) -> None:
    done = puna(shared_daemon, "show", "no-such-model", code=66)
    assert "no-such-model" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_wrong_usage_is_exit_code_two(shared_daemon: Daemon) -> None:
    puna(shared_daemon, "run", code=2)
    puna(shared_daemon, "nonsense", code=2)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "Modelfile-examples").iterdir()), ids=lambda path: path.name)
def test_every_example_modelfile_is_created_and_runs(changing_daemon: Daemon, path: Path) -> None:
    puna(changing_daemon, "create", path.stem, "-f", str(path))
    done = puna(changing_daemon, "run", path.stem, "Hello, who are you?", "-o", "num_predict=24", "-o", "seed=1")
    assert done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_conversation_goes_back_and_forth_in_a_terminal(changing_daemon: Daemon) -> None:
    from tests.cli.terminal import CTRL_C, ENTER, terminal

    at_the_prompt = "^>>> Send a message"
    with terminal(changing_daemon.environment | {"TERM": "xterm-256color"}, "run", MODEL, *SHORT) as chat:
        chat.wait_for(at_the_prompt)
        chat.type("Why is the sky blue?" + ENTER)
        chat.wait_for(rf"sky blue\?\n(.*\n)*.*(sky|light)(.*\n)+{at_the_prompt}")
        chat.type("/set parameter num_predict 2000" + ENTER)
        chat.wait_for("Set parameter 'num_predict' to '2000'")
        chat.type("Write a very long story about the sea." + ENTER)
        chat.wait_for(r"about the sea\.\n+(?!Waiting)\S+ \S+")
        chat.type(CTRL_C)
        chat.wait_for(rf"about the sea\.\n(.*\n)+{at_the_prompt}")
        changing_daemon.wait_until_idle()
        chat.type("/save talk" + ENTER)
        chat.wait_for("Created new model 'talk'")
        chat.type("/bye" + ENTER)
        assert chat.wait_for_end() == 0
    assert "talk:latest" in puna(changing_daemon, "list").stdout


def test_a_command_starts_the_daemon_it_needs_and_says_so_once(models: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PUNA, *arguments], env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    with kept_port() as port:
        environment = daemon_environment(tmp_path, models, f"127.0.0.1:{port}")
        try:
            first = run("run", MODEL, "Why is the sky blue?", *SHORT)
            assert first.returncode == 0 and re.search("sky|light", first.stdout), first
            assert first.stderr.count("Starting the Puna daemon") == 1
            assert "daemon" not in run("list").stderr
        finally:
            stopped = run("stop", "--daemon")
    assert stopped.returncode == 0, stopped
