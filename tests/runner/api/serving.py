"""The app on fakes: in this process, and on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn
from fastapi import FastAPI

from registry.store import ModelStore
from runner.api.app import App, AppParts, create_app
from runner.api_keys import KeyFile, KeyRing
from runner.generate import Generator
from runner.settings import Settings
from runner.sources import Sources
from tests.fakes import PATIENCE, FakeFinder, FakeModel, FakePuller, FakePusher, FakeStore, FakeSupervisor


@dataclass
class FakeDaemon:
    """All parts of a daemon, none of them real but the app and the generator."""

    supervisor: FakeSupervisor = field(default_factory=FakeSupervisor)
    store: FakeStore | ModelStore = field(default_factory=lambda: FakeStore(FakeModel()))
    puller: FakePuller = field(default_factory=FakePuller)
    pusher: FakePusher = field(default_factory=FakePusher)
    finder: FakeFinder = field(default_factory=FakeFinder)
    settings: Settings = field(default_factory=Settings)
    keys: KeyFile = field(default_factory=lambda: KeyFile(Path("there-is-none.json")))

    def app(self) -> App:
        store, supervisor = cast("Any", self.store), cast("Any", self.supervisor)
        generator = Generator(store, supervisor, self.settings)
        sources = Sources(cast("Any", self.puller), cast("Any", self.pusher), cast("Any", self.finder))
        return create_app(AppParts(self.settings, store, sources, supervisor, generator, KeyRing(self.keys), "0.1.0"))

    def client(self) -> httpx.AsyncClient:
        """Collects whole answers; for streaming use `serve`."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url="http://localhost:11434")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[str]:
    """A live server on a free port; gives its base address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.wait((task, up := asyncio.create_task(server.is_up.wait())), return_when=asyncio.FIRST_COMPLETED)
        assert up.done()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def connection(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client on a live server."""
    async with serve(app) as base, httpx.AsyncClient(base_url=base, timeout=PATIENCE) as client:
        yield client
