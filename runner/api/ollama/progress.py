"""Answers of calls that take long: records of how far they are, or the last one alone."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from registry.progress import Progress
from runner.api.context import request_id
from runner.api.errors import report_of
from runner.api.ollama.records import error_record, progress_body, progress_record
from runner.api.ollama.schema import CreateBody, PullBody, PushBody
from runner.api.streaming import (
    NDJSON,
    EventSource,
    JsonResponse,
    Opened,
    StreamResponse,
    ignored_header,
    while_connected,
)
from runner.api.validation import ignored_fields


async def answer_progress(
    request: Request, start: Callable[[], EventSource[Progress]], body: PullBody | PushBody | CreateBody
) -> Response:
    """What a request gets whose work `start` begins; a client that leaves ends the work."""
    headers = ignored_header(ignored_fields(body))
    if body.stream is False:
        last = await while_connected(request.receive, _last(start))
        return JsonResponse(progress_body(last), headers=headers)
    opened = await while_connected(request.receive, _opened(start))
    return StreamResponse(
        opened,
        progress_record,
        lambda error: error_record(report_of(error, request_id(request))),
        NDJSON,
        headers,
    )


async def _opened(start: Callable[[], EventSource[Progress]]) -> Opened[Progress]:
    return await Opened.open(start())


async def _last(start: Callable[[], EventSource[Progress]]) -> Progress:
    opened = await _opened(start)
    try:
        async for progress in opened:
            last = progress
    finally:
        await opened.aclose()
    return last
