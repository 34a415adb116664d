"""Memory of the daemon and its workers while they are used, and whether it grows."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

SAMPLE_SECONDS = 0.5
_TELL_EVERY = 40


@dataclass
class Samples:
    """Resident megabytes, each with how many requests had ended."""

    daemon: list[tuple[int, float]] = field(default_factory=list)
    workers: list[tuple[int, float]] = field(default_factory=list)


async def sample(pid: int, ended: Callable[[], int], samples: Samples) -> None:
    """Note both until cancelled, and tell now and then how many requests have ended."""
    daemon = psutil.Process(pid)
    for count in itertools.count(1):
        if count % _TELL_EVERY == 0:
            print(f"{ended()} requests have ended", file=sys.stderr, flush=True)
        try:
            samples.daemon.append((ended(), daemon.memory_info().rss / 1e6))
            workers = sum(child.memory_info().rss for child in daemon.children(recursive=True))
            samples.workers.append((ended(), workers / 1e6))
        except psutil.NoSuchProcess:
            pass  # a worker that has just ended, or the daemon itself, which its clients notice
        await asyncio.sleep(SAMPLE_SECONDS)


def growth(points: list[tuple[int, float]]) -> float | None:
    """Megabytes for each thousand requests, in the second half of them, by least squares; None without enough of them.

    In the first half models are loaded and caches fill up to their budgets.
    """
    half = points[-1][0] / 2 if points else 0
    late = [point for point in points if point[0] >= half]
    if len({ended for ended, _ in late}) < 3:
        return None
    mean_x = sum(x for x, _ in late) / len(late)
    mean_y = sum(y for _, y in late) / len(late)
    spread = sum((x - mean_x) ** 2 for x, _ in late)
    return 1000 * sum((x - mean_x) * (y - mean_y) for x, y in late) / spread
