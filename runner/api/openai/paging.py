"""Lists in pages, as this dialect asks for them and tells them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import InvalidRequest

Json = dict[str, object]

MOST = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    after: str | None
    limit: int
    is_newest_first: bool

    @classmethod
    def read(cls, after: str | None, limit: str, order: str) -> Page:
        """Raises InvalidRequest."""
        if not limit.isascii() or not limit.isdigit() or len(limit) > 3 or not 1 <= int(limit) <= MOST:
            raise InvalidRequest(f"limit must be a whole number from 1 to {MOST}.", "limit")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order must be 'asc' or 'desc'.", "order")
        return cls(after, int(limit), order == "desc")


def page_of(records: Sequence[Json], page: Page) -> Json:
    """The page of records that are given oldest first; raises InvalidRequest when `after` is none of them."""
    ordered = list(reversed(records)) if page.is_newest_first else list(records)
    start = 0
    if page.after is not None:
        ids = [record["id"] for record in ordered]
        if page.after not in ids:
            raise InvalidRequest(f"after is {page.after[:100]!a}, which is not in the list.", "after")
        start = ids.index(page.after) + 1
    data = ordered[start : start + page.limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + page.limit < len(ordered),
    }
