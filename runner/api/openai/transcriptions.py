"""What is said in a sound: asked of a model in a conversation, and told as transcripts. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from runner.api.errors import report_failure
from runner.api.media_parts import MediaPart, join_parts
from runner.api.openai.transcription_schema import TranscriptionBody, TranslationBody
from runner.api.openai.translate import Json, error_event, sse_event
from runner.api.sampling import token_entries
from runner.calls import Call, Conversation
from runner.chat.media import MediaKind, check_size
from runner.chat.types import ChatEvent, Failed, Finished, FinishReason, Message, ScoredToken, TextDelta
from runner.errors import InvalidRequest, Unsupported
from runner.generate import Answer

_TRANSCRIBE = "Transcribe the speech in this recording word for word, in the language that is spoken."
_TRANSLATE = "Translate the speech in this recording into English."
_ONLY = "Answer with nothing but the {result}."


def transcription_call(body: TranscriptionBody, request_id: str) -> Call:
    """Raises InvalidRequest, Unsupported or BodyTooLarge naming the field."""
    if body.language is not None and body.languages is not None:
        raise InvalidRequest("language and languages do not go together; send one of them.", "languages")
    if body.include and body.response_format == "text" and not body.stream:
        raise Unsupported("A text has no place for log-probabilities; use the format json.", field="include")
    wanted = [_TRANSCRIBE]
    if body.language is not None:
        wanted.append(f"The language is {body.language}.")
    if body.languages:
        wanted.append(f"The language is one of these: {', '.join(body.languages)}.")
    if body.keywords:
        wanted.append(f"These words may be in it: {', '.join(body.keywords)}.")
    return _call(body, request_id, wanted, "transcript", logprobs=0 if body.include else None)


def translation_call(body: TranslationBody, request_id: str) -> Call:
    """As `transcription_call`, for the words in English."""
    return _call(body, request_id, [_TRANSLATE], "translation")


def _call(
    body: TranslationBody, request_id: str, wanted: list[str], result: str, *, logprobs: int | None = None
) -> Call:
    if not body.file:
        raise InvalidRequest("file is empty.", "file")
    check_size(MediaKind.AUDIO, body.file, "file")
    if body.prompt:
        wanted = [*wanted, f"It goes on from this text, or is to be written like it:\n{body.prompt}\n"]
    wanted = [*wanted, _ONLY.format(result=result)]
    sound = MediaPart(MediaKind.AUDIO, body.file, "file")
    text, media = join_parts([sound, " ".join(wanted).replace("\n ", "\n")])
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=Conversation(messages=(Message("user", text, media=media),)),
        # What was said is one thing; a model's own settings are made for talking.
        options={"temperature": body.temperature or 0.0},
        options_path="",
        thinking=False,
        may_think_in_vain=True,
        logprobs=logprobs,
    )


def transcript(call: Call, answer: Answer) -> Json:
    """The whole transcript as an object."""
    return _whole(call, answer.text, answer.tokens, answer.finished)


def translation(answer: Answer) -> Json:
    """The whole translation as an object; this kind of answer has no usage."""
    return {"text": answer.text, **_cut_off(answer.finished)}


def cut_off_header(answer: Answer) -> dict[str, str]:
    """For answers that are text: where else could it be told that the transcript is not whole?"""
    return {"X-Puna-Finish-Reason": answer.finished.reason.value} if _cut_off(answer.finished) else {}


class TranscriptEvents:
    """Turns the events of an answer into a stream of server-sent events."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._texts: list[str] = []
        self._tokens: list[ScoredToken] = []

    def encode(self, event: ChatEvent) -> bytes:
        if isinstance(event, TextDelta):
            self._texts.append(event.text)
            self._tokens += event.tokens
            delta: Json = {"type": "transcript.text.delta", "delta": event.text}
            return sse_event(delta | _logprobs(self._call, event.tokens))
        if isinstance(event, Finished):
            done = _whole(self._call, "".join(self._texts), self._tokens, event)
            return sse_event({"type": "transcript.text.done"} | done)
        if isinstance(event, Failed):
            return error_event(report_failure(event.code, event.message, event.facts, self._call.request_id))
        return b""


def _whole(call: Call, text: str, tokens: Sequence[ScoredToken], finished: Finished) -> Json:
    return {"text": text, **_logprobs(call, tokens), "usage": _usage(finished), **_cut_off(finished)}


def _logprobs(call: Call, tokens: Sequence[ScoredToken]) -> Json:
    return {} if call.logprobs is None else {"logprobs": token_entries(tokens, always_alternatives=False)}


def _usage(finished: Finished) -> Json:
    counts = finished.usage
    return {
        "type": "tokens",
        "input_tokens": counts.prompt_tokens,
        "input_token_details": {
            "audio_tokens": counts.media_tokens,
            "text_tokens": counts.prompt_tokens - counts.media_tokens,
        },
        "output_tokens": counts.completion_tokens,
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
    }


def _cut_off(finished: Finished) -> Json:
    """That the transcript ends before the sound does, which the window or a limit of the model's may do."""
    return {"finish_reason": finished.reason.value} if finished.reason is not FinishReason.STOP else {}
