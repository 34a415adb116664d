"""Vectors of real llama.cpp models with random weights: alone, together, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from runner.engine import Chunk, EncodingChunk, SamplerPlan
from runner.llamacpp.encoder import CHUNK_ROWS
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions, Pooling
from runner.sampling import SamplingParams
from tests.tiny_encoders import CLS, SEP, write_tiny_bert
from tests.tiny_model import BEGIN, write_tiny_model
from tests.tiny_recurrent_model import write_tiny_recurrent_model

Array = np.ndarray[Any, Any]
Open = Callable[..., LlamaEngine]

TOLERANCE = 0.002
"""How far the numbers of a vector that is one long may move when other inputs are in the batch: caches are f16."""
TEXTS = ["abc", "hello world", "z", "the end of it all", "abc"]


@pytest.fixture
def opened(library: Library) -> Iterator[Open]:
    engines: list[LlamaEngine] = []

    def open_engine(path: Path, **options: Any) -> LlamaEngine:
        given = {"context_length": 512, "max_sequences": 2, "num_thread": 1, **options}
        engines.append(LlamaEngine(library, path, LoadOptions(**given)))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def encode(engine: LlamaEngine, inputs: Sequence[Sequence[int]]) -> list[Array]:
    """All in one batch, made one long."""
    engine.prepare_encoding(sum(map(len, inputs)))
    chunks = [EncodingChunk(slot, 0, tokens, is_last=True) for slot, tokens in enumerate(inputs)]
    return [unit(vector) for vector in engine.encode(chunks)]


def unit(vector: Any) -> Array:
    assert vector is not None
    numbers = np.array(vector)
    return np.asarray(numbers / np.linalg.norm(numbers))


def tokens_of(engine: LlamaEngine, texts: Sequence[str]) -> list[Sequence[int]]:
    return [engine.tokenize_whole(text, parse_special=True).tokens for text in texts]


@pytest.mark.parametrize("pooling", [gguf.PoolingType.MEAN, gguf.PoolingType.CLS])
def test_many_inputs_together_are_what_each_is_alone(tmp_path: Path, opened: Open, pooling: gguf.PoolingType) -> None:
    engine = opened(write_tiny_bert(tmp_path / "bert.gguf", pooling=pooling))
    assert engine.info.encoding is not None
    assert engine.info.encoding.is_whole and not engine.info.generates
    assert engine.info.encoding.pooling is Pooling(pooling.name.lower())
    inputs = tokens_of(engine, TEXTS)
    together = encode(engine, inputs)
    for tokens, vector in zip(inputs, together, strict=True):
        [alone] = encode(engine, [tokens])
        assert np.abs(alone - vector).max() < TOLERANCE
    assert np.abs(together[0] - together[4]).max() < TOLERANCE
    assert np.abs(together[0] - together[1]).max() > 10 * TOLERANCE


def test_a_model_that_writes_makes_vectors_beside_its_answers(tiny_model: Path, opened: Open) -> None:
    engine = opened(tiny_model)
    inputs = tokens_of(engine, TEXTS)
    sampler = engine.create_sampler(SamplerPlan(SamplingParams(temperature=0), 1), [1, 2, 3])
    [first] = engine.step([Chunk(0, 0, [1, 2, 3], sampler)])
    together = encode(engine, inputs)
    [second] = engine.step([Chunk(0, 3, [first], sampler)])
    engine.remove(0)
    assert engine.step([Chunk(0, 0, [1, 2, 3], sampler)]) == [first]
    assert engine.step([Chunk(0, 3, [first], sampler)]) == [second]
    for tokens, vector in zip(inputs, together, strict=True):
        assert np.abs(encode(engine, [tokens])[0] - vector).max() < TOLERANCE
    sampler.close()


def test_an_input_in_pieces_is_what_it_is_as_a_whole(tmp_path: Path, opened: Open) -> None:
    engine = opened(write_tiny_model(tmp_path / "m.gguf", context_length=2048), context_length=2048)
    long = [BEGIN, *(number * 7 % 256 for number in range(CHUNK_ROWS + 300))]
    other = [BEGIN, 5, 6, 7]
    engine.prepare_encoding(len(long) + len(other))
    assert engine.encoding_rows == CHUNK_ROWS
    pieces = [(0, 100), (100, 500), (500, len(long))]
    found = []
    for start, end in pieces:
        chunks = [EncodingChunk(0, start, long[start:end], is_last=end == len(long))]
        if start == 100:
            chunks.append(EncodingChunk(1, 0, other, is_last=True))
        found.append(engine.encode(chunks))
    assert found[0] == [None]
    first, second = found[1]
    assert first is None
    engine.prepare_encoding(len(long))
    engine.encode([EncodingChunk(3, 0, long[:400], is_last=False)])
    [otherwise] = engine.encode([EncodingChunk(3, 400, long[400:], is_last=True)])
    assert np.abs(unit(found[2][0]) - unit(otherwise)).max() < TOLERANCE
    assert np.abs(unit(second) - encode(engine, [other])[0]).max() < TOLERANCE


def test_the_room_grows_with_the_inputs_and_a_whole_input_always_fits_one_step(tmp_path: Path, opened: Open) -> None:
    engine = opened(write_tiny_bert(tmp_path / "bert.gguf", context_length=2000), context_length=2000)
    assert engine.encoding_room == 0
    for length in (3, 512, 513, 2000):
        engine.prepare_encoding(length)
        assert engine.encoding_rows == engine.encoding_room >= length
        [vector] = engine.encode([EncodingChunk(0, 0, [CLS, *[7] * (length - 2), SEP], is_last=True)])
        assert np.isfinite(unit(vector)).all()


def test_a_slot_that_is_used_again_has_forgotten_its_input(tiny_model: Path, opened: Open) -> None:
    engine = opened(tiny_model)
    [expected] = encode(engine, [[1, 2, 3]])
    engine.prepare_encoding(64)
    engine.encode([EncodingChunk(0, 0, [9, 9, 9, 9], is_last=False)])
    [again] = engine.encode([EncodingChunk(0, 0, [1, 2, 3], is_last=True)])
    assert np.abs(unit(again) - expected).max() < TOLERANCE


def test_what_is_no_number_comes_back_as_such(tmp_path: Path, opened: Open) -> None:
    engine = opened(write_tiny_bert(tmp_path / "bert.gguf", poison="z"))
    [bad, good] = tokens_of(engine, ["xyz", "abc"])
    assert np.isnan(encode(engine, [bad])[0]).all()
    assert np.isfinite(encode(engine, [good])[0]).all()


def test_a_model_with_a_head_scores_pairs_from_0_to_1(tmp_path: Path, opened: Open) -> None:
    engine = opened(write_tiny_bert(tmp_path / "rank.gguf", pooling=gguf.PoolingType.RANK))
    pairs = [engine.tokenize_pair("abc", document) for document in ("de", "hello", "q")]
    first = list(pairs[0].tokens)
    assert first[0] == CLS and first[-1] == SEP and first.count(SEP) == 2
    assert (pairs[0].head, pairs[0].tail) == (first.index(SEP) + 1, 1)
    engine.prepare_encoding(64)
    chunks = [EncodingChunk(slot, 0, pair.tokens, is_last=True) for slot, pair in enumerate(pairs)]
    scores = [list(vector) for vector in engine.encode(chunks) if vector is not None]
    assert all(len(score) == 1 and 0 < score[0] < 1 for score in scores)
    assert len({round(score[0], 4) for score in scores}) == 3


def test_a_recurrent_model_makes_no_vectors(tmp_path: Path, opened: Open) -> None:
    engine = opened(write_tiny_recurrent_model(tmp_path / "recurrent.gguf"))
    assert engine.info.encoding is None and engine.info.generates


def test_texts_and_tokens_are_each_others_way_back(tiny_model: Path, opened: Open) -> None:
    engine = opened(tiny_model)
    for text in ("hello", "größe 🎈\n\t", "", "<|user|>x"):
        tokens = engine.tokenize(text, add_special=False, parse_special=True)
        assert engine.detokenize(tokens) == text
    assert engine.detokenize([0xF0, 0x9F]) == "�"
    whole = engine.tokenize_whole("x", parse_special=False)
    assert (list(whole.tokens), whole.head, whole.tail) == ([BEGIN, 120], 1, 0)


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_vectors_do_not_depend_on_the_type_of_the_cache(tmp_path: Path, opened: Open, kind: str) -> None:
    path = write_tiny_model(tmp_path / "wide.gguf", width=256)
    tokens = [BEGIN, *b"what is kept of a text"]
    [plain] = encode(opened(path), [tokens])
    [other] = encode(opened(path, kv_cache_type=kind), [tokens])
    assert np.abs(plain - other).max() < TOLERANCE
