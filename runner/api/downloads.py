"""Pulls in progress, by name."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator

from registry.name import ModelName
from registry.progress import Progress
from registry.pull import Puller


class Downloads:
    """Knows which models are being pulled. What their pulls share, and when it stops, is the puller's business."""

    def __init__(self, puller: Puller) -> None:
        self._puller = puller
        self._running: Counter[str] = Counter()

    async def pull(self, name: ModelName) -> AsyncGenerator[Progress, None]:
        """As `Puller.pull`; closing it, or cancelling whoever waits for it, gives the pull up."""
        self._running[name.folded] += 1
        try:
            async with contextlib.aclosing(self._puller.pull(name)) as steps:
                async for progress in steps:
                    yield progress
        finally:
            self._running -= Counter([name.folded])  # unlike -= 1, this forgets names that reach 0

    def is_running(self, name: ModelName) -> bool:
        return self._running[name.folded] > 0
