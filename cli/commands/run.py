"""`puna run`: one answer, or a conversation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.answer import Answer
from cli.client import DaemonClient
from cli.commands.pull import name_of, pull_model
from cli.connect import connect
from cli.errors import ApiError, WrongUsage
from cli.options import parse_options
from cli.output import write
from cli.waiting import Waiting
from cli.wire import Json, ShowReply


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asked for."""

    source: str
    """A name, or the address of a file, which is pulled first and then run under the name it gets."""
    prompt: Sequence[str] = ()
    keep_alive: str | None = None
    system: str | None = None
    options: Sequence[str] = ()
    verbose: bool = False
    model: str = field(init=False)
    arguments: Json = field(init=False)
    """The fields every request of this run carries; raises WrongUsage for what cannot be."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", name_of(self.source))
        arguments: Json = {"model": self.model}
        options = parse_options(self.options)
        if options:
            arguments["options"] = options
        if self.keep_alive is not None:
            arguments["keep_alive"] = _checked_duration(self.keep_alive)
        object.__setattr__(self, "arguments", arguments)


def run(request: RunRequest) -> None:
    """Answer the prompt and piped input; without either, on a terminal, hold a conversation."""
    prompt = _prompt(request.prompt)
    if prompt is None:
        client = connect()
        shown = find_or_pull(client, request.model, request.source)
        from cli.chat_loop import chat

        chat(client, request, shown)
        return
    client = connect()
    body: Json = {**request.arguments, "prompt": prompt}
    if request.system is not None:
        body["system"] = request.system
    answer_once(client, body, request.source, verbose=request.verbose)


def answer_once(client: DaemonClient, body: Json, source: str, *, verbose: bool) -> None:
    """Write one answer; the model is fetched from `source` first when it is not here."""
    try:
        with Waiting():
            records = client.generate(body)
    except ApiError as error:
        if error.code != "model_not_found":
            raise
        pull_model(client, source)
        with Waiting():
            records = client.generate(body)
    answer = Answer()
    try:
        answer.write(records)
    except KeyboardInterrupt:
        write("\n")
        raise
    except Exception:
        if answer.text:
            write("\n")  # The error starts a line of its own.
        raise
    # On a terminal an empty line keeps the answer apart from the next prompt of the shell.
    write("\n\n" if sys.stdout.isatty() else "\n")
    answer.tell_shortened()
    if verbose:
        answer.tell_statistics()


def find_or_pull(client: DaemonClient, name: str, source: str | None = None) -> ShowReply:
    """A model's description; the model is fetched first, from `source` if that is given, when it is not here."""
    try:
        return client.show(name)
    except ApiError as error:
        if error.code != "model_not_found":
            raise
    pull_model(client, source or name)
    return client.show(name)


def _prompt(words: Sequence[str]) -> str | None:
    """Piped text and the words after it; None when there is neither and a person sits at the terminal."""
    piped = None if sys.stdin is None or sys.stdin.isatty() else _read_piped()
    parts = [part for part in (piped, " ".join(words)) if part]
    if parts:
        return " ".join(parts)
    if piped is None and sys.stdin is not None and sys.stdout.isatty():
        return None
    raise WrongUsage('There is nothing to answer: give a prompt, as in puna run MODEL "Why is the sky blue?".')


def _read_piped() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongUsage(f"Standard input is no UTF-8 text (byte {error.start}).") from None
    return text.strip()


def _checked_duration(text: str) -> str:
    from runner.notation import parse_duration

    try:
        parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"--keepalive: {error}.") from None
    return text
