"""The interactive conversation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from cli.answer import Answer
from cli.client import DaemonClient, NotListening
from cli.commands.models import list_models
from cli.commands.run import RunRequest
from cli.commands.show import describe
from cli.connect import connect
from cli.errors import ApiError, CliError, WrongUsage
from cli.options import add_option
from cli.output import note, show_error, write_line
from cli.progress import follow, progress_view
from cli.prompt_line import PromptLine, typing_ahead, unquote
from cli.waiting import Waiting
from cli.wire import Json, Message, ShowReply

HELP = """\
  /set parameter NAME VALUE   Set an option for the next answers
  /set system TEXT            Set the system text
  /set verbose | quiet        Print counts and speeds after each answer, or not
  /set history | nohistory    Keep what is typed for later sessions, or not
  /show info | license | modelfile | parameters | system | template
  /clear                      Forget the conversation; the system text stays
  /save NAME                  Make a model of the conversation and its settings
  /load NAME                  Go on with another model, from the beginning
  /list                       List the models that are here
  /bye                        Leave (also Ctrl-D)

  \"\"\"text\"\"\" is a message of several lines; Ctrl-J starts a new line in any message.
  Ctrl-C stops an answer. What came of it stays in the conversation: say "go on" to have the rest."""

T = TypeVar("T")

_SHOWABLE = ("info", "license", "modelfile", "parameters", "system", "template")


def chat(client: DaemonClient, request: RunRequest, shown: ShowReply) -> None:
    """Hold a conversation until the user leaves it."""
    from registry.paths import Paths

    line = PromptLine(Paths.from_environment(os.environ).state / "history")
    with typing_ahead():
        Conversation(client, request, shown, line).run()


class Conversation:
    """One session: the messages so far, and the settings that go with each request."""

    def __init__(self, client: DaemonClient, request: RunRequest, shown: ShowReply, line: PromptLine) -> None:
        self._client = client
        self._line = line
        self._arguments: Json = dict(request.arguments)
        self._options: Json = dict(self._arguments.pop("options", {}))
        self._system = request.system
        self._verbose = request.verbose
        self._messages: list[Message] = []
        self._shown = shown
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/clear": self._clear,
            "/save": self._save,
            "/load": self._load,
            "/list": lambda _: list_models(None, as_json=False),
            "/?": lambda _: write_line(HELP),
            "/help": lambda _: write_line(HELP),
        }

    def run(self) -> None:
        """Read messages and commands and obey them, until /bye or Ctrl-D."""
        self._open_model()
        while True:
            try:
                text = self._line.ask()
            except KeyboardInterrupt:
                write_line("Use Ctrl-D or /bye to leave.")
                continue
            except EOFError:
                return
            word, _, rest = text.strip().partition(" ")
            if word in ("/bye", "/exit"):
                return
            try:
                self._obey(word, rest.strip(), text)
            except KeyboardInterrupt:
                write_line()
            except CliError as error:
                show_error(error.message)

    def _obey(self, word: str, rest: str, text: str) -> None:
        if not word:
            return
        command = self._commands.get(word)
        if command is not None:
            command(rest)
        elif word.startswith("/") and "/" not in word[1:]:
            write_line(f"Unknown command '{word}'. Type /? for help")
        else:
            self._answer(text)

    def _answer(self, text: str) -> None:
        """Send a message. What comes stays in the conversation, whole or not; a message that gets nothing does not."""
        question: Message = {"role": "user", "content": text}
        answer = Answer()
        try:
            with Waiting():
                records = self._with_daemon(lambda client: client.chat(self._body(), self._history([question])))
            answer.write(records)
        finally:
            if answer.text or answer.final is not None:
                self._messages += [question, {"role": "assistant", "content": answer.text}]
                if answer.final is None:
                    write_line()
        write_line("\n")
        answer.tell_shortened()
        if self._verbose:
            answer.tell_statistics()
            note("")

    def _with_daemon(self, call: Callable[[DaemonClient], T]) -> T:
        """Call the daemon; one that has gone since the last message is started again."""
        try:
            return call(self._client)
        except NotListening:
            self._client = connect()
            return call(self._client)

    def _body(self) -> Json:
        return {**self._arguments, "options": self._options} if self._options else dict(self._arguments)

    def _history(self, more: list[Message]) -> list[Message]:
        system: list[Message] = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, *self._messages, *more]

    def _open_model(self) -> None:
        """Load the model, so that the first answer does not wait for it, and print the turns it starts with."""
        try:
            with Waiting():
                self._client.load(
                    self._arguments["model"], keep_alive=self._arguments.get("keep_alive"), options=self._options
                )
        except KeyboardInterrupt:
            write_line()
        for message in self._shown.get("messages") or ():
            if message["role"] == "user":
                write_line(f">>> {message['content']}")
            elif message["role"] == "assistant":
                write_line(f"{message['content']}\n")

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        value = value.strip()
        if what == "parameter":
            self._set_parameter(value)
        elif what == "system" and value:
            self._system = unquote(value)
            write_line("Set system message.")
        elif what in ("verbose", "quiet") and not value:
            self._verbose = what == "verbose"
            write_line(f"Set '{what}' mode.")
        elif what in ("history", "nohistory") and not value:
            self._line.history.is_kept = what == "history"
            write_line("What you type is kept." if what == "history" else "What you type is no longer kept.")
        else:
            raise WrongUsage("/set takes parameter NAME VALUE, system TEXT, verbose, quiet, history or nohistory.")

    def _set_parameter(self, setting: str) -> None:
        name, _, value = setting.partition(" ")
        options: Json = {}
        try:
            # Several stop strings may follow one another.
            for text in value.split() if name == "stop" else [value.strip()]:
                add_option(options, name, text)
        except WrongUsage as error:
            write_line(f'Couldn\'t set parameter: "{error.message}"')
            return
        self._options |= options
        write_line(f"Set parameter '{name}' to '{value.strip()}'")

    def _show(self, what: str) -> None:
        if what not in _SHOWABLE:
            raise WrongUsage(f"/show takes one of {', '.join(_SHOWABLE)}.")
        if what == "info":
            for line in describe(self._shown):
                write_line(line)
        elif what == "parameters":
            self._show_parameters()
        elif what == "system" and self._system is not None:
            write_line(self._system)
        else:
            value: object = self._shown.get(what)
            named = "system message" if what == "system" else what
            write_line(str(value).removesuffix("\n") if value else f"No {named} was specified for this model.")

    def _show_parameters(self) -> None:
        own = self._shown.get("parameters")
        if own:
            write_line("Model defined parameters:")
            for line in own.splitlines():
                write_line(f"  {line}")
        if self._options:
            write_line("User defined parameters:")
            for name, value in self._options.items():
                write_line(f"  {name:<30} {value}")
        if not own and not self._options:
            write_line("No parameters were specified for this model.")

    def _clear(self, _: str) -> None:
        self._messages.clear()
        write_line("Cleared session context")

    def _save(self, name: str) -> None:
        if not name:
            raise WrongUsage("/save takes the name of the new model.")
        recipe: Json = {"model": name, "from": self._arguments["model"]}
        if self._system is not None:
            recipe["system"] = self._system
        if self._options:
            recipe["parameters"] = self._options
        before = self._shown.get("messages") or []
        if self._messages:
            recipe["messages"] = [*before, *self._messages]
        with closing(progress_view()) as view, self._with_daemon(lambda client: client.create(recipe)) as records:
            follow(records, view)
        write_line(f"Created new model '{name}'")

    def _load(self, name: str) -> None:
        if not name:
            raise WrongUsage("/load takes the name of a model.")
        try:
            shown = self._with_daemon(lambda client: client.show(name))
        except ApiError as error:
            if error.code != "model_not_found":
                raise
            write_line(f"Couldn't find model '{name}'")
            return
        write_line(f"Loading model '{name}'")
        self._shown = shown
        self._arguments["model"] = name
        self._messages.clear()
        self._open_model()
