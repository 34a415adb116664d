"""Templates in Go's language, from a Modelfile to the prompt's tokens, beside the one in the model's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.modelfile import parse_modelfile
from registry.name import ModelName
from registry.store import ModelStore
from runner.chat.types import ChatPrompt, ChatRequest, Message
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.worker.prompt import prepare_prompt
from tests.end_to_end.conftest import MODEL, REPOSITORY, Daemon
from tests.end_to_end.test_cli import puna

EXAMPLE = REPOSITORY / "Modelfile-examples" / "go-template.Modelfile"
TURNS = REPOSITORY / "Modelfile-examples" / "turns-template.Modelfile"
USER, ASSISTANT = Message("user", "Why is the sky blue?"), Message("assistant", "Light is scattered.")
SYSTEM, AGAIN = Message("system", "You are terse."), Message("user", '<b>And</b> the "sea"?\n\n  It\'s blåå – 水…\n')
CONVERSATIONS = [
    (USER,),
    (SYSTEM, USER),
    (USER, ASSISTANT, AGAIN),
    (SYSTEM, USER, ASSISTANT, AGAIN, ASSISTANT, USER),
    (Message("user", ""), Message("assistant", "{{ .Content }} {% if %} <|im_end|>"), Message("user", " ")),
]


@pytest.fixture(scope="module")
def engine(smollm2_store: Path) -> LlamaEngine:
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    return LlamaEngine(Library(), path, LoadOptions(context_length=1024, num_thread=1))


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=lambda messages: f"{len(messages)} messages")
def test_the_prompt_is_that_of_the_models_own_template_to_the_token(
    engine: LlamaEngine, messages: tuple[Message, ...]
) -> None:
    template = parse_modelfile(EXAMPLE.read_text("utf-8")).template
    own = prepare_prompt(ChatRequest(ChatPrompt(messages)), engine)
    assert len(own.tokens) > 8
    assert prepare_prompt(ChatRequest(ChatPrompt(messages, template)), engine).tokens == own.tokens


def test_a_template_of_turns_makes_the_same_prompt_too(engine: LlamaEngine) -> None:
    template = parse_modelfile(TURNS.read_text("utf-8")).template
    messages = (SYSTEM, USER, ASSISTANT, AGAIN)
    own = prepare_prompt(ChatRequest(ChatPrompt(messages)), engine)
    assert prepare_prompt(ChatRequest(ChatPrompt(messages, template)), engine).tokens == own.tokens


def chat(daemon: Daemon, model: str, *more: dict[str, str]) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "Why is the sky blue?"},
            *more,
        ],
        "options": {"temperature": 0, "num_predict": 24, "deterministic": True},
        "stream": False,
    }
    response = daemon.client.post("/api/chat", json=body)
    assert response.status_code == 200, response.text
    assert "x-puna-ignored" not in response.headers
    answer: dict[str, Any] = response.json()
    return answer


def test_a_model_with_a_go_template_answers_and_is_made_again_from_what_show_prints(
    daemon: Daemon, tmp_path: Path
) -> None:
    puna(daemon, "create", "go", "-f", str(EXAMPLE))
    begun = {"role": "assistant", "content": "Because the"}
    for more in ([], [begun]):
        own, made = chat(daemon, MODEL, *more), chat(daemon, "go", *more)
        assert (made["message"], made["prompt_eval_count"]) == (own["message"], own["prompt_eval_count"])

    printed = tmp_path / "Modelfile"
    printed.write_text(puna(daemon, "show", "go", "--modelfile").stdout, "utf-8")
    puna(daemon, "create", "again", "-f", str(printed))
    shown = [daemon.client.post("/api/show", json={"model": name}).json() for name in ("go", "again")]
    for part in ("template", "parameters", "details"):
        assert shown[0][part] == shown[1][part]


def test_a_request_may_bring_a_go_template_and_a_suffix(shared_daemon: Daemon) -> None:
    insertion = "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>"
    template = insertion + "{{ else }}Q: {{ .Prompt }}\nA: {{ .Response }}{{ end }}"
    base = {"model": MODEL, "stream": False, "options": {"num_predict": 1, "temperature": 0}}

    def prompt_tokens(**fields: Any) -> int:
        response = shared_daemon.client.post("/api/generate", json=base | fields)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["eval_count"] == 1
        count: int = answer["prompt_eval_count"]
        return count

    raw = prompt_tokens(prompt="Q: Who?\nA: ", raw=True)
    assert prompt_tokens(prompt="Who?", template=template) == raw
    raw = prompt_tokens(prompt="<pre>def f(<suf>return 1<mid>", raw=True)
    assert prompt_tokens(prompt="def f(", suffix="return 1", template=template) == raw

    refused = shared_daemon.client.post("/api/generate", json=base | {"prompt": "x", "suffix": "y"})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "unsupported", "suffix")
    failing = shared_daemon.client.post("/api/generate", json=base | {"prompt": "x", "template": "\n{{ .Prompt.X }}"})
    assert failing.json()["code"] == "model_invalid"
    assert "line 2" in failing.json()["error"]


def test_a_template_that_is_none_is_refused_with_its_line(shared_daemon: Daemon, tmp_path: Path) -> None:
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f'FROM {MODEL}\n\nTEMPLATE """{{{{ .System }}}}\n{{{{ if .Prompt }}}}"""\n', "utf-8")
    done = puna(shared_daemon, "create", "never", "-f", str(modelfile), code=2)
    assert f"{modelfile}: (line 4): template error: " in done.stderr.replace("\n", " ")
    assert "unexpected EOF" in done.stderr
    assert "never" not in puna(shared_daemon, "list").stdout
