"""Suspects: requests that were under way whenever a model's process died, and are not tried again."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable

import msgspec

from runner.chat.types import Failed, Priority
from runner.errors import EngineCrashed
from runner.messages import Generate, Perform

REFUSED_SECONDS = 3600.0
"""How long: a request may have been there by chance."""
MOST_SUSPECTS = 256


class Suspects:
    """Remembers requests by what they ask for, never the requests themselves. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def add(self, model: str, command: Generate | Perform) -> None:
        """Refuse what asks for the same from now on; the oldest ones are forgotten for it."""
        self._until.pop(print_ := fingerprint(model, command), None)
        self._until[print_] = self._clock() + REFUSED_SECONDS
        while len(self._until) > MOST_SUSPECTS:
            del self._until[next(iter(self._until))]

    def refusal(self, model: str, command: Generate | Perform) -> Failed | None:
        """Why a request is not tried, or None for any other. `model` is the name people know."""
        if not self._until:
            return None
        until = self._until.get(fingerprint(model, command), 0.0)
        if until <= self._clock():
            return None
        message = (
            f"The process of {model} died twice while it computed this request, so that it is refused for an hour; "
            "change it, or use another model."
        )
        return Failed(EngineCrashed.code, message, {"model": model})


def fingerprint(model: str, command: Generate | Perform) -> bytes:
    """The same for requests that ask the same of a model, whoever sends them and with whatever seed."""
    asked: object
    if isinstance(command, Perform):
        asked = command.task
    else:
        request = command.request
        asked = msgspec.structs.replace(
            request,
            sampling=dataclasses.replace(request.sampling, seed=None),
            cache_scope="",
            priority=Priority.INTERACTIVE,
        )
    return hashlib.blake2b(msgspec.msgpack.encode((model, asked)), digest_size=16).digest()
