"""Blocking work that nobody walks away from: a thread cannot be called back, and what it does counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def uninterrupted(work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """What the work returns or raises, done in a thread. Who is cancelled meanwhile is so when the thread is done."""
    return await _to_its_end(asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named)))


async def uninterrupted_in(executor: Executor, work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
    """As `uninterrupted`, in a thread of that executor."""
    loop = asyncio.get_running_loop()
    return await _to_its_end(loop.run_in_executor(executor, partial(work, *arguments, **named)))


async def _to_its_end(step: asyncio.Future[_T]) -> _T:
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        await asyncio.wait((step,))
        if not step.cancelled():
            step.exception()  # whoever was cancelled does not ask for it
        raise
