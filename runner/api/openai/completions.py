"""Text completions: calls for every prompt and choice, and their answers. Pure functions."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Sequence

from runner.api.errors import report_failure
from runner.api.openai.completion_schema import CompletionBody, Prompt
from runner.api.openai.shaping import chosen_options
from runner.api.openai.stream_ends import StreamEnds, chunk_envelope
from runner.api.openai.translate import Json, envelope, error_event, sse_event, truncation, usage_fields
from runner.api.sampling import one_constraint, told_logprob
from runner.calls import Call, Completion
from runner.chat.types import ChatEvent, Failed, Finished, ScoredToken, TextDelta
from runner.choices import Choice, Choices
from runner.errors import InvalidRequest, Unsupported
from runner.generate import Answer, Generation
from runner.receipt import receipt_field

MOST_ANSWERS = 128
DEFAULT_TOKENS = 16
"""What this dialect has always meant by leaving max_tokens out."""
_KIND, _PREFIX = "text_completion", "cmpl"


def completion_calls(body: CompletionBody, request_id: str) -> list[Call]:
    """For each prompt its candidates, one after another. Raises InvalidRequest for what single fields do not show."""
    wanted, candidates = body.n or 1, candidates_of(body)
    if candidates < wanted:
        raise InvalidRequest("best_of must be at least n.", "best_of")
    if body.stream and candidates > wanted:
        raise InvalidRequest("best_of cannot be streamed: which is best is known in the end.", "best_of")
    if len(body.prompt) * candidates > MOST_ANSWERS:
        raise InvalidRequest(f"One request may ask for at most {MOST_ANSWERS} answers.", "prompt")
    if body.suffix and body.echo:
        raise Unsupported("echo cannot be combined with suffix.", field="echo")
    base = _call(body, request_id)
    return [
        dataclasses.replace(base, prompt=_prompt(prompt, body.suffix), variant=variant)
        for prompt in body.prompt
        for variant in range(candidates)
    ]


def candidates_of(body: CompletionBody) -> int:
    """How many answers to one prompt are made."""
    return body.best_of or body.n or 1


def _call(body: CompletionBody, request_id: str) -> Call:
    options = chosen_options(body)
    options["num_predict"] = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    ranks = candidates_of(body) > (body.n or 1)
    return Call(
        request_id=request_id,
        model=body.model,
        prompt=Completion(prompt="", raw=True),
        options=options,
        options_path="",
        truncate=bool(body.truncate),
        constraint=one_constraint(None, body.grammar),
        logit_bias=tuple((body.logit_bias or {}).items()),
        logprobs=0 if ranks and body.logprobs is None else body.logprobs,
        echo=bool(body.echo),
        receipt=bool(body.receipt),
    )


def _prompt(prompt: Prompt, suffix: str | None) -> Completion:
    if suffix:
        if not isinstance(prompt, str):
            raise Unsupported("suffix needs a prompt of text.", field="suffix")
        return Completion(prompt=prompt, suffix=suffix)
    return (
        Completion(prompt=prompt, raw=True)
        if isinstance(prompt, str)
        else Completion(prompt="", tokens=prompt, raw=True)
    )


def completion(body: CompletionBody, calls: Sequence[Call], answers: Sequence[Answer]) -> Json:
    """All answers as one object."""
    wanted, made = body.n or 1, candidates_of(body)
    by_prompt = [answers[start : start + made] for start in range(0, len(answers), made)]
    chosen = [answer for group in by_prompt for answer in _best(group, wanted)]
    return {
        **envelope(_KIND, _PREFIX, calls[0], answers[0].generation),
        "choices": [_choice(body, index, answer) for index, answer in enumerate(chosen)],
        **usage_fields([[answer.finished for answer in group] for group in by_prompt]),
        **truncation(answer.finished for answer in answers),
        **receipt_field(calls[0], answers[0].generation, [answer.finished for answer in answers]),
    }


def _best(answers: Sequence[Answer], count: int) -> Sequence[Answer]:
    """The answers whose tokens are the likeliest on average; all, in their order, when all are wanted."""
    if count == len(answers):
        return answers
    return sorted(answers, key=_average, reverse=True)[:count]


def _average(answer: Answer) -> float:
    known = [token.logprob for token in answer.tokens if token.logprob is not None]
    return sum(known) / len(known) if known else 0.0


def _choice(body: CompletionBody, index: int, answer: Answer) -> Json:
    told = None if body.logprobs is None else Offsets().logprobs(answer.tokens)
    reason = answer.finished.reason.value
    return {"index": index, "text": answer.text, "logprobs": told, "finish_reason": reason}


class Offsets:
    """Where the tokens of one answer stand in its text, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def logprobs(self, tokens: Sequence[ScoredToken]) -> Json:
        """The next tokens of the answer in this dialect's shape."""
        offsets = []
        for token in tokens:
            offsets.append(self._characters)
            self._characters += len(self._decoder.decode(token.data))
        return {
            "tokens": [_text(token.data) for token in tokens],
            "token_logprobs": [_told(token.logprob) for token in tokens],
            "top_logprobs": [_alternatives(token) for token in tokens],
            "text_offset": offsets,
        }


def _alternatives(token: ScoredToken) -> Json | None:
    """The likeliest tokens in their order, and behind them the one that was taken, if it is none of them."""
    if token.logprob is None:
        return None
    told: Json = {}
    for data, logprob in (*token.alternatives, (token.data, token.logprob)):
        told.setdefault(_text(data), told_logprob(logprob))
    return told


def _text(data: bytes) -> str:
    """A token as text; one that is no whole text as its bytes, so that two of them differ."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _told(logprob: float | None) -> float | None:
    return None if logprob is None else told_logprob(logprob)


class CompletionChunks:
    """Turns the events of all answers into server-sent events."""

    def __init__(self, body: CompletionBody, calls: Sequence[Call], source: Generation | Choices) -> None:
        self._call = calls[0]
        wants_usage = body.wants_usage
        self._envelope = chunk_envelope(_KIND, _PREFIX, calls[0], source, include_usage=wants_usage)
        self._offsets = [Offsets() for _ in calls]
        self._ends = StreamEnds(
            calls, source, self._envelope, include_usage=wants_usage, per_prompt=candidates_of(body)
        )

    def encode(self, event: ChatEvent) -> bytes:
        """The chunk of an event of the only answer, or at its end all the last ones."""
        return self.encode_choice((0, event))

    def encode_choice(self, choice: Choice) -> bytes:
        """The chunk of an event of any answer; with the last end all the last chunks."""
        index, event = choice
        if isinstance(event, TextDelta):
            told = self._offsets[index].logprobs(event.tokens) if event.tokens else None
            return self._chunk({"index": index, "text": event.text, "logprobs": told, "finish_reason": None})
        if isinstance(event, Finished):
            return self._last(index, event)
        if isinstance(event, Failed):
            return error_event(report_failure(event.code, event.message, event.facts, self._call.request_id))
        return b""

    def _chunk(self, choice: Json) -> bytes:
        return sse_event(self._envelope | {"choices": [choice]})

    def _last(self, index: int, finished: Finished) -> bytes:
        choice = {"index": index, "text": "", "logprobs": None, "finish_reason": finished.reason.value}
        return self._ends.chunks(index, choice, finished)
