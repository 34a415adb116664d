"""Tokens computed ahead with a real model: found in the text, or guessed by a draft model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.name import ModelName
from registry.store import ModelStore
from runner.engine import MAX_SCORED_ROWS, Chunk, PromptScoring, SamplerPlan, TokenScore
from runner.llamacpp.candidates import read_row
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.end_to_end.conftest import MODEL, Daemon
from tests.end_to_end.test_creating import upload
from tests.end_to_end.test_streams import TOLERANCE, log_probabilities
from tests.runner.llamacpp.test_draft_model import answer, ask, open_engine
from tests.tiny_model import write_tiny_model

STORY = "The keeper climbed the stairs every evening, counted the ships, and wrote down the wind. "
GREEDY = SamplerPlan(SamplingParams(temperature=0), 1)


def generate(
    daemon: Daemon, model: str = MODEL, prompt: str = STORY * 6 + STORY[:20], **options: Any
) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "raw": True, "stream": False}
    # As many tokens as the sentence still has: beyond its end a rounding may decide.
    wanted = {"temperature": 0, "num_predict": 14, **options}
    answer: dict[str, Any] = daemon.client.post("/api/generate", json=body | {"options": wanted}).json()
    return answer


@pytest.fixture(scope="module")
def engine(smollm2_store: Path) -> Iterator[LlamaEngine]:
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    engine = LlamaEngine(Library(), path, LoadOptions(context_length=1024, max_sequences=2, num_thread=1))
    yield engine
    engine.close()


def test_text_that_repeats_itself_is_the_same_with_and_without_lookups(shared_daemon: Daemon) -> None:
    plain = generate(shared_daemon, draft_num_predict=0)
    drafted = generate(shared_daemon)
    assert plain["response"] == drafted["response"]
    assert STORY[20:60] in plain["response"]
    assert "draft" not in plain


@pytest.mark.parametrize("guessed", [1, 9])
def test_tokens_sampled_in_rows_of_guesses_are_those_sampled_alone(engine: LlamaEngine, guessed: int) -> None:
    """Of a known text, so that each row is compared with what it is alone, whatever was sampled before."""
    text = engine.tokenize(STORY * 4, add_special=True, parse_special=False)
    begin = len(text) // 2
    sampler = engine.create_sampler(GREEDY, text)
    engine.step([Chunk(0, 0, text[:begin])])
    alone = []
    for place in range(begin, begin + 28):
        engine.step([Chunk(0, place, text[place : place + 1], sampler)])
        alone.append(log_probabilities(read_row(engine._model.context, 0, engine.info.vocabulary)))
    engine.remove(0)
    engine.step([Chunk(0, 0, text[:begin])])
    ahead: list[int] = []
    while len(ahead) + guessed < len(alone):
        place = begin + len(ahead)
        chunk = Chunk(0, place, text[place : place + guessed + 1], sampler, drafted=guessed)
        ahead += engine.step([chunk])
        ahead += [engine.sample_next(chunk, right) for right in range(1, guessed + 1)]
    sampler.close()
    engine.remove(0)
    assert all(row[token] > row.max() - TOLERANCE for token, row in zip(ahead, alone, strict=False))
    assert sum(token == row.argmax() for token, row in zip(ahead, alone, strict=False)) > 0.8 * len(ahead)


def test_a_model_that_drafts_for_itself_is_mostly_right(smollm2_store: Path) -> None:
    path = ModelStore(smollm2_store).find(ModelName.parse(MODEL)).model_path
    engine = open_engine(Library(), path, path)
    prompt = engine.tokenize("Once upon a time, in a village by the sea,", add_special=True, parse_special=False)
    [drafted] = answer(engine, ask(40), prompt=prompt)
    assert drafted.usage.draft_model_accepted > max(20, 0.8 * drafted.usage.draft_model_tokens)
    assert drafted.context is not None
    tokens = list(drafted.context)
    scores: dict[int, TokenScore] = {}
    for start in range(0, len(tokens) - 1, MAX_SCORED_ROWS):
        part = tokens[start : start + MAX_SCORED_ROWS]
        scoring = PromptScoring(tokens[start + 1 : start + 1 + len(part)], 1, scores)
        engine.step([Chunk(0, start, part, scoring=scoring)])
    engine.close()
    chosen = [scores[place] for place in range(len(prompt), len(tokens))]
    assert all(score.logprob > score.alternatives[0][1] - TOLERANCE for score in chosen)
    assert sum(score.token == score.alternatives[0][0] for score in chosen) > 0.9 * len(chosen)


def test_a_model_is_made_with_a_draft_model_and_answers_as_without_it(daemon: Daemon, tmp_path: Path) -> None:
    [weights] = ModelStore(daemon.models).find(ModelName.parse(MODEL)).weights
    body = {"model": "twin", "from": MODEL, "draft_files": {"small.gguf": str(weights.digest)}, "stream": False}
    assert daemon.client.post("/api/create", json=body).json() == {"status": "success"}
    drafted = generate(daemon, "twin")
    assert daemon.loaded()[0]["options"]["draft"] == "of twin:latest"
    plain = generate(daemon, "twin", draft_model="")
    assert drafted["response"] == plain["response"] != ""
    assert "draft_model" not in plain.get("draft", {})

    named = generate(daemon, draft_model="twin")
    assert named["response"] == plain["response"]
    missing = generate(daemon, draft_model="gone:1b")
    assert (missing["code"], missing["model"]) == ("model_not_found", "gone:1b")

    tiny = {"tiny.gguf": upload(daemon, write_tiny_model(tmp_path / "tiny.gguf"))}
    made = daemon.client.post("/api/create", json={"model": "tiny", "files": tiny, "stream": False})
    assert made.json() == {"status": "success"}
    refused = generate(daemon, draft_model="tiny")
    assert refused["code"] == "unsupported" and "its vocabulary has 261 tokens" in refused["error"]
    assert generate(daemon)["response"] == plain["response"]
