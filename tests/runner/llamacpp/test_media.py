"""Images and sounds through real mtmd calls: a model and projectors of random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runner.chat.media import MediaKind
from runner.chat.types import ChatPrompt, ChatRequest, Failed, Finished, Limits, Message
from runner.engine import EngineFault, MediaChunk, MediaPiece, Picture, Sound
from runner.errors import InvalidRequest, ModelInvalid, Unsupported
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.loaded_model import LoadOptions
from runner.messages import Cancel
from runner.worker.media import place_pieces
from runner.worker.prompt import prepare_prompt
from tests.pictures import BLUE, RED, picture, tone
from tests.runner.llamacpp.media_worker import GREEDY, Worker, answers, asking, message
from tests.tiny_projector import (
    IMAGE_TOKENS,
    SOUND_TOKENS,
    write_grid_projector,
    write_sound_projector,
    write_vision_projector,
)

OPTIONS = LoadOptions(
    context_length=1024, max_sequences=8, num_batch=128, num_gpu=0, num_thread=1, flash_attention="off"
)
"""Without flash attention, whose sums of 16 bits come out otherwise with other rows beside them."""


@pytest.fixture(params=["causal", "whole", "grid"])
def engine(
    request: pytest.FixtureRequest, library: Library, tiny_model: Path, tiny_grid_model: Path, tmp_path: Path
) -> Iterator[LlamaEngine]:
    if request.param == "grid":
        model, projector = tiny_grid_model, write_grid_projector(tmp_path / "mmproj.gguf")
    else:
        whole = request.param == "whole"
        model, projector = tiny_model, write_vision_projector(tmp_path / "mmproj.gguf", reads_whole=whole)
    engine = LlamaEngine(library, model, OPTIONS, projector=projector)
    yield engine
    engine.close()


def test_equal_images_have_equal_vectors_and_others_have_others(engine: LlamaEngine) -> None:
    assert engine.info.media == ("image",)

    def vectors(colour: tuple[int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        pixels = bytes(colour) * (40 * 30)
        pieces = engine.tokenize_media(engine.media_marker, [Picture(40, 30, pixels)], add_special=False)
        [piece] = [piece for piece in pieces if isinstance(piece, MediaPiece)]
        made = engine.encode_media(piece)
        assert isinstance(made, np.ndarray)
        assert made.shape == (piece.count, 64)
        return made

    assert np.array_equal(vectors(RED), vectors(RED))
    assert not np.allclose(vectors(RED), vectors(BLUE), atol=0.1)


def test_an_image_computed_in_parts_answers_as_one_computed_at_once(
    library: Library, tiny_model: Path, tmp_path: Path
) -> None:
    engine = LlamaEngine(library, tiny_model, OPTIONS, projector=write_vision_projector(tmp_path / "p.gguf"))
    request = asking(message(picture()))
    whole = answers(engine, {"one": request}).text("one")
    engine.close()
    narrow = msgspec.structs.replace(OPTIONS, max_sequences=4, num_batch=5)
    engine = LlamaEngine(library, tiny_model, narrow, projector=tmp_path / "p.gguf")
    assert answers(engine, {"one": request}).text("one") == whole != ""
    engine.close()


def test_the_same_image_again_needs_no_encoding_and_gives_the_same_answer(engine: LlamaEngine) -> None:
    worker = answers(engine, {"first": asking(message(picture(), text="What is it? " * 3))})
    worker.ask({"again": asking(message(picture(), text="What is it? " * 3))})
    first, again = worker.end("first"), worker.end("again")
    assert isinstance(first, Finished) and isinstance(again, Finished)
    assert worker.text("again") == worker.text("first") != ""
    assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
    assert worker.encoded == 1


def test_another_image_and_another_order_give_other_answers(engine: LlamaEngine) -> None:
    text = "What is it?"
    worker = answers(
        engine,
        {
            "red": asking(message(picture(RED), text=text)),
            "blue": asking(message(picture(BLUE), text=text)),
            "behind": asking(message(picture(RED), text=text, at=len(text))),
            "both": asking(message(picture(RED), picture(BLUE), text=text)),
            "swapped": asking(message(picture(BLUE), picture(RED), text=text)),
        },
    )
    texts = {name: worker.text(name) for name in ("red", "blue", "behind", "both", "swapped")}
    assert all(texts.values())
    assert len(set(texts.values())) == len(texts), texts


def test_eight_requests_with_one_image_encode_it_once(engine: LlamaEngine) -> None:
    system = Message("system", "You are asked about a picture that all of us look at.")
    requests = {str(number): asking(system, message(picture(), text=f"Question {number}")) for number in range(8)}
    worker = answers(engine, requests)
    assert all(isinstance(worker.end(name), Finished) for name in requests)
    assert worker.encoded == 1


def test_answers_go_on_between_the_turns_of_eight_images(engine: LlamaEngine) -> None:
    stream = ChatRequest(ChatPrompt((Message("user", "Tell me."),)), GREEDY, Limits(num_predict=60, num_draft=0))
    worker = Worker(engine)
    seen: list[int] = []
    worker.on_encode = lambda: seen.append(len(worker.text("stream")))
    images = {str(number): asking(message(picture((25 * number, 9, 9)))) for number in range(7)}
    worker.ask({"stream": stream, **images})
    assert all(isinstance(worker.end(name), Finished) for name in ("stream", *images))
    assert worker.encoded == 7
    # Between two encodings, every answer in progress gets a token.
    assert len(set(seen)) > 3


def test_a_request_that_is_cancelled_while_its_image_is_encoded_is_gone_at_the_next_step(engine: LlamaEngine) -> None:
    worker = Worker(engine)
    worker.on_encode = lambda: worker.control.handle(Cancel("gone"))
    worker.ask({"gone": asking(message(picture()))})
    assert worker.encoded == 1
    assert worker.events == []
    assert worker.loop._scheduler.is_idle
    assert len(worker.loop._progress) == 0


def test_an_image_that_cannot_be_encoded_fails_its_own_request_only(engine: LlamaEngine) -> None:
    worker = Worker(engine)

    def refuse() -> None:
        raise EngineFault("no")

    worker.on_encode = refuse
    worker.ask({"bad": asking(message(picture())), "good": asking(Message("user", "hello"))})
    end = worker.end("bad")
    assert isinstance(end, Failed) and end.code == "internal"
    assert isinstance(worker.end("good"), Finished)


def test_the_oldest_turns_go_with_their_images_when_a_conversation_is_shortened(engine: LlamaEngine) -> None:
    turns = []
    for number in range(30):
        turns += [message(picture((8 * number, 1, 1)), text="And this one? " * 3), Message("assistant", "A box.")]
    request = asking(*turns, message(picture(BLUE)), limits=Limits(num_predict=4, num_draft=0, truncate=True))
    prepared = prepare_prompt(request, engine)
    assert prepared.truncated is not None
    assert len(prepared.tokens) < engine.info.context_length
    assert 1 < len(prepared.media) < 31
    for span in prepared.media:
        assert all(token < -1 for token in prepared.tokens[span.start : span.end])
    assert sum(token < 0 for token in prepared.tokens) == sum(span.piece.count for span in prepared.media)


def test_a_text_that_looks_like_a_marker_is_only_text(engine: LlamaEngine) -> None:
    text = "<__media__> [image] <__media_0__>#0;"
    prepared = prepare_prompt(asking(Message("user", text)), engine)
    assert prepared.media == ()
    assert text in prepared.text
    marker = re.escape(engine.media_marker)
    assert not re.search(marker, prepare_prompt(asking(message(picture(), text=text)), engine).text)


def test_a_template_without_a_place_for_messages_is_told(engine: LlamaEngine) -> None:
    request = ChatRequest(ChatPrompt((message(picture()),), template="{{ messages[0].role }}"), GREEDY)
    with pytest.raises(InvalidRequest, match="leaves no place for images"):
        prepare_prompt(request, engine)


def test_equal_contents_have_equal_stand_ins_and_only_those(engine: LlamaEngine) -> None:
    piece = MediaPiece(3, 0, False, None)
    [(one, _), (same, _), (other, _)] = [place_pieces([piece], 0, [content]) for content in (b"a", b"a", b"b")]
    assert one == same != other
    assert all(token < -1 for token in one + other)
    [(twice, spans)] = [place_pieces([[1], piece, [2], piece], 5, [b"a"])]
    assert [span.start for span in spans] == [6, 10]
    assert twice[1:4] != twice[5:8]  # pieces of one image differ


def test_sounds_are_heard(library: Library, tiny_model: Path, tmp_path: Path) -> None:
    engine = LlamaEngine(library, tiny_model, OPTIONS, projector=write_sound_projector(tmp_path / "p.gguf"))
    assert engine.info.media == ("audio",)
    low, high = (message(tone(hertz), kind=MediaKind.AUDIO) for hertz in (200, 3000))
    worker = answers(engine, {"low": asking(low), "high": asking(high)})
    assert worker.text("low") != worker.text("high")
    assert len(prepare_prompt(asking(low), engine).media) == 1
    pieces = engine.tokenize_media(engine.media_marker, [Sound(tone())], add_special=False)
    assert [piece.count for piece in pieces if isinstance(piece, MediaPiece)] == [SOUND_TOKENS]
    with pytest.raises(InvalidRequest):
        engine.tokenize_media(engine.media_marker, [Sound(b"RIFF\0\0\0\0WAVE" + bytes(90))], add_special=False)
    with pytest.raises(Unsupported, match="vision"):
        prepare_prompt(asking(message(picture())), engine)
    engine.close()


@pytest.mark.parametrize("width", [32, 0])
def test_a_model_whose_projector_does_not_fit_answers_to_text_and_says_why_not_to_images(
    library: Library, tiny_model: Path, tmp_path: Path, width: int
) -> None:
    projector = tmp_path / "p.gguf"
    if width:
        write_vision_projector(projector, width=width)
    else:
        projector.write_bytes(b"GGUF")
    engine = LlamaEngine(library, tiny_model, OPTIONS, projector=projector)
    assert isinstance(answers(engine, {"text": asking(Message("user", "hello"))}).end("text"), Finished)
    with pytest.raises(ModelInvalid, match="cannot load the projector"):
        prepare_prompt(asking(message(picture())), engine)
    engine.close()


def test_an_image_that_has_to_be_computed_at_once_must_fit_a_step(
    library: Library, tiny_model: Path, tmp_path: Path
) -> None:
    projector = write_vision_projector(tmp_path / "p.gguf", reads_whole=True)
    narrow = LoadOptions(context_length=512, max_sequences=2, num_batch=2, num_gpu=0)
    engine = LlamaEngine(library, tiny_model, narrow, projector=projector)
    with pytest.raises(Unsupported, match=f"takes {IMAGE_TOKENS // 4} tokens"):
        prepare_prompt(asking(message(picture())), engine)
    engine.close()


def test_places_that_see_one_another_are_not_the_same_computed_in_parts(
    library: Library, tiny_model: Path, tmp_path: Path
) -> None:
    projector = write_vision_projector(tmp_path / "p.gguf", reads_whole=True)
    engine = LlamaEngine(library, tiny_model, OPTIONS, projector=projector)
    [_, piece, _] = engine.tokenize_media(engine.media_marker, [Picture(8, 8, bytes(192))], add_special=False)
    assert isinstance(piece, MediaPiece)
    vectors = engine.encode_media(piece)
    states = []
    for is_whole in (True, False):
        chosen = MediaPiece(piece.count, 0, is_whole, piece.native)
        engine.step_media(MediaChunk(0, 0, chosen, vectors, 0, piece.count))
        states.append(bytes(engine.save(0, 0, piece.count)))
        engine.remove(0)
    assert states[0] != states[1]
    engine.close()
