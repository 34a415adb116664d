"""Everything that can go wrong between a request and its answer.

RunnerError
├─ RequestError               the caller can change something
│  ├─ InvalidRequest          a field is wrong; `field` is its path
│  ├─ InvalidJson, InvalidEncoding, TooDeep, BodyTooLarge
│  ├─ Unsupported             a field or combination that is not honoured
│  ├─ ConstraintInvalid       a schema, expression or grammar that cannot be honoured as it stands
│  ├─ ContextLengthExceeded
│  ├─ ModelNotFound, NotFound, ModelInUse
│  ├─ Unauthorized            no API key where one is needed, or none that is known
│  └─ Forbidden: HostForbidden, OriginForbidden
├─ QueueFull, DeadlineExceeded, ServerShutdown
├─ ModelInvalid, ModelCorrupt, InsufficientMemory, DiskFull
├─ EngineCrashed
└─ ReportedError              one of the above, told by a worker over the pipe
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Fact = str | int | float | bool | None


class RunnerError(Exception):
    """An error with a stable `code`, one sentence for people, and its facts as values.

    `facts` stand beside the message in every dialect's error body. HTTP statuses and exit
    codes are chosen from `code` by the layers that speak HTTP or exit.
    """

    code = "internal"

    def __init__(self, message: str, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, Fact] = facts


class RequestError(RunnerError):
    """The caller can mend this one."""

    code = "invalid_request"


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type, out of range or unknown."""

    def __init__(self, message: str, field: str | None = None) -> None:
        if field is None:
            super().__init__(message)
        else:
            super().__init__(message, field=field)
        self.field = field


class InvalidJson(RequestError):
    code = "invalid_json"


class InvalidEncoding(RequestError):
    code = "invalid_encoding"


class TooDeep(RequestError):
    code = "too_deep"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class Unsupported(RequestError):
    """A field or a combination that is understood and not honoured."""

    code = "unsupported"


class ConstraintInvalid(RequestError):
    """A constraint that cannot be compiled, or asks for more than it may."""

    code = "constraint_invalid"

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message, field=field)


class ContextLengthExceeded(RequestError):
    """The prompt does not fit the window the request may use."""

    code = "context_length_exceeded"

    def __init__(
        self,
        prompt_tokens: int,
        context_length: int,
        *,
        at_least: bool = False,
        is_shortened: bool = False,
        ways_out: Sequence[str] = ("shorten the prompt",),
    ) -> None:
        """`at_least`: there are more tokens, and nobody counted them. `is_shortened`: what could be cut is gone."""
        count = f"at least {prompt_tokens}" if at_least else f"{prompt_tokens}"
        still = " even without its oldest turns" if is_shortened else ""
        *others, last = ways_out
        super().__init__(
            f"The prompt has {count} tokens{still} and the window holds {context_length}, one of which the answer "
            f"needs; {', '.join(others)}{', or ' if others else ''}{last}.",
            prompt_tokens=prompt_tokens,
            context_length=context_length,
            **({"at_least": True} if at_least else {}),
            **({"is_shortened": True} if is_shortened else {}),
        )


class ModelNotFound(RequestError):
    code = "model_not_found"


class NotFound(RequestError):
    """Something else that a request names and that is not here."""

    code = "not_found"


class ModelInUse(RequestError):
    code = "model_in_use"


class Unauthorized(RequestError):
    code = "unauthorized"


class Forbidden(RequestError):
    code = "forbidden"


class HostForbidden(Forbidden):
    code = "host_forbidden"


class OriginForbidden(Forbidden):
    code = "origin_forbidden"


class QueueFull(RunnerError):
    code = "queue_full"


class DeadlineExceeded(RunnerError):
    code = "deadline_exceeded"


class ServerShutdown(RunnerError):
    """The daemon stops; another one may take its place."""

    code = "server_shutdown"

    def __init__(
        self,
        message: str = "The server is shutting down; try again in a moment.",
        *,
        retry_after_seconds: int = 5,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class ModelInvalid(RunnerError):
    """The model's file is hostile, damaged beyond reading, or of a kind the engine does not run."""

    code = "model_invalid"


class ModelCorrupt(RunnerError):
    """The model's file differs from what was verified."""

    code = "model_corrupt"


class InsufficientMemory(RunnerError):
    code = "insufficient_memory"


class DiskFull(RunnerError):
    code = "disk_full"


class EngineCrashed(RunnerError):
    """The worker process ended while it held this request."""

    code = "engine_crashed"


class ReportedError(RunnerError):
    """An error that crossed the pipe from a worker: its code and facts are values."""

    def __init__(self, code: str, message: str, facts: Mapping[str, Fact]) -> None:
        super().__init__(message)
        # The worker may have read their names in a model's file: as keyword arguments they could clash.
        self.facts = dict(facts)
        self.code = code
