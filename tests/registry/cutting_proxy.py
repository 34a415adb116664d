"""A way to a server that breaks off: after so many bytes from the client, once for each number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_PIECE = 64 * 1024


class CuttingProxy:
    """Each connection takes the next of `cuts`, if there is one left."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        self.cuts = cuts
        self.cut = 0
        """How many connections were broken off."""
        self.host = ""
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[CuttingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        host, _, port = self._target.partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        answers = asyncio.create_task(_copy(there, writer))
        try:
            seen = 0
            while piece := await reader.read(_PIECE):
                seen += len(piece)
                back.write(piece)
                await back.drain()
                if self.cuts and seen > self.cuts[0]:
                    self.cuts.pop(0)
                    self.cut += 1
                    return
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            answers.cancel()
            for one in (writer, back):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
