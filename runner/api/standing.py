"""How urgent a request is, by its header."""

from __future__ import annotations

import dataclasses

from starlette.requests import Request

from runner.calls import Call
from runner.chat.types import Priority
from runner.errors import InvalidRequest

PRIORITY_HEADER = "X-Puna-Priority"


def with_standing(call: Call, request: Request, usual: Priority = Priority.INTERACTIVE) -> Call:
    """The call with what the request's headers say of its place among others. Raises InvalidRequest."""
    return dataclasses.replace(call, priority=_priority(request, usual))


def vain_standing(request: Request) -> list[str]:
    """The header that says how urgent a request is, where it is sent for a task that takes its turn in any case."""
    return [PRIORITY_HEADER] if PRIORITY_HEADER in request.headers else []


def _priority(request: Request, usual: Priority) -> Priority:
    text = request.headers.get(PRIORITY_HEADER, usual).strip().lower()
    try:
        return Priority(text)
    except ValueError:
        allowed = " or ".join(Priority)
        raise InvalidRequest(f"{PRIORITY_HEADER} is {allowed}.", PRIORITY_HEADER) from None
