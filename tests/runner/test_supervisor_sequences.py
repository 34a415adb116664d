"""The supervisor in every order of asking, loading, answering, dying, unloading and time; its workers are imagined."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.chat.types import ChatEvent, Failed, Finished, FinishReason, Usage
from runner.errors import EngineCrashed, ModelNotFound, ReportedError, RunnerError
from runner.loaded_model import LoadedModel
from runner.messages import FRAME_HEADER, Cancel, Events, Generate, Load, decode_command, encode_frame
from runner.supervisor import workers
from runner.supervisor.client import WorkerClient
from runner.supervisor.process import WorkerState
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.types import LoadWishes, MemoryFacts, ModelSpec, ModelStatus
from tests.runner.supervisor_fixtures import GB, FakeMachine, ask, settings

MODELS = ("a", "b", "c")
ROOM = 10 * GB
WEIGHTS = 4 * GB
"""Two of them have room."""
FINISHED = Finished(FinishReason.STOP, Usage(1, 0, 1, 1, 1, 1), seed=1)

models = st.sampled_from(MODELS)
numbers = st.integers(0, 10**6)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is set forward by hand."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class ImaginedWorker:
    """In place of a `WorkerProcess`: does nothing until a test says what comes of it."""

    def __init__(self, command: Sequence[str], name: str, **given: Any) -> None:
        loop = asyncio.get_running_loop()
        self.state = WorkerState.STARTING
        self.name = name
        self.load_fraction = 0.0
        self.ready_at: float | None = None
        self.was_stopped = False
        self.failure: RunnerError | None = None
        self.ending = ""
        self.running: list[str] = []
        self.load: Load | None = None
        self.client = WorkerClient(self._take, lambda _: None, loop.time)
        self._on_gone = given["on_gone"]
        self._loop = loop
        self._ready: asyncio.Future[LoadedModel] = loop.create_future()
        self._gone = asyncio.Event()

    async def start(self, load: Load) -> None:
        self.load = load

    async def ensure_ready(self) -> LoadedModel:
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        self.kill()
        await self._gone.wait()

    def kill(self) -> None:
        self.was_stopped = True
        if self.state is not WorkerState.GONE:
            self.state = WorkerState.STOPPING

    async def wait_gone(self) -> None:
        await self._gone.wait()

    # --- what comes of it ---

    def become_ready(self) -> None:
        assert self.load is not None
        options = self.load.options
        self.state = WorkerState.READY
        self.ready_at = self._loop.time()
        self._ready.set_result(
            LoadedModel(
                architecture="imagined", engine="none", context_length=options.context_length, training_context=8192,
                max_sequences=options.max_sequences, vocabulary=100, size=WEIGHTS, size_vram=0, layers=4, gpu_layers=0,
                devices=(), placement="nowhere", threads=1, has_chat_template=True, can_shift=True,
            )
        )  # fmt: skip

    def refuse(self, code: str) -> None:
        self.was_stopped = True
        self.failure = ReportedError(code, "It was refused.", {})
        self.end()

    def end(self) -> None:
        self.state = WorkerState.GONE
        self.ending = "ended"
        self.failure = self.failure or EngineCrashed("It ended while it loaded.")
        if not self._ready.done():
            self._ready.set_exception(self.failure)
            self._ready.exception()
        if self.was_stopped:
            self.client.end_all(Failed("engine_crashed", "It was stopped."))
        self._gone.set()
        self._on_gone(self)

    def answer(self) -> None:
        self.client.feed(encode_frame(Events([(self.running.pop(0), FINISHED)])))

    def _take(self, frame: bytes) -> None:
        match decode_command(frame[FRAME_HEADER.size :]):
            case Generate(request_id):
                self.running.append(request_id)
            case Cancel(request_id) if request_id in self.running:
                self.running.remove(request_id)


class Sequences(RuleBasedStateMachine):
    """Nobody waits for ever, nobody is told nothing, and no more is loaded than there is room for."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clock()
        self.workers: list[ImaginedWorker] = []
        self.patch = mock.patch.object(workers, "WorkerProcess", self.new_worker)
        self.patch.start()
        chosen = settings(keep_alive=100, max_sequences=1, deadline_seconds=500, drain_seconds=1)
        self.supervisor = Supervisor(chosen, ("none",), FakeMachine(memory=ROOM))
        self.users: list[asyncio.Task[ChatEvent]] = []
        self.others: list[asyncio.Task[bool]] = []
        self.count = 0

    def new_worker(self, *given: Any, **named: Any) -> ImaginedWorker:
        worker = ImaginedWorker(*given, **named)
        self.workers.append(worker)
        return worker

    def run(self, *acts: Callable[[], object]) -> None:
        """Do this, and let all happen that then happens of itself."""

        async def turns() -> None:
            for act in acts:
                act()
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def spec(self, model: str, wishes: LoadWishes) -> ModelSpec:
        facts = MemoryFacts(WEIGHTS, 1000, 8192, buffers=0)
        return ModelSpec(model, model, model, Path(model), facts, wishes)

    async def use(self, spec: ModelSpec, keep_alive: float | None, number: int) -> ChatEvent:
        async with await self.supervisor.lease(spec, keep_alive=keep_alive) as lease:
            return [event async for event in lease.generate(f"request {number}", ask(f"text {number}"))][-1]

    def those(self, state: WorkerState) -> list[ImaginedWorker]:
        return [worker for worker in self.workers if worker.state is state]

    # --- what people do ---

    @rule(
        model=models,
        batch=st.sampled_from([None, None, 512, 1024, 2048]),
        keep_alive=st.sampled_from([None, None, 0.0, 30.0, math.inf]),
    )
    def somebody_asks(self, model: str, batch: int | None, keep_alive: float | None) -> None:
        self.count += 1
        using = self.use(self.spec(model, LoadWishes(num_batch=batch)), keep_alive, self.count)
        self.users.append(self.loop.create_task(using))
        self.run()

    @precondition(lambda self: self.waiting())
    @rule(number=numbers)
    def somebody_leaves(self, number: int) -> None:
        waiting = self.waiting()
        self.run(waiting[number % len(waiting)].cancel)

    @rule(model=models, is_forced=st.booleans())
    def a_model_is_unloaded(self, model: str, is_forced: bool) -> None:
        gone = ModelNotFound("It was removed.")
        work = self.supervisor.evict(model, gone) if is_forced else self.supervisor.unload(model)
        self.others.append(self.loop.create_task(work))
        self.run()

    # --- what workers do ---

    @precondition(lambda self: self.those(WorkerState.STARTING))
    @rule(number=numbers, outcome=st.sampled_from(["ready", "ready", "ready", "model_invalid", "insufficient_memory"]))
    def a_load_ends(self, number: int, outcome: str) -> None:
        starting = self.those(WorkerState.STARTING)
        worker = starting[number % len(starting)]
        self.run(worker.become_ready if outcome == "ready" else lambda: worker.refuse(outcome))

    @precondition(lambda self: any(worker.running for worker in self.those(WorkerState.READY)))
    @rule(number=numbers)
    def an_answer_ends(self, number: int) -> None:
        busy = [worker for worker in self.those(WorkerState.READY) if worker.running]
        self.run(busy[number % len(busy)].answer)

    @precondition(lambda self: self.those(WorkerState.STARTING) + self.those(WorkerState.READY))
    @rule(number=numbers)
    def a_worker_dies(self, number: int) -> None:
        alive = self.those(WorkerState.STARTING) + self.those(WorkerState.READY)
        self.run(alive[number % len(alive)].end)

    @precondition(lambda self: self.those(WorkerState.STOPPING))
    @rule(number=numbers)
    def a_worker_has_gone(self, number: int) -> None:
        stopping = self.those(WorkerState.STOPPING)
        self.run(stopping[number % len(stopping)].end)

    @rule(seconds=st.sampled_from([0.6, 6.0, 40.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.ahead += seconds
        self.run()

    # --- what holds ---

    def waiting(self) -> list[asyncio.Task[ChatEvent]]:
        return [user for user in self.users if not user.done()]

    @invariant()
    def a_model_has_one_worker_at_most(self) -> None:
        alive = [worker.name for worker in self.workers if worker.state is not WorkerState.GONE]
        assert len(alive) == len(set(alive))

    @invariant()
    def no_more_is_loaded_than_there_is_room_for(self) -> None:
        assert sum(status.planned for status in self.status()) <= ROOM

    @invariant()
    def every_end_is_told(self) -> None:
        for user in self.users:
            if user.done() and not user.cancelled():
                error = user.exception()
                assert isinstance(error, RunnerError) or isinstance(user.result(), Finished | Failed)

    @invariant()
    def what_runs_is_read(self) -> None:
        running = sum(len(worker.running) for worker in self.those(WorkerState.READY))
        assert running <= len(self.waiting())

    def status(self) -> list[ModelStatus]:
        found: list[ModelStatus] = []
        self.run(lambda: found.extend(self.supervisor.status()))
        return found

    def teardown(self) -> None:
        """When loads succeed, answers end and workers obey, everybody is served and everything can go."""
        try:
            for _ in range(20 + 5 * len(self.users)):
                if not self.waiting():
                    break
                self.run(*(worker.become_ready for worker in self.those(WorkerState.STARTING)))
                self.run(*(worker.end for worker in self.those(WorkerState.STOPPING)))
                while busy := [worker for worker in self.those(WorkerState.READY) if worker.running]:
                    self.run(*(worker.answer for worker in busy))
                self.loop.ahead += 6
                self.run()
            assert not self.waiting(), "they would wait for ever"
            stopping = self.loop.create_task(self.supervisor.stop())
            self.run()
            self.run(*(worker.end for worker in self.those(WorkerState.STARTING) + self.those(WorkerState.STOPPING)))
            assert stopping.done() and all(task.done() for task in self.others)
            assert {worker.state for worker in self.workers} <= {WorkerState.GONE}
            assert self.status() == []
        finally:
            self.patch.stop()
            self.run(*(task.cancel for task in asyncio.all_tasks(self.loop)))
            self.loop.close()


TestSequences = Sequences.TestCase
TestSequences.settings = hypothesis_settings(max_examples=40, stateful_step_count=40)
