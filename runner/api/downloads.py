"""Pulls in progress: one for each name, however many clients follow it."""

from __future__ import annotations

import asyncio
from collections import deque

from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller


class Downloads:
    """Owns the running pulls. A pull ends when it is done, or when nobody follows it any more."""

    def __init__(self, puller: Puller) -> None:
        self._puller = puller
        self._running: dict[str, _Download] = {}

    def follow(self, name: ModelName) -> Follower:
        """Start a pull, or join the one that runs; whoever joins late is told the state so far."""
        key = name.folded
        download = self._running.get(key)
        if download is None or download.has_ended:
            download = _Download(self._puller, name, after=download)
            self._running[key] = download
            download.task.add_done_callback(lambda _: self._forget(key, download))
        return Follower(download)

    def is_running(self, name: ModelName) -> bool:
        download = self._running.get(name.folded)
        return download is not None and not download.has_ended

    def _forget(self, key: str, download: _Download) -> None:
        if self._running.get(key) is download:
            del self._running[key]


class Follower:
    """One client's view of a pull; a source of events.

    A client that reads slowly misses numbers that newer ones have replaced, never a status.
    """

    def __init__(self, download: _Download) -> None:
        self._download = download
        self._waiting: deque[Progress] = deque(download.state.values())
        self._changed = asyncio.Event()
        download.followers.add(self)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Progress:
        while not self._waiting:
            if self._download.has_ended:
                if self._download.error is not None:
                    raise self._download.error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Stop following. The last one to leave waits until the pull has stopped."""
        self._download.followers.discard(self)
        if not self._download.followers:
            await self._download.abandon()

    def push(self, progress: Progress) -> None:
        if self._waiting and _kind(self._waiting[-1]) == _kind(progress):
            self._waiting.pop()
        self._waiting.append(progress)
        self._changed.set()

    def wake(self) -> None:
        self._changed.set()


class _Download:
    """One pull, run in a task of its own."""

    def __init__(self, puller: Puller, name: ModelName, after: _Download | None) -> None:
        self.followers: set[Follower] = set()
        self.state: dict[tuple[str, str | None], Progress] = {}
        """The latest of each status, in the order they came."""
        self.error: Exception | None = None
        self.has_ended = False
        """Or will at once: nobody may join any more."""
        self.task = asyncio.create_task(self._run(puller, name, after))

    async def abandon(self) -> None:
        if not self.task.done():
            self.has_ended = True
            self.task.cancel()
            await asyncio.wait((self.task,))

    async def _run(self, puller: Puller, name: ModelName, after: _Download | None) -> None:
        try:
            if after is not None:
                await asyncio.wait((after.task,))
            async for progress in puller.pull(name):
                self.state[_kind(progress)] = progress
                for follower in self.followers:
                    follower.push(progress)
        except Exception as error:
            self.error = error
        finally:
            self.has_ended = True
            for follower in self.followers:
                follower.wake()


def _kind(progress: Progress) -> tuple[str, str | None]:
    return progress.status, progress.digest
