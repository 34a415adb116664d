"""What a server calls a file as it is now, by which a later answer can be compared with an earlier one."""

from __future__ import annotations

from collections.abc import Mapping


def version_of(headers: Mapping[str, str]) -> str | None:
    """A strong entity tag, else the time of the last change; None where the server tells neither."""
    tag = headers.get("ETag")
    if tag and tag.startswith('"') and len(tag) > 2:
        return tag
    return headers.get("Last-Modified") or None
