"""Our errors as HTTP: the one place that knows status codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException

from registry.errors import RegistryError
from runner.config_file import SettingsError
from runner.errors import Fact, RunnerError

logger = logging.getLogger(__name__)

STATUS: Mapping[str, int] = {
    "invalid_request": 400,
    "invalid_json": 400,
    "invalid_encoding": 400,
    "too_deep": 400,
    "unsupported": 400,
    "constraint_invalid": 400,
    "context_length_exceeded": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "host_forbidden": 403,
    "origin_forbidden": 403,
    "registry_forbidden": 403,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "store_read_only": 409,
    "model_in_use": 409,
    "body_too_large": 413,
    "model_invalid": 422,
    "rate_limited": 429,
    "model_corrupt": 500,
    "engine_crashed": 500,
    "internal": 500,
    "registry_unreachable": 502,
    "registry_error": 502,
    "digest_mismatch": 502,
    "queue_full": 503,
    "server_shutdown": 503,
    "deadline_exceeded": 504,
    "insufficient_memory": 507,
    "disk_full": 507,
}

_RETRY_AFTER_SECONDS = {"rate_limited": 1, "queue_full": 2, "server_shutdown": 5}


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as every dialect tells it."""

    status: int
    code: str
    message: str
    request_id: str
    facts: Mapping[str, Fact]
    headers: Mapping[str, str]


def report_of(error: BaseException, request_id: str) -> ErrorReport:
    """What a client may know of an error. Anything unforeseen is logged with its traceback and told as `internal`."""
    if isinstance(error, HTTPException):
        return _routing_report(error, request_id)
    if isinstance(error, RunnerError | RegistryError):
        code, message, facts = error.code, error.message, dict(error.facts)
    elif isinstance(error, SettingsError):
        code, message, facts = "invalid_request", error.message, {}
    else:
        logger.error("request %s failed", request_id, exc_info=error)
        code, message, facts = "internal", "Something went wrong here; the daemon's log tells what.", {}
    return _report(code, message, request_id, facts)


def report_failure(code: str, message: str, facts: Mapping[str, Fact], request_id: str) -> ErrorReport:
    """As `report_of`, for an error that came as values."""
    return _report(code, message, request_id, facts)


def _report(code: str, message: str, request_id: str, facts: Mapping[str, Fact]) -> ErrorReport:
    headers = {"WWW-Authenticate": 'Bearer realm="Puna"'} if code == "unauthorized" else {}
    if code in _RETRY_AFTER_SECONDS:
        told = facts.get("retry_after_seconds")
        headers["Retry-After"] = str(told if isinstance(told, int) else _RETRY_AFTER_SECONDS[code])
    return ErrorReport(STATUS.get(code, 500), code, message, request_id, facts, headers)


def _routing_report(error: HTTPException, request_id: str) -> ErrorReport:
    phrase = HTTPStatus(error.status_code).phrase.lower()
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "internal" if error.status_code >= 500 else "invalid_request")
    message = f"{error.status_code} page not found" if error.status_code == 404 else f"{error.status_code} {phrase}"
    return ErrorReport(error.status_code, code, message, request_id, {}, dict(error.headers or {}))
