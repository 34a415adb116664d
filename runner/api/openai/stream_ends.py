"""How the streams of both kinds of completions end: each answer for itself, and with the last of them all together."""

from __future__ import annotations

from collections.abc import Sequence

from runner.api.openai.translate import END_OF_STREAM, Json, envelope, sse_event, truncation, usage_fields
from runner.calls import Call
from runner.chat.types import Finished
from runner.choices import Choices
from runner.generate import Generation
from runner.receipt import receipt_field


def chunk_envelope(kind: str, prefix: str, call: Call, source: Generation | Choices, *, include_usage: bool) -> Json:
    """What every chunk of one stream begins with; where the last tells the usage, the others say that they do not."""
    return envelope(kind, prefix, call, source) | ({"usage": None} if include_usage else {})


class StreamEnds:
    """Collects the ends of one request's answers and makes the last chunks."""

    def __init__(
        self,
        calls: Sequence[Call],
        source: Generation | Choices,
        envelope: Json,
        *,
        include_usage: bool,
        per_prompt: int,
    ) -> None:
        """`per_prompt`: how many answers each prompt has, one after another."""
        self._calls = calls
        self._source = source
        self._envelope = envelope
        self._include_usage = include_usage
        self._per_prompt = per_prompt
        self._ends: dict[int, Finished] = {}

    def chunks(self, index: int, choice: Json, finished: Finished) -> bytes:
        """The last chunk of an answer, and behind that of the last answer what is told of all."""
        self._ends[index] = finished
        chunk: Json = self._envelope | {"choices": [choice]} | truncation([finished])
        if len(self._ends) < len(self._calls):
            return sse_event(chunk)
        ends = [self._ends[number] for number in range(len(self._ends))]
        receipt = receipt_field(self._calls[0], self._source, ends)
        if not self._include_usage:
            return sse_event(chunk | receipt) + END_OF_STREAM
        groups = [ends[start : start + self._per_prompt] for start in range(0, len(ends), self._per_prompt)]
        last = self._envelope | {"choices": []} | usage_fields(groups) | receipt
        return sse_event(chunk) + sse_event(last) + END_OF_STREAM
