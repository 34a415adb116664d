"""What this dialect asks for in queries: pages of lists, events of a response, and more than there is to tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from runner.api.openai.paging import MOST, Page, page_of
from runner.api.openai.responses_items import Item
from runner.api.streaming import JsonResponse, ignored_header
from runner.errors import InvalidRequest

TEXT: dict[str, Any] = {"type": "string"}
PAGE: dict[str, dict[str, Any]] = {
    "after": TEXT,
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 20},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
    "include": TEXT,
}
"""What lists of items are asked with, for the OpenAPI document."""
MOST_EVENTS = 999_999_999
EVENTS: dict[str, dict[str, Any]] = {
    "stream": {"type": "boolean"},
    "starting_after": {"type": "integer", "minimum": 0, "maximum": MOST_EVENTS},
    "include": TEXT,
    "include_obfuscation": {"type": "boolean"},
}
"""What one response is asked with."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


def page_response(request: Request, items: Sequence[Item]) -> Response:
    """The page that is asked for of items that are given oldest first. Raises InvalidRequest."""
    asked = request.query_params
    page = Page.read(asked.get("after"), asked.get("limit", "20"), asked.get("order", "desc"))
    told = page_of([item.record() for item in items], page)
    return JsonResponse(told, headers=ignored_header(ignored_queries(request)))


def read_start(request: Request) -> int | None:
    """The number of the event to begin behind, -1 for all; None where no stream is wanted. Raises InvalidRequest."""
    asked = request.query_params
    stream, after = asked.get("stream", "false").lower(), asked.get("starting_after")
    if stream not in _FLAGS:
        raise InvalidRequest("stream must be true or false.", "stream")
    if not _FLAGS[stream]:
        return None
    if after is None:
        return -1
    if not after.isascii() or not after.isdigit() or len(after) > len(str(MOST_EVENTS)):
        raise InvalidRequest("starting_after must be the number of an event.", "starting_after")
    return int(after)


def ignored_queries(request: Request) -> list[str]:
    """What was asked for beside what is told anyway, which nothing here has, or without the stream that it is for."""
    asked = request.query_params
    includes = dict.fromkeys([*asked.getlist("include"), *asked.getlist("include[]")])
    vain = [f"include[{one[:60]}]" for one in includes]
    if "starting_after" in asked and not _FLAGS.get(asked.get("stream", "").lower()):
        vain.append("starting_after")
    return [*vain, "include_obfuscation"] if "include_obfuscation" in asked else vain
