"""Embeddings, scores of documents and tokens, through the official clients where they have them.

`minilm_vectors.json` holds what the checkpoint in the package of all-minilm gives in double precision, with the
tokens that its own tokenizer makes.
"""

from __future__ import annotations

import base64
import json
import math
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import ollama
import openai
import pytest

from tests.end_to_end.conftest import MODEL, Daemon, running_daemon
from tests.end_to_end.test_creating import create
from tests.tiny_encoders import write_tiny_bert
from tests.tiny_model import write_tiny_model

EMBEDDER = "all-minilm"
EXPECTED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text("utf-8"))
TEXTS = [case["text"] for case in EXPECTED]


@pytest.fixture(scope="module")
def minilm(embedding_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("home"), embedding_store) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with random models: one that embeds, one that scores, one that says NaN of a z, one that chats."""
    folder = tmp_path_factory.mktemp("tiny")
    with running_daemon(folder, folder / "models") as daemon:
        models = {
            "embedder": write_tiny_bert(folder / "embedder.gguf"),
            "ranker": write_tiny_bert(folder / "ranker.gguf", pooling=gguf.PoolingType.RANK),
            "poisoned": write_tiny_bert(folder / "poisoned.gguf", poison="z"),
            "chat": write_tiny_model(folder / "chat.gguf"),
        }
        for name, path in models.items():
            assert create(daemon, name, [path]) == {"status": "success"}
        yield daemon


@pytest.fixture
def ollama_client(minilm: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(host=minilm.url) as client:
        yield client


@pytest.fixture
def openai_client(minilm: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{minilm.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    a, b = np.array(first), np.array(second)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_vectors_of_minilm_are_those_of_its_checkpoint(ollama_client: ollama.Client) -> None:
    answer = ollama_client.embed(EMBEDDER, TEXTS)
    for case, vector in zip(EXPECTED, answer.embeddings, strict=True):
        assert cosine(vector, case["vector"]) >= 0.999
        assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-5)
    assert answer.prompt_eval_count == sum(len(case["tokens"]) for case in EXPECTED)
    assert answer.total_duration and answer.load_duration


def test_the_tokens_of_minilm_are_those_of_its_own_tokenizer(minilm: Daemon) -> None:
    for case in EXPECTED:
        body = {"model": EMBEDDER, "content": case["text"], "add_special": True}
        told = minilm.client.post("/api/tokenize", json=body).json()
        assert (told["tokens"], told["count"]) == (case["tokens"], len(case["tokens"]))


def test_fewer_dimensions_are_the_first_ones_made_one_long_again(ollama_client: ollama.Client) -> None:
    [whole] = ollama_client.embed(EMBEDDER, TEXTS[0]).embeddings
    [short] = ollama_client.embed(EMBEDDER, TEXTS[0], dimensions=64).embeddings
    assert len(short) == 64
    assert math.isclose(math.hypot(*short), 1, rel_tol=1e-5)
    assert cosine(short, whole[:64]) > 0.999999
    with pytest.raises(ollama.ResponseError, match="dimensions is 385, and this model's embeddings have 384"):
        ollama_client.embed(EMBEDDER, TEXTS[0], dimensions=385)


def test_an_input_that_is_too_long_is_refused_or_cut_as_the_caller_says(
    ollama_client: ollama.Client, minilm: Daemon
) -> None:
    texts = ["short", "word " * 600]
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as refused:
        ollama_client.embed(EMBEDDER, texts)
    assert refused.value.status_code == 400
    told = minilm.client.post("/api/embed", json={"model": EMBEDDER, "input": texts, "truncate": True}).json()
    assert told["truncated"] == [{"index": 1, "from": 602, "to": 512, "strategy": "drop_end"}]
    [same] = ollama_client.embed(EMBEDDER, "word " * 510).embeddings
    assert cosine(told["embeddings"][1], same) > 0.99999
    refusal = minilm.client.post("/api/embed", json={"model": EMBEDDER, "input": texts, "truncate": False}).json()
    assert (refusal["code"], refusal["index"]) == ("context_length_exceeded", 1)
    assert (refusal["prompt_tokens"], refusal["context_length"]) == (602, 512)
    older = {"model": EMBEDDER, "prompt": texts[1], "truncate": True}
    assert minilm.client.post("/api/embeddings", json=older).json()["truncated"] == [
        {"index": 0, "from": 602, "to": 512, "strategy": "drop_end"}
    ]


def test_nothing_to_embed_gives_nothing_and_loads_the_model(ollama_client: ollama.Client, minilm: Daemon) -> None:
    assert ollama_client.embed(EMBEDDER, []).embeddings == []
    assert ollama_client.embeddings(EMBEDDER, "").embedding == []
    assert [model["name"] for model in minilm.loaded()] == ["all-minilm:latest"]


def test_an_embedding_model_is_loaded_ahead_and_let_go_as_others_are(minilm: Daemon) -> None:
    for path, done, count in (("/api/generate", "load", 1), ("/api/chat", "load", 1), ("/api/generate", "unload", 0)):
        body = {"model": EMBEDDER, **({"keep_alive": 0} if done == "unload" else {})}
        told = minilm.client.post(path, json=body).json()
        assert (told["done"], told["done_reason"]) == (True, done)
        assert len(minilm.loaded()) == count


def test_the_older_route_gives_the_same_direction_in_its_own_length(ollama_client: ollama.Client) -> None:
    older = ollama_client.embeddings(EMBEDDER, TEXTS[0]).embedding
    [newer] = ollama_client.embed(EMBEDDER, TEXTS[0]).embeddings
    assert cosine(older, newer) > 0.999999
    assert not math.isclose(math.hypot(*older), 1, rel_tol=0.01)


def test_the_openai_client_gets_the_same_vectors(ollama_client: ollama.Client, openai_client: openai.OpenAI) -> None:
    expected = ollama_client.embed(EMBEDDER, TEXTS).embeddings
    # Without an encoding the client asks for base64 and decodes it.
    for encoding in (openai.omit, "float"):
        answer = openai_client.embeddings.create(model=EMBEDDER, input=TEXTS, encoding_format=encoding)
        assert [one.index for one in answer.data] == [0, 1, 2]
        for one, vector in zip(answer.data, expected, strict=True):
            assert np.allclose(one.embedding, vector, atol=1e-3)
        tokens = sum(len(case["tokens"]) for case in EXPECTED)
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_tokens_may_stand_for_texts(openai_client: openai.OpenAI) -> None:
    tokens = [case["tokens"] for case in EXPECTED]
    many = openai_client.embeddings.create(model=EMBEDDER, input=tokens, dimensions=100)
    one = openai_client.embeddings.create(model=EMBEDDER, input=tokens[1], dimensions=100)
    for case, data in zip(EXPECTED, many.data, strict=True):
        assert cosine(data.embedding, case["vector"][:100]) >= 0.999
    assert cosine(one.data[0].embedding, many.data[1].embedding) > 0.99999


def test_base64_is_little_endian_floats(minilm: Daemon) -> None:
    body = {"model": EMBEDDER, "input": TEXTS[0], "encoding_format": "BASE64"}
    [data] = minilm.client.post("/v1/embeddings", json=body).json()["data"]
    vector = np.frombuffer(base64.b64decode(data["embedding"]), dtype="<f4")
    assert cosine(vector.tolist(), EXPECTED[0]["vector"]) >= 0.999


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["x", []]}, "input[1]"),
        ({"input": ["x", [1.5]]}, "input[1]"),
        ({"input": 3}, "input"),
        ({"input": [[101, 30522]]}, "input[0][1]"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(minilm: Daemon, changes: dict[str, Any], param: str) -> None:
    answer = minilm.client.post("/v1/embeddings", json={"model": EMBEDDER, "input": "x", **changes})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


LONG = "word " * 600


@pytest.mark.parametrize(
    ("path", "changes", "code", "field"),
    [
        ("/api/embed", {"input": ["x"] * 2049}, "invalid_request", "input"),
        ("/v1/embeddings", {"input": ["x"] * 2049}, "invalid_request", "input"),
        ("/api/embed", {"input": [101, 102]}, "invalid_request", "input"),
        ("/api/embed", {"input": {"a": "b"}}, "invalid_request", "input"),
        ("/api/embeddings", {"prompt": ["x"]}, "invalid_request", "prompt"),
        ("/api/embed", {"dimensions": -1}, "invalid_request", "dimensions"),
        ("/api/embed", {"dimensions": 385}, "invalid_request", "dimensions"),
        ("/v1/embeddings", {"dimensions": 385}, "invalid_request", "dimensions"),
        ("/v1/embeddings", {"input": [[1], [-1]]}, "invalid_request", "input[1]"),
        ("/v1/embeddings", {"input": ["x", LONG]}, "context_length_exceeded", None),
        ("/api/embeddings", {"prompt": LONG}, "context_length_exceeded", None),
        ("/api/embed", {"options": {"num_ctx": 4}, "input": "one two three four"}, "context_length_exceeded", None),
        ("/api/embed", {"options": {"nonsense": 4}}, "invalid_request", "options.nonsense"),
        ("/api/embed", {"model": "nothing"}, "model_not_found", None),
        ("/v1/embeddings", {"model": "nothing"}, "model_not_found", None),
        ("/api/embeddings", {"model": ""}, "invalid_request", "model"),
    ],
)
def test_every_route_tells_what_is_wrong_in_its_own_shape(
    minilm: Daemon, path: str, changes: dict[str, Any], code: str, field: str | None
) -> None:
    text = "prompt" if path == "/api/embeddings" else "input"
    answer = minilm.client.post(path, json={"model": EMBEDDER, text: "x", **changes})
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    body = answer.json()
    told = body["error"] if path.startswith("/v1/") else {**body, "message": body["error"], "param": body.get("field")}
    assert (told["code"], told["param"]) == (code, field)
    assert told["message"]
    if code == "context_length_exceeded":
        assert told["prompt_tokens"] > told["context_length"]


def test_a_chat_model_makes_embeddings_while_it_answers(shared_daemon: Daemon) -> None:
    texts = ["A cat sat on the mat.", "A kitten was sitting on the rug.", "The tax office closes at noon. " * 12]
    options = {"num_predict": 24, "temperature": 0}
    question = {"model": MODEL, "prompt": "Tell me a long story.", "stream": False, "options": options}

    def embed(texts: list[str]) -> list[list[float]]:
        answer = shared_daemon.client.post("/api/embed", json={"model": MODEL, "input": texts})
        assert answer.status_code == 200, answer.text
        vectors: list[list[float]] = answer.json()["embeddings"]
        return vectors

    alone = [embed([text])[0] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        stories = [pool.submit(shared_daemon.client.post, "/api/generate", json=question) for _ in range(2)]
        together = pool.submit(embed, texts).result()
        assert all(story.result().json()["eval_count"] == 24 for story in stories)
    for one, many in zip(alone, together, strict=True):
        assert len(one) == 576
        assert cosine(one, many) > 0.999
    assert cosine(alone[0], alone[1]) > cosine(alone[0], alone[2])


def test_documents_come_back_the_best_first(tiny: Daemon) -> None:
    documents = ["abc", "hello world", "xyz", "q"]
    body = {"model": "ranker", "query": "hello", "documents": documents}
    results = tiny.client.post("/api/rerank", json=body).json()["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2, 3]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    objects = [{"text": document} for document in documents]
    told = tiny.client.post(
        "/v1/rerank", json={**body, "documents": objects, "top_n": 2, "return_documents": True}
    ).json()
    assert [one["index"] for one in told["results"]] == [result["index"] for result in results[:2]]
    assert [one["document"]["text"] for one in told["results"]] == [documents[one["index"]] for one in results[:2]]
    assert told["usage"]["total_tokens"] > 0
    for one in documents:
        alone = tiny.client.post("/api/rerank", json={**body, "documents": [one]}).json()["results"]
        [score] = [result["relevance_score"] for result in results if documents[result["index"]] == one]
        assert math.isclose(alone[0]["relevance_score"], score, abs_tol=1e-4)


def test_only_models_that_score_rerank_and_only_those_that_write_chat(tiny: Daemon) -> None:
    rerank = {"model": "embedder", "query": "x", "documents": ["y"]}
    embed = {"model": "ranker", "input": "x"}
    chat = {"model": "embedder", "messages": [{"role": "user", "content": "x"}]}
    for path, body in (("/api/rerank", rerank), ("/v1/rerank", rerank), ("/api/embed", embed), ("/api/chat", chat)):
        answer = tiny.client.post(path, json=body)
        error = answer.json()
        code = error["error"]["code"] if path.startswith("/v1/") else error["code"]
        assert (answer.status_code, code) == (400, "unsupported"), path


def test_a_vector_that_is_no_number_is_told_with_its_input_and_harms_nobody_else(tiny: Daemon) -> None:
    with ThreadPoolExecutor(4) as pool:
        bad = pool.submit(tiny.client.post, "/api/embed", json={"model": "poisoned", "input": ["abc", "xyz"]})
        good = [
            pool.submit(tiny.client.post, "/api/embed", json={"model": "poisoned", "input": ["abc", "de"]})
            for _ in range(3)
        ]
        answer = bad.result()
        assert (answer.status_code, answer.json()["code"], answer.json()["index"]) == (422, "model_invalid", 1)
        assert "NaN" in answer.json()["error"]
        assert all(len(one.result().json()["embeddings"]) == 2 for one in good)


def test_tokens_and_texts_are_each_others_way_back(tiny: Daemon) -> None:
    for text in ("hello", "<|user|>größe 🎈\n", ""):
        body = {"model": "chat", "content": text, "parse_special": True}
        told = tiny.client.post("/api/tokenize", json=body).json()
        assert told["count"] == len(told["tokens"])
        back = tiny.client.post("/api/detokenize", json={"model": "chat", "tokens": told["tokens"]}).json()
        assert back == {"model": "chat", "content": text}
    plain = tiny.client.post("/api/tokenize", json={"model": "chat", "content": "<|user|>"}).json()
    assert plain["count"] == 8
    with_begin = tiny.client.post("/api/tokenize", json={"model": "chat", "content": "x", "add_special": True}).json()
    assert with_begin["tokens"] == [256, 120]


@pytest.mark.parametrize("token", [261, 2**31 - 1])
def test_tokens_beyond_the_vocabulary_are_refused(tiny: Daemon, token: int) -> None:
    for path, body in (
        ("/api/detokenize", {"tokens": [1, token]}),
        ("/v1/embeddings", {"input": [1, token]}),
    ):
        answer = tiny.client.post(path, json={"model": "chat", **body})
        assert answer.status_code == 400
        assert "261 tokens" in answer.text
    for token in (-1, 2**31):
        assert tiny.client.post("/api/detokenize", json={"model": "chat", "tokens": [token]}).status_code == 400


def test_many_inputs_of_many_lengths_are_each_what_they_are_alone(tiny: Daemon) -> None:
    texts = ["abcdefghij"[: number % 10 + 1] * (number % 5 + 1) for number in range(150)]
    many = tiny.client.post("/api/embed", json={"model": "embedder", "input": texts}).json()["embeddings"]
    for number in (0, 17, 64, 149):
        body = {"model": "embedder", "input": texts[number]}
        [alone] = tiny.client.post("/api/embed", json=body).json()["embeddings"]
        assert cosine(alone, many[number]) > 0.99999


def test_a_client_that_leaves_takes_its_inputs_along(shared_daemon: Daemon) -> None:
    inputs = 200
    body = json.dumps({"model": MODEL, "input": ["a long text " * 150] * inputs}).encode()
    head = f"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(shared_daemon.url).port or 0)) as connection:
        connection.sendall(head.encode() + body)
        shared_daemon.wait_until_busy()
    shared_daemon.wait_until_idle()
    [row] = shared_daemon.loaded()
    assert row["steps"]["rows"] < inputs * 450, "all of it was computed"
    assert row["restarts"] == 0
