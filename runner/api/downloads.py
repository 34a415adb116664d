"""Pulls in progress, by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from registry.finder import Finder, Target, source_text
from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller
from registry.pull_plan import PullPlan
from registry.sources.model_url import ModelUrl
from runner.errors import ModelInUse, ModelNotFound, RunnerError, ServerShutdown

_Ends = set["asyncio.Future[RunnerError]"]


class Downloads:
    """Knows which models are being pulled. What their pulls share, and when it stops, is the puller's business."""

    def __init__(self, puller: Puller, finder: Finder) -> None:
        self._puller = puller
        self._finder = finder
        self._running: defaultdict[str, _Ends] = defaultdict(set)
        """For each pull a future that has the error for its followers when somebody else has ended it."""
        self._is_stopping = False

    async def pull(
        self, name: ModelName, *, source: ModelName | ModelUrl | None = None, insecure: bool = False
    ) -> AsyncGenerator[Progress, None]:
        """As `Puller.pull`; closing it, or cancelling whoever waits for it, gives the pull up.

        `source` is where the model comes from when its name does not say so; a pull that broke off is gone on
        with from where it was begun. It is noted for later either way.
        Raises ModelNotFound when `end` was called for its model, and ServerShutdown after `stop`.
        """
        if self._is_stopping:
            raise ServerShutdown
        source = source or await self._finder.begun_from(name)
        find = self._finder.find(source, insecure=insecure) if source is not None else None
        origin = source_text(source) if source is not None else None
        begun = datetime.now(UTC)
        ended: asyncio.Future[RunnerError] = asyncio.get_running_loop().create_future()
        self._running[name.folded].add(ended)
        try:
            pull = self._puller.pull(name, insecure=insecure, find=find, source=origin)
            async with contextlib.aclosing(pull) as steps:
                while (progress := await _next(steps, ended)) is not None:
                    if progress.status == "success":
                        await self._finder.remember(Target(name, source or name), begun)
                    yield progress
            if ended.done():
                raise ended.result()
        finally:
            self._running[name.folded].discard(ended)
            if not self._running[name.folded]:
                del self._running[name.folded]

    async def plan(
        self, name: ModelName, *, source: ModelName | ModelUrl | None = None, insecure: bool = False
    ) -> PullPlan:
        """What `pull` would bring; fetches nothing."""
        source = source or await self._finder.begun_from(name)
        find = self._finder.find(source, insecure=insecure) if source is not None else None
        return await self._puller.plan(name, insecure=insecure, find=find)

    def stop(self) -> None:
        """End all pulls, because the daemon stops; what they have fetched is kept."""
        self._is_stopping = True
        for ends in self._running.values():
            for ended in ends:
                _end(ended, ServerShutdown())

    def is_running(self, name: ModelName) -> bool:
        """Whether this daemon is pulling a model."""
        return name.folded in self._running

    async def is_running_anywhere(self, name: ModelName) -> bool:
        """Whether this daemon, or another process that uses the same store, is pulling a model."""
        return self.is_running(name) or bool(await asyncio.to_thread(self._puller.processes, name))

    async def end(self, name: ModelName) -> None:
        """Stop all pulls of a model, also those of other processes; those who follow them are told so.

        Returns when they have stopped. Raises ModelInUse when a process does not obey.
        """
        for ended in self._running.get(name.folded, ()):
            removed = f"{name.short} was removed while it was being downloaded."
            _end(ended, ModelNotFound(removed, model=name.short))
        left = await asyncio.to_thread(self._puller.end, name)
        if left:
            raise ModelInUse(
                f"{name.short} is being downloaded by process {left[0]}, which does not end when it is told to; "
                "end that process, then try again.",
                model=name.short,
                process=left[0],
            )


def _end(ended: asyncio.Future[RunnerError], error: RunnerError) -> None:
    if not ended.done():
        ended.set_result(error)


async def _next(steps: AsyncGenerator[Progress], ended: asyncio.Future[RunnerError]) -> Progress | None:
    """The next step; None when there is none, or the pull was ended."""
    if ended.done():
        return None
    step = asyncio.ensure_future(anext(steps, None))
    try:
        await asyncio.wait((step, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not step.done():
            step.cancel()
            await asyncio.wait((step,))
            if not step.cancelled():
                step.exception()  # whoever gave the pull up does not ask for it
    return None if step.cancelled() else step.result()
