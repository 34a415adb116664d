"""Images and sounds through a real daemon, tiny projectors and the official clients of all dialects."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.end_to_end.conftest import Daemon, running_daemon
from tests.end_to_end.test_creating import create
from tests.pictures import BLUE, RED, as_text, data_url, picture, tone
from tests.tiny_model import write_tiny_model
from tests.tiny_projector import (
    IMAGE_TOKENS,
    SOUND_TOKENS,
    write_grid_projector,
    write_sound_projector,
    write_vision_projector,
)

GREEDY = {"temperature": 0, "num_predict": 12}
BRIEF = 24
"""Tokens of an answer for which no limit was asked."""
GRID_TOKENS = 3 * 3
"""Of a picture by the projector that keeps its shape."""
QUESTION = "What colour is it?"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("media")
    with running_daemon(folder, folder / "models") as daemon:
        weights = write_tiny_model(folder / "tiny.gguf", context_length=2048)
        eyes = write_vision_projector(folder / "mmproj-eyes.gguf")
        whole = write_vision_projector(folder / "mmproj-whole.gguf", reads_whole=True)
        ears = write_sound_projector(folder / "mmproj-ears.gguf")
        grid = write_grid_projector(folder / "mmproj-grid.gguf")
        looking = write_tiny_model(folder / "looking.gguf", context_length=2048, sections=(4, 2, 2, 0))
        # Where texts are compared, numbers are always added up in the same order.
        settled = {"num_predict": BRIEF, "draft_num_predict": 0, "num_thread": 1, "flash_attention": "off"}
        for name, files in (
            ("blind", [weights]),
            ("eyes", [weights, eyes]),
            ("whole", [weights, whole]),
            ("ears", [weights, ears]),
            ("grid", [looking, grid]),
        ):
            assert create(daemon, name, files, parameters=settled) == {"status": "success"}
        yield daemon


def chat(daemon: Daemon, model: str, images: list[bytes], text: str = QUESTION, **said: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text, "images": [as_text(image) for image in images]}
    body = {"model": model, "messages": [message], "stream": False, "options": GREEDY, **said}
    answer: dict[str, Any] = daemon.client.post("/api/chat", json=body).json()
    return answer


def test_models_with_a_projector_say_what_they_take(daemon: Daemon) -> None:
    shown = {
        name: set(daemon.client.post("/api/show", json={"model": name}).json()["capabilities"])
        for name in ("blind", "eyes", "ears")
    }
    assert {name: found & {"vision", "audio"} for name, found in shown.items()} == {
        "blind": set(),
        "eyes": {"vision"},
        "ears": {"audio"},
    }


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("eyes", IMAGE_TOKENS),
        ("whole", IMAGE_TOKENS // 4 + len("<start_of_image><end_of_image>")),
        ("grid", GRID_TOKENS + len("<|vision_start|><|vision_end|>")),
    ],
)
def test_an_image_counts_as_tokens_and_the_same_one_is_found_in_the_cache(
    daemon: Daemon, model: str, tokens: int
) -> None:
    first = chat(daemon, model, [picture(RED)], "Look at this, whatever it may be.")
    again = chat(daemon, model, [picture(RED)], "Look at this, whatever it may be.")
    other = chat(daemon, model, [picture(BLUE)], "Look at this, whatever it may be.")
    plain = chat(daemon, model, [], "Look at this, whatever it may be.")
    assert first["prompt_eval_count"] == plain["prompt_eval_count"] + tokens
    assert again["message"]["content"] == first["message"]["content"] != other["message"]["content"]
    assert again["cached_tokens"] == first["prompt_eval_count"] - 1
    assert other.get("cached_tokens", 0) < first["prompt_eval_count"] - tokens


def test_the_ollama_client_sends_images_with_chats_and_completions(daemon: Daemon) -> None:
    client = ollama.Client(host=daemon.url)
    message = {"role": "user", "content": QUESTION, "images": [picture(RED)]}
    pieces = list(client.chat("eyes", messages=[message], options=GREEDY, stream=True))
    text = "".join(piece.message.content or "" for piece in pieces)
    assert text == chat(daemon, "eyes", [picture(RED)])["message"]["content"]
    seen = client.generate("eyes", prompt=QUESTION, images=[picture(RED)], options=GREEDY)
    assert seen.response == text
    assert seen.context is None
    raw = client.generate("eyes", prompt=QUESTION, images=[picture(RED)], options=GREEDY, raw=True)
    assert raw.prompt_eval_count == len(QUESTION) + IMAGE_TOKENS + 1
    client._client.close()


def test_the_openai_client_sends_parts_and_their_order_counts(daemon: Daemon) -> None:
    client = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none")
    image: Any = {"type": "image_url", "image_url": {"url": data_url(picture(RED)), "detail": "high"}}
    text: Any = {"type": "text", "text": QUESTION}

    def ask(parts: Any) -> Any:
        messages: Any = [{"role": "user", "content": parts}]
        return client.chat.completions.create(model="eyes", messages=messages, temperature=0, max_tokens=12)

    before, after = ask([image, text]), ask([text, image])
    assert before.choices[0].message.content == chat(daemon, "eyes", [picture(RED)])["message"]["content"]
    assert before.usage.prompt_tokens == after.usage.prompt_tokens
    assert before.choices[0].message.content != after.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="use base64 encoded data") as refused:
        ask([{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}])
    assert refused.value.param == "messages[0].content[0].image_url.url"
    client.close()


def test_the_openai_client_sends_sounds(daemon: Daemon) -> None:
    client = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none")

    def ask(*sounds: bytes) -> Any:
        parts: Any = [
            *({"type": "input_audio", "input_audio": {"data": as_text(sound), "format": "wav"}} for sound in sounds),
            {"type": "text", "text": QUESTION},
        ]
        messages: Any = [{"role": "user", "content": parts}]
        return client.chat.completions.create(model="ears", messages=messages, temperature=0, max_tokens=12)

    plain, low, high = ask(), ask(tone(220)), ask(tone(3000))
    assert low.usage.prompt_tokens == plain.usage.prompt_tokens + SOUND_TOKENS
    assert low.choices[0].message.content == ask(tone(220)).choices[0].message.content
    assert low.choices[0].message.content != high.choices[0].message.content
    client.close()


def test_the_openai_client_has_sounds_transcribed_whole_as_text_and_streamed(daemon: Daemon) -> None:
    asked: Any = {"model": "ears", "file": ("tone.wav", tone(220))}
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as openai_client:

        def transcribe(**hint: Any) -> Any:
            return openai_client.audio.transcriptions.create(**asked, **hint)

        whole = transcribe(include=["logprobs"])
        assert whole.text
        assert whole.usage.input_token_details.audio_tokens == SOUND_TOKENS
        assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
        assert len(whole.logprobs) == whole.usage.output_tokens == BRIEF
        assert whole.finish_reason == "length"
        assert transcribe(response_format="text") == whole.text
        with openai_client.audio.transcriptions.create(**asked, include=["logprobs"], stream=True) as stream:
            *deltas, done = [event.model_dump() for event in stream]
        assert {event["type"] for event in deltas} == {"transcript.text.delta"}
        assert done["type"] == "transcript.text.done"
        assert "".join(event["delta"] for event in deltas) == done["text"] == whole.text
        assert [entry for event in deltas for entry in event["logprobs"]] == done["logprobs"]
        assert (len(done["logprobs"]), done["usage"]) == (BRIEF, whole.usage.model_dump())
        hints = ({"language": "de"}, {"languages": ["de", "fr"]}, {"prompt": "Hello"}, {"keywords": ["Hello"]})
        assert len({whole.text, *(transcribe(**hint).text for hint in hints)}) == 1 + len(hints)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the client's own, of its maker's service
            assert openai_client.audio.translations.create(**asked).text not in ("", whole.text)


async def test_the_waiting_openai_client_has_sounds_transcribed(daemon: Daemon) -> None:
    asked: Any = {"model": "ears", "file": ("tone.wav", tone(220))}
    async with openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as openai_client:
        whole = await openai_client.audio.transcriptions.create(**asked)
        async with await openai_client.audio.transcriptions.create(**asked, stream=True) as stream:
            events = [event async for event in stream]
        assert events[-1].text == whole.text != ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert (await openai_client.audio.translations.create(**asked)).text


def test_what_a_transcript_cannot_tell_is_refused_by_name(daemon: Daemon) -> None:
    asked: dict[str, Any] = {"model": "ears", "file": ("tone.wav", tone(220))}
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:

        def refused(**said: Any) -> tuple[str | None, str | None, str]:
            with pytest.raises(openai.BadRequestError) as caught:
                client.audio.transcriptions.create(**asked | said)
            return caught.value.code, caught.value.param, caught.value.message

        for name, value in (
            ("response_format", "verbose_json"),
            ("response_format", "srt"),
            ("response_format", "vtt"),
            ("response_format", "diarized_json"),
            ("timestamp_granularities", ["word"]),
            ("chunking_strategy", {"type": "server_vad"}),
            ("known_speaker_names", ["Ann"]),
        ):
            assert refused(**{name: value})[:2] == ("unsupported", name)
        for model in ("blind", "eyes"):
            code, field, message = refused(model=model)
            assert (code, field) == ("unsupported", "file")
            assert "does not support audio" in message and "puna show" in message
        assert refused(file=("a.ogg", b"OggS and more"))[:2] == ("invalid_request", "file")
        assert refused(temperature=2)[:2] == ("invalid_request", "temperature")


def test_the_anthropic_client_sends_images_in_messages_and_results_of_tools(daemon: Daemon) -> None:
    client = anthropic.Anthropic(base_url=daemon.url, api_key="none")
    source = {"type": "base64", "media_type": "image/png", "data": as_text(picture(RED))}
    image: Any = {"type": "image", "source": source}

    def ask(*messages: Any) -> Any:
        greedy = {"temperature": 0}
        return client.messages.create(model="eyes", max_tokens=12, messages=list(messages), extra_body=greedy)

    answer = ask({"role": "user", "content": [image, {"type": "text", "text": QUESTION}]})
    assert answer.content[0].text == chat(daemon, "eyes", [picture(RED)])["message"]["content"]
    called = {"type": "tool_use", "id": "one", "name": "look", "input": {}}
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": [called]}]
    results = [
        ask(*turns, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "one", "content": content}]})
        for content in ([{"type": "text", "text": "seen"}], [{"type": "text", "text": "seen"}, image])
    ]
    without, with_image = (one.usage.input_tokens + one.usage.cache_read_input_tokens for one in results)
    assert with_image == without + IMAGE_TOKENS
    client.close()


def test_results_of_tools_hold_images_in_responses_and_in_chats(daemon: Daemon) -> None:
    call: Any = {"type": "function_call", "call_id": "one", "name": "look", "arguments": "{}"}
    image: Any = {"type": "input_image", "image_url": data_url(picture(RED)), "detail": "auto"}
    seen: Any = {"type": "input_text", "text": "seen"}
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as openai_client:

        def ask(output: Any, model: str = "eyes") -> Any:
            result = {"type": "function_call_output", "call_id": "one", "output": output}
            items: Any = [{"role": "user", "content": QUESTION}, call, result]
            return openai_client.responses.create(model=model, input=items, temperature=0, max_output_tokens=12)

        plain, shown = ask([seen]), ask([seen, image])
        assert shown.usage.input_tokens == plain.usage.input_tokens + IMAGE_TOKENS
        kept = [item.model_dump() for item in openai_client.responses.input_items.list(shown.id, order="asc")]
        assert [part["type"] for part in kept[2]["output"]] == ["input_text", "input_image"]
        with pytest.raises(openai.BadRequestError, match="vision") as refused:
            ask([seen, image], model="ears")
        assert refused.value.param == "input[2].output[1].image_url"
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]},
        {"role": "tool", "tool_name": "look", "content": "seen"},
    ]
    client = ollama.Client(host=daemon.url)
    before = client.chat("eyes", messages=turns, options=GREEDY)
    after = client.chat("eyes", messages=[*turns[:2], {**turns[2], "images": [picture(RED)]}], options=GREEDY)
    assert after.prompt_eval_count == (before.prompt_eval_count or 0) + IMAGE_TOKENS
    client._client.close()


def test_what_a_model_cannot_take_is_refused_with_the_place_of_it(daemon: Daemon) -> None:
    for model, data, why in (
        ("blind", picture(), "vision"),
        ("ears", picture(), "vision"),
        ("eyes", tone(), "audio"),
    ):
        answer = chat(daemon, model, [data])
        assert (answer["code"], answer["field"]) == ("unsupported", "messages[0].images[0]"), answer
        assert why in answer["error"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"no image at all", "is not an image"),
        (picture()[:60], "is not an image"),
        (picture(size=(4000, 18)), "one side may be 200 times"),
    ],
)
def test_broken_images_are_refused_with_the_place_of_them(daemon: Daemon, image: bytes, said: str) -> None:
    answer = chat(daemon, "eyes", [picture(), image])
    assert (answer["code"], answer["field"]) == ("invalid_request", "messages[0].images[1]"), answer
    assert said in answer["error"]


def test_broken_base64_and_files_that_are_too_large_are_refused(daemon: Daemon) -> None:
    message = {"role": "user", "content": QUESTION, "images": ["%%%"]}
    answer = daemon.client.post("/api/chat", json={"model": "eyes", "messages": [message]})
    assert (answer.status_code, answer.json()["field"]) == (400, "messages[0].images[0]")
    answer = daemon.client.post(
        "/api/generate", json={"model": "eyes", "prompt": "x", "images": [as_text(bytes((32 << 20) + 1))]}
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


def test_windows_with_images_are_neither_shifted_nor_deterministic(daemon: Daemon) -> None:
    for said in ({"shift": True}, {"options": {**GREEDY, "deterministic": True}}):
        assert chat(daemon, "eyes", [picture()], **said)["code"] == "unsupported"


def test_what_would_be_answered_from_shows_where_images_stand(daemon: Daemon) -> None:
    message = {"role": "user", "content": "What?", "images": [as_text(picture())]}
    shown = daemon.client.post("/api/render", json={"model": "eyes", "messages": [message]}).json()
    assert shown["prompt"] == "<|user|>[image]What?<|end|><|assistant|>"
    assert shown["tokens"].count(-1) == IMAGE_TOKENS


def test_eight_requests_with_images_are_answered_beside_streams_of_text(daemon: Daemon) -> None:
    alone = [chat(daemon, "eyes", [picture((20 * number, 90, 10))])["message"]["content"] for number in range(8)]

    def stream(number: int) -> str:
        body = {"model": "eyes", "prompt": f"Tell {number}", "options": {"num_predict": 60, "seed": number}}
        records = daemon.client.post("/api/generate", json=body).text.splitlines()
        assert '"done":true' in records[-1]
        return records[-1]

    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(stream, number) for number in range(4)]
        seen = list(pool.map(lambda number: chat(daemon, "eyes", [picture((20 * number, 90, 10))]), range(8)))
        assert all(future.result() for future in streams)
    # Cells laid out otherwise may tip a close choice; most texts have none.
    same = sum(answer["message"]["content"] == text for answer, text in zip(seen, alone, strict=True))
    assert all("error" not in answer for answer in seen)
    assert same >= 6
