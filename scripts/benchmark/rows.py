"""The rows that are measured with every server: each asks one of them, and gives its figures by name."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmark import prompts
from benchmark.client import Answer, Json, Watch, ask
from benchmark.servers import Server
from benchmark.sizes import Sizes

Figures = Mapping[str, float]
Row = Callable[[Server, Sizes], Coroutine[Any, Any, Figures]]
_BUSY = "while True: pass"


async def one_stream(server: Server, sizes: Sizes) -> Figures:
    return {"one_stream": (await ask(server, prompts.story(0, sizes.tokens))).decode_speed}


def streams(count: int) -> Row:
    async def row(server: Server, sizes: Sizes) -> Figures:
        return {f"streams_{count}": await throughput(server, count, sizes.tokens)}

    return row


async def shared_prefix(server: Server, sizes: Sizes) -> Figures:
    """Several clients with one system prompt, all at once."""
    answers = await _all(server, prompts.shared_prefix(sizes.prefix_words, sizes.prefix_clients, sizes.prefix_tokens))
    total = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    return {
        "prefix_total": total,
        "prefix_first": statistics.median(answer.first_token for answer in answers),
    }


async def busy_machine(server: Server, sizes: Sizes) -> Figures:
    """One stream while another program computes: one for every two processors.

    A server that does not bring a single token in time is taken to have been about to.
    """
    with busy_processes(max(1, (os.cpu_count() or 2) // 2)):
        answer = await ask(server, prompts.story(1, sizes.busy_tokens), seconds=sizes.busy_seconds)
    return {"busy": max(1, answer.tokens) / answer.total}


async def long_prompt(server: Server, sizes: Sizes) -> Figures:
    """Answers in progress, and a long prompt in the middle of them: the gaps that their readers see."""
    streams = [Watch() for _ in range(sizes.running_streams)]
    tasks = [
        asyncio.create_task(ask(server, prompts.story(number, sizes.running_tokens), watch=stream))
        for number, stream in enumerate(streams)
    ]
    try:
        for stream in streams:
            await stream.begun.wait()
        await asyncio.sleep(sizes.running_seconds)
        arrived = time.perf_counter()
        long = await ask(server, prompts.long_prompt(sizes.long_words, 2))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    gaps = gaps_between([stream.pieces for stream in streams], arrived, arrived + long.first_token)
    return {
        "long_prompt_gap": percentile(gaps, 0.99) * 1000,
        "long_prompt_first": long.first_token,
        "long_prompt_tokens": long.prompt_tokens,
    }


ROWS: Mapping[str, Row] = {"one": one_stream, "prefix": shared_prefix, "busy": busy_machine, "long": long_prompt}
"""By what `--only` calls them."""


async def throughput(server: Server, count: int, tokens: int) -> float:
    """Tokens a second, of all streams together, from the first request to the last token."""
    answers = await _all(server, [prompts.story(number, tokens) for number in range(count)])
    seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    return sum(answer.tokens for answer in answers) / seconds


def gaps_between(streams: Sequence[Sequence[float]], begin: float, end: float) -> list[float]:
    """Times between the pieces of each stream, as far as they lie in the span; what its end cuts short counts."""
    gaps = []
    for pieces in streams:
        before = [moment for moment in pieces if moment < begin]
        inside = [moment for moment in pieces if begin <= moment <= end]
        moments = [*before[-1:], *inside, end]
        gaps += [later - earlier for earlier, later in pairwise(moments)]
    return gaps


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _all(server: Server, bodies: Sequence[Json]) -> list[Answer]:
    return await asyncio.gather(*(ask(server, body) for body in bodies))
