"""How the routes of this dialect get their answers: one or several, whole or as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from runner.api.errors import report_of
from runner.api.openai.translate import error_event
from runner.api.streaming import SERVER_SENT_EVENTS, StreamResponse, ignored_header
from runner.calls import Call
from runner.choices import Choices
from runner.generate import Answer, Generation, Generator

EventT = TypeVar("EventT")


async def complete(generator: Generator, calls: Sequence[Call]) -> list[Answer]:
    """The whole answers, in the order of the calls; raises as `Generator.complete`."""
    if len(calls) == 1:
        return [await generator.complete(calls[0])]
    return await generator.complete_choices(calls)


def event_stream(
    source: Generation | Choices, encode: Callable[[EventT], bytes], call: Call, ignored: Sequence[str]
) -> StreamResponse[EventT]:
    """The answers as server-sent events; `encode` takes what `source` gives."""
    return StreamResponse(
        source,  # type: ignore[arg-type]  # the caller pairs them
        encode,
        lambda error: error_event(report_of(error, call.request_id)),
        SERVER_SENT_EVENTS,
        ignored_header([*ignored, *source.ignored]),
    )
