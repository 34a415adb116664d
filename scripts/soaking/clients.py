"""The clients of a soak: each sends one request after the other, and notes how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from soaking.requests import Json, Request, Wrong

REQUEST_SECONDS = 300


@dataclass
class Tally:
    """How the requests ended so far."""

    ended: dict[str, int] = field(default_factory=dict)
    """By kind."""
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    same: dict[str, set[str]] = field(default_factory=dict)
    """Texts that have to be one text, by kind."""

    @property
    def total(self) -> int:
        return sum(self.ended.values())


async def run_clients(url: str, requests: list[Request], clients: int, tally: Tally, deadline: float) -> None:
    """Send them all, so many at a time; returns when each has ended. None is begun after the deadline."""
    waiting: Iterator[Request] = iter(requests)
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS, trust_env=False) as http:

        async def client() -> None:
            for request in waiting:
                if time.monotonic() > deadline:
                    return
                await _run(http, request, tally)

        await asyncio.gather(*(client() for _ in range(clients)))


async def _run(http: httpx.AsyncClient, request: Request, tally: Tally) -> None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            text = await _send(http, request)
        if text is not None:
            tally.same.setdefault(request.kind, set()).add(text)
    except (Wrong, httpx.HTTPError, TimeoutError, ValueError, KeyError) as error:
        tally.failures.append(f"request {request.number} ({request.kind}): {type(error).__name__}: {error}"[:500])
    kind = request.kind
    tally.ended[kind] = tally.ended.get(kind, 0) + 1
    tally.seconds[kind] = tally.seconds.get(kind, 0.0) + time.monotonic() - started


async def _send(http: httpx.AsyncClient, request: Request) -> str | None:
    """Raises Wrong for an answer that is not what it has to be."""
    async with http.stream("POST", request.path, json=request.body) as answer:
        if answer.status_code != request.status:
            told = (await answer.aread()).decode("utf-8", "replace")
            raise Wrong(f"status {answer.status_code} instead of {request.status}: {told}")
        if request.status != 200:
            await answer.aread()
            return None
        records: list[Json] = []
        if request.leaves_after == 0:
            return None
        async for line in answer.aiter_lines():
            record = _read(line)
            if record is None:
                continue
            if "error" in record:
                raise Wrong(f"the stream told an error: {record['error']}")
            records.append(record)
            if request.leaves_after is not None and len(records) >= request.leaves_after:
                return None
    return request.check(records)


def _read(line: str) -> Json | None:
    """The record of a line, of a stream or of a whole answer; None for lines that carry none."""
    if line.startswith("data: "):
        line = line.removeprefix("data: ")
        if line == "[DONE]":
            return {"done": True}
    if not line.startswith("{"):
        return None
    record: Json = json.loads(line)
    return record
