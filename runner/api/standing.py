"""A request's place among others: how urgent it is, and with whose requests it may share."""

from __future__ import annotations

import dataclasses

from starlette.requests import Request

from runner.api import context
from runner.calls import Call
from runner.chat.types import Priority
from runner.errors import Forbidden, InvalidRequest

PRIORITY_HEADER = "X-Puna-Priority"


def with_standing(call: Call, request: Request, usual: Priority = Priority.INTERACTIVE) -> Call:
    """The call with what its API key and headers say of its place. Raises InvalidRequest and Forbidden."""
    return dataclasses.replace(call, priority=_priority(request, usual), cache_scope=context.owner(request))


def vain_standing(request: Request) -> list[str]:
    """The header that says how urgent a request is, where it is sent for a task that takes its turn in any case."""
    return [PRIORITY_HEADER] if PRIORITY_HEADER in request.headers else []


def _priority(request: Request, usual: Priority) -> Priority:
    if context.is_background(request):
        usual = Priority.BACKGROUND
    text = request.headers.get(PRIORITY_HEADER, usual).strip().lower()
    try:
        priority = Priority(text)
    except ValueError:
        allowed = " or ".join(Priority)
        raise InvalidRequest(f"{PRIORITY_HEADER} is {allowed}.", PRIORITY_HEADER) from None
    if context.is_background(request) and priority is not Priority.BACKGROUND:
        raise Forbidden(f"The requests of this API key let others go first; leave out {PRIORITY_HEADER}.")
    return priority
