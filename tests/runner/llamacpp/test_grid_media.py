"""Images that take more cells than positions, as those of Qwen-VL models do: a tiny one of the kind, really run."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as lib
from llama_cpp import mtmd_cpp as mtmd

from runner.chat.media import Media, MediaKind
from runner.chat.types import ChatRequest, Finished, Limits, Message, TextPrompt
from runner.engine import Chunk, MediaChunk, MediaPiece, Move, Picture, SamplerPlan
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.llamacpp.model import make_context
from runner.loaded_model import LoadOptions
from runner.messages import CacheOptions
from runner.worker.pictures import read_picture
from tests.pictures import BLUE, RED, picture
from tests.runner.llamacpp.media_worker import GREEDY, Worker, answers, asking, message
from tests.tiny_projector import write_grid_projector

OPTIONS = LoadOptions(
    context_length=1024, max_sequences=8, num_batch=128, num_gpu=0, num_thread=1, flash_attention="off"
)
"""Without flash attention, whose sums of 16 bits come out otherwise with other rows beside them."""
WIDE = (320, 288)
"""20 times 18 places: more than a segment of the cache holds, and than a step computes."""


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    return write_grid_projector(tmp_path / "mmproj.gguf")


@pytest.fixture
def engine(library: Library, tiny_grid_model: Path, projector: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(library, tiny_grid_model, OPTIONS, projector=projector)
    yield engine
    engine.close()


def seen(data: bytes) -> Picture:
    return read_picture(Media(MediaKind.IMAGE, data, 0, "image"))


def prompt(engine: LlamaEngine, text: str, *images: bytes) -> list[list[int] | MediaPiece]:
    """Pieces of a text with a star in the place of each image."""
    marked = text.replace("*", engine.media_marker)
    return engine.tokenize_media(marked, [seen(image) for image in images], add_special=True)


def answered_by_the_library(engine: LlamaEngine, pieces: Sequence[list[int] | MediaPiece], count: int) -> list[int]:
    """Greedy tokens by mtmd's own way of computing a prompt."""
    context = make_context(engine._model.handle, OPTIONS, 1, engine._library.log)
    assert engine._projector is not None
    place, made = ctypes.c_int32(0), []

    def compute(tokens: list[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        batch = lib.llama_batch_get_one(array, len(tokens))
        positions = (ctypes.c_int32 * len(tokens))(*range(place.value, place.value + len(tokens)))
        batch.pos = positions
        assert lib.llama_decode(context, batch) == 0
        place.value += len(tokens)

    for piece in pieces:
        if isinstance(piece, list):
            compute(piece)
            continue
        native: Any = piece.native
        handle = engine._projector._handle
        status = mtmd.mtmd_helper_eval_chunk_single(
            handle, context, native.chunk, place.value, 0, 128, True, ctypes.byref(place)
        )
        assert status == 0
    for _ in range(count):
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), shape=(engine.info.vocabulary,))
        made.append(int(logits.argmax()))
        compute(made[-1:])
    lib.llama_free(context)
    return made


def computed(engine: LlamaEngine, pieces: Sequence[list[int] | MediaPiece], *, rows: int) -> int:
    """Have sequence 0 hold a prompt, images in chunks of so many rows; the greedy token behind it."""
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), [])
    place, token = 0, None
    for piece in pieces:
        wanted = sampler if piece is pieces[-1] else None
        if isinstance(piece, list):
            tokens = engine.step([Chunk(0, place, piece, wanted)])
            token = tokens[0] if tokens else None
            place += len(piece)
            continue
        vectors = engine.encode_media(piece)
        for first in range(0, piece.count, rows):
            count = min(rows, piece.count - first)
            is_last = first + count == piece.count
            token = engine.step_media(
                MediaChunk(0, place + first, piece, vectors, first, count, wanted if is_last else None)
            )
        place += piece.count
    sampler.close()
    assert token is not None
    return token


@pytest.mark.parametrize("text", ["*What is it?", "See * and * now", "At the end *", "**"])
def test_answers_are_those_of_the_librarys_own_way(engine: LlamaEngine, text: str) -> None:
    images = [picture(RED, size=(64, 48)), picture(BLUE, size=(40, 90))][: text.count("*")]
    pieces = prompt(engine, text, *images)
    expected = answered_by_the_library(engine, pieces, 12)
    places = [at for at, sign in enumerate(text) if sign == "*"]
    media = tuple(
        Media(MediaKind.IMAGE, image, at - number, "images")
        for number, (image, at) in enumerate(zip(images, places, strict=True))
    )
    request = ChatRequest(TextPrompt(text.replace("*", ""), media), GREEDY, Limits(num_predict=12, num_draft=0))
    worker = answers(engine, {"one": request})
    assert worker.text("one") == b"".join(map(engine.token_bytes, expected)).decode("utf-8", "replace")


@pytest.mark.parametrize("rows", [1, 5, 128])
def test_an_image_may_be_computed_in_parts(engine: LlamaEngine, rows: int) -> None:
    pieces = prompt(engine, "See * now", picture(RED, size=(64, 48)))
    [expected] = answered_by_the_library(engine, pieces, 1)
    assert computed(engine, pieces, rows=rows) == expected


def test_a_sequence_with_images_is_shared_cut_saved_and_moved_as_one_of_text(engine: LlamaEngine) -> None:
    pieces = prompt(engine, "See * and * now", picture(RED, size=(64, 48)), picture(BLUE, size=(40, 90)))
    counts = [len(piece) if isinstance(piece, list) else piece.count for piece in pieces]
    length = sum(counts)
    [expected, following] = answered_by_the_library(engine, pieces, 2)
    assert computed(engine, pieces, rows=128) == expected
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), [])

    def next_of(sequence_id: int) -> int:
        [token] = engine.step([Chunk(sequence_id, length, [expected], sampler)])
        engine.cut(sequence_id, length)
        return token

    engine.copy(0, 1, length)
    assert next_of(1) == following
    # From two ranges, that part between the images.
    middle = sum(counts[:3])
    ranges = [(0, middle), (middle, length)]
    states = [engine.save(0, *one) for one in ranges]
    engine.remove(1)
    assert all(engine.restore(1, state, *one) for state, one in zip(states, ranges, strict=True))
    assert next_of(1) == following
    # A range of which only a part is wanted.
    engine.cut(1, counts[0] - 2)
    assert all(
        engine.restore(1, state, *one)
        for state, one in zip(states, [(counts[0] - 2, middle), (middle, length)], strict=True)
    )
    assert next_of(1) == following
    engine.cut(1, sum(counts[:2]))
    assert engine.move_into(engine.make_window(2048), [Move(0, length), Move(1, sum(counts[:2]), 0, counts[0])])
    assert next_of(0) == following
    assert engine.restore(1, states[0], sum(counts[:2]), middle) and engine.restore(1, states[1], *ranges[1])
    assert next_of(1) == following
    sampler.close()


def test_a_window_grows_while_an_image_is_half_computed(engine: LlamaEngine) -> None:
    [first, text, piece, end] = prompt(engine, "See * now", picture(RED, size=(64, 48)))
    assert isinstance(first, list) and isinstance(text, list)
    assert isinstance(piece, MediaPiece) and isinstance(end, list)
    [expected] = answered_by_the_library(engine, [first, text, piece, end], 1)
    begin = first + text
    start, half = len(begin), piece.count // 2
    vectors = engine.encode_media(piece)
    engine.step([Chunk(0, 0, begin)])
    engine.step_media(MediaChunk(0, start, piece, vectors, 0, half))
    assert engine.move_into(engine.make_window(2048), [Move(0, start + half)])
    engine.step_media(MediaChunk(0, start + half, piece, vectors, half, piece.count - half))
    sampler = engine.create_sampler(SamplerPlan(GREEDY, 1), [])
    assert engine.step([Chunk(0, start + piece.count, end, sampler)]) == [expected]
    sampler.close()


def test_large_images_are_found_whole_in_the_cache_or_not_at_all(engine: LlamaEngine) -> None:
    before = "Look at this, whatever it may be: " * 3
    worker = Worker(engine)

    def ask(name: str, colour: tuple[int, int, int]) -> tuple[str, Finished]:
        shown = message(picture(colour, size=WIDE), text=before, at=len(before))
        worker.ask({name: asking(shown)})
        end = worker.end(name)
        assert isinstance(end, Finished), end
        return worker.text(name), end

    first, end = ask("first", RED)
    assert end.usage.media_tokens == 20 * 18
    again, end_again = ask("again", RED)
    assert again == first != ""
    assert end_again.usage.cached_tokens == end.usage.prompt_tokens - 1
    assert worker.encoded == 1
    other, end_other = ask("other", BLUE)
    assert other != first
    assert len(before) <= end_other.usage.cached_tokens < end.usage.prompt_tokens - 20 * 18
    assert worker.encoded == 2


def test_a_prompt_that_ends_with_an_image_computes_that_again(engine: LlamaEngine) -> None:
    """Something always has to be computed, and of an image nothing less than all of it."""
    worker = Worker(engine)
    colours = {"first": RED, "again": RED}
    for name, colour in colours.items():
        image = Media(MediaKind.IMAGE, picture(colour), 12, "images[0]")
        worker.ask(
            {name: ChatRequest(TextPrompt("And here is:", (image,)), GREEDY, Limits(num_predict=6, num_draft=0))}
        )
    assert worker.text("again") == worker.text("first") != ""


def test_what_was_kept_on_disk_is_of_use_to_the_next_process(
    library: Library, tiny_grid_model: Path, projector: Path, tmp_path: Path
) -> None:
    cache = CacheOptions(disk_bytes=64 << 20, directory=str(tmp_path / "cache"), weights_digest="0" * 64)
    asked = asking(Message("system", "You are asked about a picture. " * 2), message(picture(RED, size=WIDE)))
    told = []
    for _ in range(2):
        engine = LlamaEngine(library, tiny_grid_model, OPTIONS, projector=projector)
        worker = Worker(engine, cache=cache)
        worker.ask({"one": asked})
        worker.wait_for("one")
        worker.loop.save(10)
        end = worker.end("one")
        assert isinstance(end, Finished), end
        told.append((worker.text("one"), end.usage, worker.encoded))
        engine.close()
    (first, usage, _), (again, usage_again, encoded) = told
    assert again == first != ""
    assert usage_again.cache.disk == usage.prompt_tokens - 1
    assert encoded == 0


def test_many_requests_with_several_images_share_what_they_begin_with(engine: LlamaEngine) -> None:
    shared = [Message("system", "All look at the same two."), message(picture(RED), picture(BLUE, size=(90, 40)))]
    requests = {str(n): asking(*shared, Message("user", f"Question {n}")) for n in range(8)}
    worker = Worker(engine)
    worker.ask(requests)
    ends = [worker.end(name) for name in requests]
    assert all(isinstance(end, Finished) for end in ends), ends
    assert worker.encoded == 2
    alone = {name: Worker(engine, cache=CacheOptions(memory_bytes=0)) for name in ("0", "4", "7")}
    for name, lone in alone.items():
        lone.ask({name: requests[name]})
        lone.loop._keeper.free_cells(engine.info.context_length)
    # Cells laid out otherwise may tip a close choice; most texts have none.
    assert sum(worker.text(name) == lone.text(name) for name, lone in alone.items()) >= 2
