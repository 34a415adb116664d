"""A model in several files is one model, whatever the files are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engine import Chunk, SamplerPlan
from runner.errors import ModelInvalid
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.llamacpp.model import measure
from runner.loaded_model import LoadOptions
from runner.sampling import SamplingParams
from tests.tiny_model import write_tiny_model


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Named as blobs are."""
    write_tiny_model(tmp_path / "m.gguf", max_tensors=8)
    named = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    return [file.rename(tmp_path / f"sha256-{number}") for number, file in enumerate(named)]


def greedy(engine: LlamaEngine) -> list[int]:
    tokens = engine.tokenize("hello", add_special=True, parse_special=False)
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), tokens)
    answer = engine.step([Chunk(0, 0, tokens, sampler)])
    for position in range(len(tokens), len(tokens) + 8):
        answer += engine.step([Chunk(0, position, answer[-1:], sampler)])
    return answer


def test_shards_give_the_answers_of_the_whole(library: Library, tiny_model: Path, shards: list[Path]) -> None:
    options = LoadOptions(128, max_sequences=2, num_thread=1)
    answers = []
    for path, others in ((tiny_model, []), (shards[0], shards[1:])):
        engine = LlamaEngine(library, path, options, shards=others)
        try:
            answers.append(greedy(engine))
        finally:
            engine.close()
    assert answers[0] == answers[1]


def test_shards_are_measured_together(library: Library, tiny_model: Path, shards: list[Path]) -> None:
    options = LoadOptions(128)
    whole, parts = (measure(files, options, library.log) for files in ([tiny_model], shards))
    overhead = sum(file.stat().st_size for file in shards) - tiny_model.stat().st_size
    assert parts == whole + overhead


def test_a_shard_too_few_is_refused(library: Library, shards: list[Path]) -> None:
    with pytest.raises(ModelInvalid, match="cannot load the model"):
        LlamaEngine(library, shards[0], LoadOptions(128), shards=shards[1:2])
