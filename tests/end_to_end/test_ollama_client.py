"""The official Ollama client against a live daemon with a real model."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from tests.end_to_end.conftest import MODEL, Daemon
from tests.tiny_model import write_tiny_model

GREEDY = {"temperature": 0, "num_predict": 24}
EXACTLY = GREEDY | {"deterministic": True}
QUESTION = [{"role": "user", "content": "Name three colours."}]


@pytest.fixture
def client(changing_daemon: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(host=changing_daemon.url) as client:
        yield client


def text_of(answer: ollama.GenerateResponse) -> str:
    assert answer.response is not None
    return answer.response


def test_a_chat_is_answered_with_text_counts_and_durations(client: ollama.Client) -> None:
    answer = client.chat(MODEL, messages=QUESTION, options=GREEDY)
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.done
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count == 34
    assert answer.eval_count is not None
    assert 0 < answer.eval_count <= 24
    for duration in (answer.total_duration, answer.load_duration, answer.prompt_eval_duration, answer.eval_duration):
        assert duration is not None
        assert duration > 0


def test_a_streamed_chat_brings_the_same_text_in_many_pieces(client: ollama.Client) -> None:
    whole = client.chat(MODEL, messages=QUESTION, options=EXACTLY)
    pieces = list(client.chat(MODEL, messages=QUESTION, options=EXACTLY, stream=True))
    assert len(pieces) > 5
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count == whole.eval_count


def test_a_streamed_text_brings_the_same_in_many_pieces(client: ollama.Client) -> None:
    whole = client.generate(MODEL, "Name three colours.", options=EXACTLY)
    pieces = list(client.generate(MODEL, "Name three colours.", options=EXACTLY, stream=True))
    assert "".join(map(text_of, pieces)) == whole.response
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].context == whole.context


def test_generate_answers_and_its_context_carries_on(client: ollama.Client) -> None:
    first = client.generate(MODEL, "My name is Ada. Say hello to me.", options=GREEDY)
    assert first.response
    assert first.context
    second = client.generate(MODEL, "What is my name?", context=first.context, options=GREEDY)
    assert second.prompt_eval_count is not None
    assert first.prompt_eval_count is not None
    assert second.prompt_eval_count > first.prompt_eval_count
    assert second.response


def test_a_raw_prompt_is_continued_as_it_is(client: ollama.Client) -> None:
    answer = client.generate(MODEL, "The capital of France is", raw=True, options={"temperature": 0, "num_predict": 4})
    assert "Paris" in text_of(answer)
    assert answer.context is None


def test_a_seed_makes_a_hot_answer_reproducible(client: ollama.Client) -> None:
    def ask(seed: int) -> str:
        options = {"temperature": 1.5, "seed": seed, "num_predict": 12, "top_k": 0, "top_p": 1.0, "deterministic": True}
        return text_of(client.generate(MODEL, "Tell me something.", options=options))

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


def test_a_stop_string_ends_the_answer_before_it(client: ollama.Client) -> None:
    options = EXACTLY | {"num_predict": 16}
    whole = text_of(client.generate(MODEL, "Count: one, two, three,", raw=True, options=options))
    stop = whole[10:14]
    cut = client.generate(MODEL, "Count: one, two, three,", raw=True, options=options | {"stop": [stop]})
    assert cut.response == whole[: whole.index(stop)]
    assert cut.done_reason == "stop"


def test_an_unknown_model_is_a_404_with_what_to_do(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("no-such-model", messages=QUESTION)
    assert caught.value.status_code == 404
    assert "no-such-model" in caught.value.error


def test_a_prompt_that_does_not_fit_is_refused_and_not_cut(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(MODEL, "word " * 500, options={"num_ctx": 128})
    assert caught.value.status_code == 400
    assert "128" in caught.value.error


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    [model] = [model for model in client.list().models if model.model == MODEL]
    assert model.details is not None
    assert model.details.family == "llama"
    assert model.details.quantization_level == "Q4_1"
    assert model.details.parameter_size == "135M" or model.details.parameter_size == "134.52M"
    assert model.size is not None
    assert model.size > 98_000_000
    shown = client.show(MODEL)
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert shown.modelfile is not None
    assert shown.modelfile.startswith("# Modelfile")


def test_a_loaded_model_is_in_ps_until_it_is_told_to_go(client: ollama.Client, changing_daemon: Daemon) -> None:
    for left in client.ps().models:
        client.generate(left.model or "", keep_alive=0)
    assert client.ps().models == []
    client.generate(MODEL)
    [loaded] = client.ps().models
    assert loaded.model == MODEL
    assert loaded.context_length == 4096, "as much as was needed so far"
    assert loaded.size is not None
    assert loaded.size > 98_000_000
    client.generate(MODEL, keep_alive=0)
    assert client.ps().models == []
    assert changing_daemon.workers() == []


def test_a_model_is_created_from_another_copied_and_deleted(client: ollama.Client) -> None:
    created = client.create("pirate", from_=MODEL, system="You are a pirate.", parameters={"temperature": 0})
    assert created.status == "success"
    steps = client.create("pirate", from_=MODEL, system="You are a pirate.", parameters={"temperature": 0}, stream=True)
    assert [step.status for step in steps][-1] == "success"
    assert client.show("pirate").modelinfo == client.show(MODEL).modelinfo
    client.copy("pirate", "corsair")
    names = {model.model for model in client.list().models}
    assert {"pirate:latest", "corsair:latest"} <= names
    client.delete("pirate")
    answer = client.chat("corsair", messages=QUESTION, options={"num_predict": 8})
    assert answer.message.content
    assert answer.prompt_eval_count is not None
    plain = client.chat(MODEL, messages=QUESTION, options={"num_predict": 8})
    assert answer.prompt_eval_count != plain.prompt_eval_count, "the system text is part of the prompt"


def test_a_file_of_ones_own_is_uploaded_and_run(client: ollama.Client, changing_daemon: Daemon) -> None:
    path = write_tiny_model(changing_daemon.home / "tiny.gguf")
    digest = client.create_blob(path)
    assert client.create("tiny", files={"tiny.gguf": digest}).status == "success"
    answer = client.generate("tiny", "hello", options={"num_predict": 5, "temperature": 0})
    assert answer.done
    client.generate(MODEL)
    assert {"tiny:latest", MODEL} <= {model.model for model in client.ps().models}


def test_pulling_what_is_there_succeeds_at_once(client: ollama.Client) -> None:
    statuses = [record.status for record in client.pull(MODEL, stream=True)]
    assert statuses[0] == "pulling manifest"
    assert statuses[-1] == "success"
