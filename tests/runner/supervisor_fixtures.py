"""A supervisor with fake workers and a machine of a chosen size, for tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from runner.chat.types import ChatEvent, ChatRequest, TextDelta, TextPrompt
from runner.settings import QueueSettings, Settings, WorkerSettings
from runner.supervisor.lease import Lease
from runner.supervisor.stream import EventStream
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.types import LoadWishes, MemoryFacts, ModelSpec
from tests.fake_worker import COMMAND, Script

GB = 10**9
PATIENCE = 60.0


@dataclass
class FakeMachine:
    """So much memory, whatever really is there."""

    memory: int = 64 * GB
    has_gpu: bool = False

    def available(self) -> int:
        return self.memory

    def total(self) -> int:
        return self.memory

    def free_swap(self) -> int:
        return 0

    def may_have_gpu_memory(self) -> bool:
        return self.has_gpu


def ask(text: str) -> ChatRequest:
    return ChatRequest(prompt=TextPrompt(text))


async def read(stream: EventStream) -> list[ChatEvent]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in stream]


def texts(events: Iterable[ChatEvent]) -> list[str]:
    """What an answer says, piece by piece."""
    return [event.text for event in events if isinstance(event, TextDelta)]


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that other processes or tasks bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes set no Event
            await asyncio.sleep(0.005)


def settings(
    *,
    keep_alive: float = 300,
    max_sequences: int = 16,
    watchdog_seconds: float = 60,
    drain_seconds: float = 5,
    max_waiting_per_model: int = 256,
    max_waiting: int = 1024,
    deadline_seconds: float = 600,
) -> Settings:
    return Settings(
        queue=QueueSettings(
            max_waiting_per_model=max_waiting_per_model, max_waiting=max_waiting, deadline_seconds=deadline_seconds
        ),
        worker=WorkerSettings(
            keep_alive=keep_alive,
            max_sequences=max_sequences,
            watchdog_seconds=watchdog_seconds,
            drain_seconds=drain_seconds,
        ),
    )


@dataclass
class House:
    """A running supervisor and the folder its fake models lie in."""

    folder: Path
    supervisor: Supervisor
    machine: FakeMachine
    scripts: dict[str, Script] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def model(
        self, name: str = "fake", *, weights: int = 100_000_000, kv_per_token: int = 1000, **script: Any
    ) -> ModelSpec:
        """A model whose file is `Script(**script)`."""
        path = self.folder / f"{name}.gguf"
        self.scripts[name] = Script(journal=str(self.folder / f"{name}.journal"), **script)
        self.scripts[name].write(path)
        facts = MemoryFacts(weights, kv_per_token, self.scripts[name].training_context)
        return ModelSpec(f"{name}:latest", f"{name}-manifest", f"{name}-weights", path, facts)

    def journal(self, name: str = "fake", kind: str | None = None) -> list[dict[str, Any]]:
        """What the worker of a model was asked, oldest first."""
        path = self.folder / f"{name}.journal"
        # What has no end yet is being written.
        written = path.read_text().rpartition("\n")[0] if path.exists() else ""
        entries = [json.loads(line) for line in written.splitlines()]
        return [entry for entry in entries if kind is None or entry["type"] == kind]

    def gate(self, name: str) -> Path:
        return self.folder / f"{name}.gate"

    def worker_pids(self) -> list[int]:
        return [child.pid for child in self.worker_processes()]

    def worker_processes(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if _is_running_worker(child)]

    async def say(self, spec: ModelSpec, text: str = "say 3", **options: Any) -> list[ChatEvent]:
        async with await self.lease(spec, **options) as lease:
            return await read(lease.generate(f"request {next(self.numbers)}", ask(text)))

    async def lease(self, spec: ModelSpec, **options: Any) -> Lease:
        async with asyncio.timeout(PATIENCE):
            return await self.supervisor.lease(spec, **options)


def wishing(spec: ModelSpec, **wishes: Any) -> ModelSpec:
    return replace(spec, wishes=LoadWishes(**wishes))


@asynccontextmanager
async def house(
    folder: Path, machine: FakeMachine | None = None, chosen: Settings | None = None
) -> AsyncIterator[House]:
    """Start a supervisor; at the end stop it and see that no process is left."""
    machine = machine or FakeMachine()
    supervisor = Supervisor(chosen or settings(), COMMAND, machine)
    await supervisor.start()
    this = House(folder, supervisor, machine)
    try:
        yield this
    finally:
        async with asyncio.timeout(PATIENCE):
            await supervisor.stop()
    assert this.worker_pids() == []


def process_is_gone(pid: int, within: float = PATIENCE) -> bool:
    deadline = time.monotonic() + within
    while True:  # looks once even when nothing may pass
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)


def _is_running_worker(process: psutil.Process) -> bool:
    try:
        is_worker = any("fake_worker" in part for part in process.cmdline())
        return is_worker and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # it has just ended
        return False
