"""The load generator: one streamed chat completion, when its pieces came, and what listening to it costs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from benchmark.servers import Server

_LINE_BYTES = 1 << 20
_PREFIX = b"data: {"
Json = dict[str, Any]


class Refused(Exception):
    """A server did not answer as it should have."""


@dataclass(frozen=True)
class Answer:
    """One request as its client saw it; moments on the clock `time.perf_counter`."""

    sent: float
    pieces: tuple[float, ...]
    """When each piece of text came."""
    ended: float
    tokens: int
    prompt_tokens: int
    text: str

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first piece of text."""
        return (self.pieces[0] if self.pieces else self.ended) - self.sent

    @property
    def total(self) -> float:
        return self.ended - self.sent

    @property
    def decode_speed(self) -> float:
        """Tokens a second, from the first piece of text to the last."""
        if self.tokens < 2 or len(self.pieces) < 2:
            return self.tokens / self.total
        return (self.tokens - 1) / (self.pieces[-1] - self.pieces[0])


class Watch:
    """What somebody else sees of an answer while it comes."""

    def __init__(self) -> None:
        self.pieces: list[float] = []
        """When each piece of text came."""
        self.begun = asyncio.Event()
        """Set at the first piece, or at the end when there was none."""


async def ask(server: Server, body: Json, *, seconds: float | None = None, watch: Watch | None = None) -> Answer:
    """Send a chat completion over a connection of its own, and read its stream to the end.

    `seconds` is when the client leaves at the latest; the answer is then what had come. Raises Refused.
    """
    listener = _Listener(server.name, watch or Watch())
    whole = {"model": server.model, "stream": True, "stream_options": {"include_usage": True}, **body}
    payload = json.dumps(whole).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    ).encode()
    sent = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=_LINE_BYTES)
    try:
        writer.write(head + payload)
        async with asyncio.timeout(seconds):
            await listener.read(reader)
    except TimeoutError:
        listener.tokens = listener.tokens or len(listener.watch.pieces)
    finally:
        listener.watch.begun.set()
        writer.close()
    ended = time.perf_counter()
    if not listener.tokens and seconds is None:
        raise Refused(f"{server.name} gave no answer: {listener.last_line[:300]!r}")
    text = "".join(listener.text)
    return Answer(sent, tuple(listener.watch.pieces), ended, listener.tokens, listener.prompt_tokens, text)


def generator_cost() -> float:
    """Microseconds of this process that one streamed token takes."""
    chunk = {"id": "x" * 24, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
    line = b"data: " + json.dumps(chunk).encode()

    async def read(count: int) -> float:
        reader = asyncio.StreamReader(limit=1 << 26)
        for _ in range(count):
            reader.feed_data(line + b"\n\n")
        reader.feed_eof()
        started = time.process_time()
        await _Listener("", Watch()).read(reader)
        return (time.process_time() - started) / count * 1e6

    return asyncio.run(read(5000))


class _Listener:
    """What came of a stream so far."""

    def __init__(self, name: str, watch: Watch) -> None:
        self._name = name
        self.watch = watch
        self.text: list[str] = []
        self.tokens = self.prompt_tokens = 0
        self.last_line = b""

    async def read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            if not line.startswith(_PREFIX):
                self.last_line = line if line.strip() else self.last_line
                continue
            now = time.perf_counter()
            record: Json = json.loads(line[6:])
            if "error" in record:
                raise Refused(f"{self._name}: {record['error']}")
            for choice in record.get("choices") or ():
                if text := choice["delta"].get("content"):
                    self.watch.pieces.append(now)
                    self.watch.begun.set()
                    self.text.append(text)
            if usage := record.get("usage"):
                self.tokens = usage["completion_tokens"]
                self.prompt_tokens = usage["prompt_tokens"]
