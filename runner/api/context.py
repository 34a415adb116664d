"""What is known of a request before anybody reads it: its id, when it came, and whose it is."""

from __future__ import annotations

import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from runner.api.keys import Caller

_USABLE_ID = re.compile(r"[!-~]{1,128}")


def begin(scope: Scope, headers: Headers) -> str:
    """Note a request's arrival and its id: the client's X-Request-Id if that is short and printable, else a new one."""
    given = headers.get("x-request-id", "")
    request_id = given if _USABLE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
    scope.setdefault("state", {}).update(request_id=request_id, arrived_ns=time.monotonic_ns())
    return request_id


def note_caller(scope: Scope, caller: Caller) -> None:
    scope["state"]["caller"] = caller


def request_id(request: Request) -> str:
    noted: str = request.state.request_id
    return noted


def owner(request: Request) -> str:
    """Whose request it is, so that nobody finds what another has left here."""
    return _caller(request).owner


def is_background(request: Request) -> bool:
    """Whether whoever asks lets others go first, whatever the request says."""
    return _caller(request).is_background


def arrived_ns(request: Request) -> int:
    """On the monotonic clock."""
    noted: int = request.state.arrived_ns
    return noted


def _caller(request: Request) -> Caller:
    noted: Caller = request.state.caller
    return noted
