"""What all answers of the OpenAI dialect have in common. Pure functions."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence

import msgspec

from registry.stored_model import StoredModel
from runner.api.errors import ErrorReport
from runner.calls import Call
from runner.chat.types import CachedTokens, Finished, Usage
from runner.choices import Choices
from runner.generate import Generation

_encode = msgspec.json.encode
Json = dict[str, object]
END_OF_STREAM = b"data: [DONE]\n\n"
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


def model_entry(model: StoredModel) -> Json:
    """A model as /v1/models shows it."""
    return {
        "id": model.name.short,
        "object": "model",
        "created": int(model.modified_at.timestamp()),
        "owned_by": model.name.namespace,
    }


def error_event(report: ErrorReport) -> bytes:
    """An error as the last event of a stream."""
    return sse_event(error_body(report))


def error_body(report: ErrorReport) -> Json:
    """An error in this dialect's shape."""
    error: Json = {
        "message": report.message,
        "type": _ERROR_TYPES.get(report.status, "api_error"),
        "param": report.facts.get("field"),
        "code": report.code,
        "request_id": report.request_id,
    }
    facts = {name: value for name, value in report.facts.items() if name not in error and name != "field"}
    return {"error": error | facts}


def envelope(kind: str, prefix: str, call: Call, generation: Generation | Choices) -> Json:
    """What every object of one answer begins with."""
    build = f"{generation.loaded.engine}\0{generation.model.digest}".encode()
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "system_fingerprint": f"fp_{hashlib.sha256(build).hexdigest()[:12]}",
    }


def usage_fields(answers: Sequence[Iterable[Finished]]) -> Json:
    """The sums over all answers, for each prompt its own, which count once; and where cached tokens came from."""
    by_prompt = [[finished.usage for finished in group] for group in answers]
    prompt_tokens = sum(group[0].prompt_tokens for group in by_prompt)
    each = [one for group in by_prompt for one in group]
    completion_tokens = sum(one.completion_tokens for one in each)
    counts: Json = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(group[0].cached_tokens for group in by_prompt)},
    }
    if details := _completion_details(each):
        counts["completion_tokens_details"] = details
    return {"usage": counts} | cache_tiers(group[0] for group in by_prompt)


def cache_tiers(prompts: Iterable[Usage]) -> Json:
    """How many of the prompts' tokens came from which tier of the prefix cache, where any did."""
    used = [one.cache for one in prompts if one.cache.total]
    tiers = {name: sum(getattr(one, name) for one in used) for name in CachedTokens.__struct_fields__}
    return {"cache": tiers} if used else {}


def _completion_details(each: Sequence[Usage]) -> Json:
    details: Json = {}
    if thought := sum(one.thinking_tokens for one in each):
        details["reasoning_tokens"] = thought
    drafted, accepted = sum(one.drafted_tokens for one in each), sum(one.accepted_tokens for one in each)
    if drafted:
        # What the engine guessed of itself; a prediction of the caller's is not asked for.
        details |= {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": drafted - accepted}
    return details


def truncation(ends: Iterable[Finished]) -> Json:
    """What was shortened, as the first of the answers tells it."""
    for finished in ends:
        if (told := finished.truncated) is not None:
            return {"truncated": {"from": told.original, "to": told.kept, "strategy": told.strategy}}
    return {}


def sse_event(record: Json) -> bytes:
    """A record as a server-sent event."""
    return b"data: " + _encode(record) + b"\n\n"
