"""The conversation in a terminal, against a fake daemon."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_daemon import SMOL, TIMEOUT, FakeDaemon, Json, Reply, answer, refusal

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from tests.cli.terminal import CTRL_C, CTRL_D, CTRL_J, ENTER, UP, Terminal, terminal

LOADED: Json = {"done": True, "done_reason": "load"}


@pytest.fixture
def ready(daemon: FakeDaemon) -> FakeDaemon:
    """A daemon that loads the model and answers every message with its number."""
    daemon.routes["POST /api/generate"] = lambda _: LOADED
    daemon.routes["POST /api/chat"] = lambda _: answer(f"answer {len(daemon.asked('POST /api/chat'))}.", chat=True)
    return daemon


@pytest.fixture
def chat(ready: FakeDaemon, environment: dict[str, str]) -> Iterator[Terminal]:
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for(r"^>>> ")
        yield chat


def messages(daemon: FakeDaemon) -> list[list[tuple[str, str]]]:
    """Of each request, roles and contents."""
    return [[(one["role"], one["content"]) for one in body["messages"]] for body in daemon.asked("POST /api/chat")]


def leave(chat: Terminal) -> None:
    chat.type("/bye" + ENTER)
    assert chat.wait_for_end() == 0
    assert "Traceback" not in chat.raw


def test_a_conversation_carries_all_its_turns(ready: FakeDaemon, chat: Terminal) -> None:
    assert "Send a message (/? for help)" in chat.text()
    chat.type("one" + ENTER)
    chat.wait_for(r"^answer 1\.\n\n>>> ")
    chat.type("two" + ENTER)
    chat.wait_for(r"^answer 2\.\n\n>>> ")
    assert messages(ready) == [
        [("user", "one")],
        [("user", "one"), ("assistant", "answer 1."), ("user", "two")],
    ]
    assert ready.asked("POST /api/generate") == [{"model": "smol", "stream": False}]
    leave(chat)


def test_text_appears_as_it_comes_and_ctrl_c_keeps_what_came(ready: FakeDaemon, chat: Terminal) -> None:
    def slow(body: Any) -> Iterator[Json]:
        if len(body["messages"]) > 1:
            yield from answer("the rest.", chat=True)
            return
        yield {"message": {"role": "assistant", "content": "the beginning"}}
        while not ready.disconnected.wait(0.01):
            yield {"message": {"role": "assistant", "content": ""}}

    ready.routes["POST /api/chat"] = slow
    chat.type("tell" + ENTER)
    chat.wait_for("^the beginning")
    chat.type(CTRL_C)
    chat.wait_for(r"^the beginning\n+>>> ")
    chat.type("go on" + ENTER)
    chat.wait_for(r"^the rest\.")
    assert messages(ready)[-1] == [("user", "tell"), ("assistant", "the beginning"), ("user", "go on")]
    leave(chat)


def test_ctrl_c_at_the_prompt_hints_and_ctrl_d_leaves(chat: Terminal) -> None:
    chat.wait_for("Send a message")
    chat.type("half a line" + CTRL_C)
    chat.wait_for(r"^Use Ctrl-D or /bye to leave\.\n>>> ")
    chat.type(CTRL_D)
    assert chat.wait_for_end() == 0


def test_an_error_is_shown_and_the_conversation_goes_on(ready: FakeDaemon, chat: Terminal) -> None:
    works = ready.routes["POST /api/chat"]
    ready.routes["POST /api/chat"] = lambda _: refusal(400, "context_length_exceeded", "The prompt is too long")
    chat.type("first" + ENTER)
    chat.wait_for(r"Error: The prompt is too long\.\n>>> ")
    ready.routes["POST /api/chat"] = lambda _: Reply(answer("par", chat=True)[:1], cut=True)
    chat.type("second" + ENTER)
    chat.wait_for(r"^par\nError: .* broke off.*\n>>> ")
    ready.routes["POST /api/chat"] = works
    chat.type("third" + ENTER)
    chat.wait_for(r"^answer 3\.")
    # The refused message is gone; the half answer stays.
    assert messages(ready)[-1] == [("user", "second"), ("assistant", "par"), ("user", "third")]
    leave(chat)


def test_messages_of_several_lines(ready: FakeDaemon, chat: Terminal) -> None:
    chat.type('"""first' + ENTER + "second" + ENTER)
    chat.wait_for(r"^\.\.\. second")
    assert ready.asked("POST /api/chat") == []
    chat.type('third"""' + ENTER)
    chat.wait_for(r"^answer 1\.")
    chat.type("alpha" + CTRL_J + "beta" + ENTER)
    chat.wait_for(r"^answer 2\.")
    chat.paste("gamma\r\ndelta\r")
    chat.wait_for("delta")
    chat.type("epsilon" + ENTER)
    chat.wait_for(r"^answer 3\.")
    chat.type('"""one line"""' + ENTER)
    chat.wait_for(r"^answer 4\.")
    said = [content for role, content in messages(ready)[-1] if role == "user"]
    assert said == ["first\nsecond\nthird", "alpha\nbeta", "gamma\ndelta\nepsilon", "one line"]
    leave(chat)


def test_a_message_that_the_screen_folds_stays_one_line(ready: FakeDaemon, environment: dict[str, str]) -> None:
    with terminal(environment, "run", "smol", columns=40) as chat:
        chat.wait_for("Send a message")
        chat.type("a message of several words that needs more than one line of the screen" + ENTER)
        assert "..." not in chat.wait_for(r"^answer 1\.")
        assert messages(ready)[-1][-1][1].endswith("words that needs more than one line of the screen")
        leave(chat)


def test_what_is_typed_during_an_answer_is_the_next_message(ready: FakeDaemon, chat: Terminal) -> None:
    go_on = threading.Event()

    def slow(_: Any) -> Iterator[Json]:
        yield {"message": {"role": "assistant", "content": "first"}}
        assert go_on.wait(TIMEOUT)
        yield from answer(" part.", chat=True)

    works = ready.routes["POST /api/chat"]
    ready.routes["POST /api/chat"] = slow
    chat.type("one" + ENTER)
    chat.wait_for("^first")
    ready.routes["POST /api/chat"] = works
    chat.type("two" + ENTER)
    go_on.set()
    assert "first part.\n\n>>> two\nanswer 2." in chat.wait_for(r"^answer 2\.")
    assert messages(ready)[-1][-1] == ("user", "two")
    leave(chat)


def test_settings_go_with_the_next_request(ready: FakeDaemon, chat: Terminal) -> None:
    for line, said in (
        ("/set parameter temperature 0.5", "Set parameter 'temperature' to '0.5'"),
        ("/set parameter stop a b", "Set parameter 'stop' to 'a b'"),
        ("/set parameter temperature hot", "Couldn't set parameter: \"temperature must be"),
        ("/set parameter", "Couldn't set parameter"),
        ("/set system Be brief.", "Set system message."),
        ("/set nonsense", "Error: /set takes"),
        ("/nonsense", "Unknown command '/nonsense'. Type /\\? for help"),
        ("/set verbose", "Set 'verbose' mode."),
    ):
        chat.type(line + ENTER)
        chat.wait_for(said)
    final = {"eval_count": 5, "eval_duration": 1_000_000_000}
    ready.routes["POST /api/chat"] = lambda _: answer("ok", chat=True, **final)
    chat.type("go" + ENTER)
    chat.wait_for(r"eval rate: +5\.00 tokens/s")
    assert ready.asked("POST /api/chat") == [
        {
            "model": "smol",
            "options": {"temperature": 0.5, "stop": ["a", "b"]},
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "go"}],
        }
    ]
    chat.type("/show system" + ENTER)
    chat.wait_for(r"^Be brief\.")
    chat.type("/show parameters" + ENTER)
    chat.wait_for(r"temperature +0\.5")
    chat.type("/clear" + ENTER)
    chat.wait_for("Cleared session context")
    chat.type("again" + ENTER)
    chat.wait_for(r"again\nok")
    assert messages(ready)[-1] == [("system", "Be brief."), ("user", "again")]
    leave(chat)


def test_a_system_text_of_several_lines(ready: FakeDaemon, chat: Terminal) -> None:
    chat.type('/set system """one' + ENTER + 'two"""' + ENTER)
    chat.wait_for("Set system message")
    chat.type("go" + ENTER)
    chat.wait_for(r"^answer 1\.")
    assert messages(ready)[-1][0] == ("system", "one\ntwo")
    leave(chat)


def test_show_prints_what_is_known(ready: FakeDaemon, environment: dict[str, str]) -> None:
    ready.routes["POST /api/show"] = lambda _: {
        "details": SMOL["details"], "license": "The licence\x1b[31m", "modelfile": "FROM x", "template": "{{ x }}",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
    }  # fmt: skip
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for(r"^>>> Hi\nYo\n\n>>> ")
        for what, said in (
            ("info", "quantization    Q4_1"), ("license", r"^The licence\[31m"), ("modelfile", "^FROM x"),
            ("template", r"^\{\{ x \}\}"), ("system", "No system message was specified for this model"),
            ("parameters", "No parameters were specified"), ("nothing", "Error: /show takes one of info"),
        ):  # fmt: skip
            chat.type(f"/show {what}" + ENTER)
            chat.wait_for(said)
        chat.type("/list" + ENTER)
        chat.wait_for("NAME +ID +SIZE +MODIFIED")
        chat.type("/?" + ENTER)
        chat.wait_for('say "go on"')
        leave(chat)


def test_save_makes_a_model_of_the_session(ready: FakeDaemon, environment: dict[str, str]) -> None:
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    ready.routes["POST /api/show"] = lambda _: {"messages": earlier}
    ready.routes["POST /api/create"] = lambda _: [{"status": "success"}]
    with terminal(environment, "run", "smol", "--system", "Be brief.", "-o", "seed=1") as chat:
        chat.wait_for("Send a message")
        chat.type("one" + ENTER)
        chat.wait_for(r"^answer 1\.")
        chat.type("/save mine" + ENTER)
        chat.wait_for("Created new model 'mine'")
        ready.routes["POST /api/create"] = lambda _: refusal(400, "invalid_request", "invalid model name")
        chat.type("/save b@d" + ENTER)
        chat.wait_for(r"Error: invalid model name\.")
        leave(chat)
    talk = [*earlier, {"role": "user", "content": "one"}, {"role": "assistant", "content": "answer 1."}]
    assert ready.asked("POST /api/create")[0] == {
        "model": "mine", "from": "smol", "system": "Be brief.", "parameters": {"seed": 1}, "messages": talk,
    }  # fmt: skip


def test_load_begins_anew_with_another_model(ready: FakeDaemon, chat: Terminal) -> None:
    chat.type("one" + ENTER)
    chat.wait_for(r"^answer 1\.")
    shown = ready.routes["POST /api/show"]
    ready.routes["POST /api/show"] = lambda body: (
        shown(body) if body["model"] == "other" else refusal(404, "model_not_found", "model not found")
    )
    chat.type("/load nothing" + ENTER)
    chat.wait_for("Couldn't find model 'nothing'")
    chat.type("/load other" + ENTER)
    chat.wait_for("Loading model 'other'")
    chat.type("two" + ENTER)
    chat.wait_for(r"^answer 2\.")
    last = ready.asked("POST /api/chat")[-1]
    assert (last["model"], last["messages"]) == ("other", [{"role": "user", "content": "two"}])
    leave(chat)


def test_what_was_typed_is_there_in_the_next_session(
    ready: FakeDaemon, environment: dict[str, str], home: Path
) -> None:
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for("Send a message")
        chat.type("remember me" + ENTER)
        chat.wait_for(r"^answer 1\.")
        chat.type("/set nohistory" + ENTER)
        chat.wait_for("no longer kept")
        chat.type("secret" + ENTER)
        chat.wait_for(r"^answer 2\.")
        leave(chat)
    file = home / "state" / "history"
    assert "secret" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for("Send a message")
        chat.type(UP + UP + ENTER)
        chat.wait_for(r"^>>> remember me\nanswer 3\.")
        leave(chat)


def test_a_long_wait_is_told_and_the_word_taken_away(ready: FakeDaemon, environment: dict[str, str]) -> None:
    loaded, answered = threading.Event(), threading.Event()

    def load(_: Any) -> Json:
        assert loaded.wait(TIMEOUT)
        return LOADED

    def think(_: Any) -> Iterator[Json]:
        assert answered.wait(TIMEOUT)
        yield from answer("at last", chat=True)

    ready.routes["POST /api/generate"] = load
    ready.routes["POST /api/chat"] = think
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for(r"^Waiting for the model\.\.\.$")
        loaded.set()
        assert "Waiting" not in chat.wait_for("Send a message")
        chat.type("x" + ENTER)
        chat.wait_for(r"^Waiting for the model\.\.\.$")
        answered.set()
        assert "Waiting" not in chat.wait_for("^at last")
        leave(chat)


def test_escape_sequences_in_an_answer_do_nothing(ready: FakeDaemon, chat: Terminal) -> None:
    ready.routes["POST /api/chat"] = lambda _: answer("safe\x1b]0;evil\x07\x1b[2J", " end", chat=True)
    chat.type("x" + ENTER)
    chat.wait_for(r"^safe\]0;evil\[2J end")
    leave(chat)


def test_a_missing_model_is_pulled_with_a_bar(ready: FakeDaemon, environment: dict[str, str]) -> None:
    go_on = threading.Event()
    shown = ready.routes["POST /api/show"]
    ready.routes["POST /api/show"] = lambda body: (
        shown(body) if go_on.is_set() else refusal(404, "model_not_found", "model not found")
    )

    def pull(_: Any) -> Iterator[Json]:
        layer = {"status": "pulling 0123456789ab", "total": 98_000_000}
        yield {"status": "pulling manifest"}
        for completed in range(0, 50_000_000, 1_000_000):
            yield {**layer, "completed": completed}
        go_on.wait(TIMEOUT)
        yield {**layer, "completed": 98_000_000}
        yield {"status": "success"}

    ready.routes["POST /api/pull"] = pull
    with terminal(environment, "run", "smol") as chat:
        chat.wait_for(r"^pulling 0123456789ab +50% .*49\.0/98\.0 MB")
        go_on.set()
        text = chat.wait_for(r"^>>> ")
        assert "pulling 0123456789ab 100%" in text
        assert text.count("pulling 0123456789ab") == 1
        leave(chat)
