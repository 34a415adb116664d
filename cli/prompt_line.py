"""Reading one message from the terminal: editing, several lines, paste, history."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from cli.history import BoundedHistory

PROMPT = ">>> "
CONTINUATION = "... "
PLACEHOLDER = "Send a message (/? for help)"
QUOTES = '"""'
_STYLE = Style.from_dict({"placeholder": "ansibrightblack", "continuation": "ansibrightblack"})


class PromptLine:
    """Asks for messages, one at a time.

    Enter sends, unless a block of triple quotes is still open; Ctrl-J only starts a new line.
    """

    def __init__(self, history_file: Path) -> None:
        self.history = BoundedHistory(history_file)
        self._session: PromptSession[str] = PromptSession(
            history=self.history,
            multiline=True,
            prompt_continuation=_continuation,
            key_bindings=_key_bindings(),
            placeholder=FormattedText([("class:placeholder", PLACEHOLDER)]),
            style=_STYLE,
            enable_history_search=False,
            complete_while_typing=False,
        )

    def ask(self) -> str:
        """The next message, without its triple quotes. Raises KeyboardInterrupt on Ctrl-C, EOFError on Ctrl-D."""
        return unquote(self._session.prompt(PROMPT))


def is_open(text: str) -> bool:
    """Whether a block of triple quotes has begun, at the start of a message or of what /set takes, and not ended."""
    before, quotes, rest = text.partition(QUOTES)
    if not quotes or (before.strip() and not before.lstrip().startswith("/")):
        return False
    return QUOTES not in rest


def unquote(text: str) -> str:
    """The message without triple quotes around it; the line breaks just inside them belong to the quotes."""
    stripped = text.strip()
    if not stripped.startswith(QUOTES):
        return text
    inside = stripped[len(QUOTES) :]
    inside = inside.removesuffix(QUOTES) if inside.endswith(QUOTES) else inside
    return inside.removeprefix("\n").removesuffix("\n")


@contextlib.contextmanager
def typing_ahead() -> Iterator[None]:
    """Let what is typed during an answer wait for the next prompt, unseen and with Enter still being Enter."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    modes = termios.tcgetattr(sys.stdin)
    # Otherwise the terminal would write it into the answer, and hand Enter on as the Ctrl-J that it looks like.
    modes[0] &= ~termios.ICRNL
    modes[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _continuation(width: int, line: int, wraps: int) -> FormattedText:
    """What stands before a line that is not the first: nothing to be seen where the screen has folded it."""
    return FormattedText([("class:continuation", " " * width if wraps else CONTINUATION)])


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
