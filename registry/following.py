"""Work in threads that keeps close behind somebody who writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from registry.uninterrupted import uninterrupted

_POLL_SECONDS = 0.02

Advance = Callable[[], bool]
"""Does what can be done by now, in a thread; whether there was anything."""


@contextlib.asynccontextmanager
async def along(advance: Advance, poll_seconds: float = _POLL_SECONDS) -> AsyncGenerator[None]:
    """Advance while the body runs. What goes wrong on the way is for whoever does the rest to meet again."""
    task = asyncio.create_task(_follow(advance, poll_seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()


async def to_the_end(advance: Advance) -> None:
    """Do what is left, now that nobody writes any more. Raises as `advance` does."""
    while await asyncio.to_thread(advance):
        pass


async def _follow(advance: Advance, poll_seconds: float) -> None:
    while True:
        if not await uninterrupted(advance):
            await asyncio.sleep(poll_seconds)
