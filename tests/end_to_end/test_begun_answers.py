"""Conversations that end with words of the model's: every official client gets what follows them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import anthropic
import ollama
import openai
import pytest

from tests.end_to_end.conftest import MODEL, TIMEOUT, Daemon

QUESTION = {"role": "user", "content": "Name three colours."}
BEGUN = {"role": "assistant", "content": "Here are three: red, blue and"}
TALK: Any = [QUESTION, BEGUN]
EXACTLY = {"temperature": 0, "deterministic": True}
OPTIONS = EXACTLY | {"num_predict": 8}


class Told(NamedTuple):
    text: str
    read: int
    """Tokens of the prompt."""
    written: int


@pytest.fixture(scope="module")
def expected(shared_daemon: Daemon) -> Told:
    """What the model says when it reads the same prompt as plain text, and how long that is."""
    prompt = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION['content']}<|im_end|>\n<|im_start|>assistant\n{BEGUN['content']}"
    )
    body = {"model": MODEL, "prompt": prompt, "raw": True, "stream": False, "options": OPTIONS}
    answer = shared_daemon.client.post("/api/generate", json=body).json()
    return Told(answer["response"], answer["prompt_eval_count"], answer["eval_count"])


def test_the_prompt_is_what_the_template_makes_up_to_those_words(shared_daemon: Daemon, expected: Told) -> None:
    told = shared_daemon.client.post("/api/render", json={"model": MODEL, "messages": TALK}).json()
    assert told["prompt"].endswith(f"<|im_start|>assistant\n{BEGUN['content']}")
    assert told["prompt_tokens"] == expected.read


def test_ollamas_client_gets_the_rest(shared_daemon: Daemon, expected: Told) -> None:
    client = ollama.Client(host=shared_daemon.url, timeout=TIMEOUT)
    with client._client:
        whole = client.chat(model=MODEL, messages=TALK, options=OPTIONS)
        pieces = [one.message.content for one in client.chat(model=MODEL, messages=TALK, options=OPTIONS, stream=True)]
    assert whole.message.content == "".join(filter(None, pieces)) == expected.text
    assert (whole.prompt_eval_count, whole.eval_count) == (expected.read, expected.written)


def test_openais_client_gets_the_rest(shared_daemon: Daemon, expected: Told) -> None:
    with openai.OpenAI(base_url=f"{shared_daemon.url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        whole = client.chat.completions.create(model=MODEL, messages=TALK, max_tokens=8, extra_body=EXACTLY)
    assert whole.choices[0].message.content == expected.text
    assert whole.usage and (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        expected.read,
        expected.written,
    )


def test_anthropics_client_gets_the_rest(shared_daemon: Daemon, expected: Told) -> None:
    with anthropic.Anthropic(base_url=shared_daemon.url, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        arguments: Any = {"model": MODEL, "messages": TALK, "max_tokens": 8, "extra_body": EXACTLY}
        whole = client.messages.create(**arguments)
        with client.messages.stream(**arguments) as stream:
            final = stream.get_final_message()
        counted = client.messages.count_tokens(model=MODEL, messages=TALK)
    blocks: list[Any] = [*whole.content, *final.content]
    texts = [block.text for block in blocks if block.type == "text"]
    assert texts == [expected.text, expected.text]
    read = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert (read, counted.input_tokens, whole.usage.output_tokens) == (expected.read, expected.read, expected.written)


def test_a_format_counts_the_words_that_are_given(shared_daemon: Daemon) -> None:
    begun = '{"colours": ["red", '
    schema = {
        "type": "object",
        "properties": {"colours": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 3}},
        "required": ["colours"],
        "additionalProperties": False,
    }
    body = {"model": MODEL, "messages": [QUESTION, {"role": "assistant", "content": begun}], "format": schema}
    answer = shared_daemon.client.post("/api/chat", json={**body, "stream": False}).json()
    assert json.loads(begun + answer["message"]["content"])["colours"][0] == "red"

    wrong = {**body, "messages": [QUESTION, {"role": "assistant", "content": "Sure: "}]}
    refused = shared_daemon.client.post("/api/chat", json=wrong)
    assert (refused.status_code, refused.json()["code"]) == (400, "constraint_invalid")
