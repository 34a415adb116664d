"""Models as this dialect lists them, in pages. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from registry.stored_model import StoredModel
from runner.errors import InvalidRequest

Json = dict[str, object]

MOST = 1000


def model_info(model: StoredModel) -> Json:
    return {
        "type": "model",
        "id": model.name.short,
        "display_name": model.name.short,
        "lifecycle": "active",
        "created_at": model.modified_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def models_on_page(
    models: Sequence[StoredModel], after: str | None, before: str | None, limit: str | None
) -> tuple[Sequence[StoredModel], bool]:
    """Those that a request asks for, and whether there are more in its direction. Raises InvalidRequest."""
    if after is not None and before is not None:
        raise InvalidRequest("after_id and before_id exclude each other.", "before_id")
    wanted = "20" if limit is None else limit
    if not wanted.isascii() or not wanted.isdigit() or len(wanted) > 4 or not 1 <= int(wanted) <= MOST:
        raise InvalidRequest(f"limit must be a whole number from 1 to {MOST}.", "limit")
    ids = [model.name.short for model in models]
    count = int(wanted)
    if before is not None:
        end = _place(ids, before, "before_id")
        start = max(end - count, 0)
        return models[start:end], start > 0
    start = 0 if after is None else _place(ids, after, "after_id") + 1
    return models[start : start + count], start + count < len(ids)


def models_page(models: Sequence[StoredModel], *, has_more: bool) -> Json:
    entries = [model_info(model) for model in models]
    return {
        "data": entries,
        "has_more": has_more,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }


def _place(ids: list[str], wanted: str, field: str) -> int:
    if wanted not in ids:
        raise InvalidRequest(f"{field} is {wanted[:100]!a}, which is no model here.", field)
    return ids.index(wanted)
