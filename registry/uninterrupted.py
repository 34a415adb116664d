"""Blocking work that nobody walks away from: a thread cannot be called back, and what it does counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def uninterrupted(work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """What the work returns or raises, done in a thread. Who is cancelled meanwhile is so when the thread is done."""
    step = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        await asyncio.wait((step,))
        if not step.cancelled():
            step.exception()  # whoever was cancelled does not ask for it
        raise
