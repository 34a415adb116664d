"""Workers: starts the processes of residents, ends them, and decides what becomes of a model whose process is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from runner.chat.types import Failed
from runner.errors import EngineCrashed, InsufficientMemory, RunnerError, ServerShutdown
from runner.loaded_model import LoadOptions
from runner.messages import Load
from runner.settings import Settings
from runner.supervisor.caching import cache_options
from runner.supervisor.client import MemoryReport
from runner.supervisor.crashes import CrashLog
from runner.supervisor.giving import Giving
from runner.supervisor.growing import largest_at_first
from runner.supervisor.line import Line
from runner.supervisor.memory import holding_of_model, holding_of_plan, learn_gpus
from runner.supervisor.planning import LoadPlan
from runner.supervisor.policy import includes, load_options
from runner.supervisor.process import WorkerProcess
from runner.supervisor.queue import Queue
from runner.supervisor.residents import Phase, Resident
from runner.supervisor.suspects import Suspects
from runner.supervisor.table import Table
from runner.supervisor.types import ModelSpec

logger = logging.getLogger(__name__)


class Workers:
    """Moves residents between their phases. `on_change` is called after each change that others may have waited for.

    A process that dies while its model is loaded is replaced, with growing pauses, and its requests wait for the next
    one. What fails while it loads fails for all who wait.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        cache_folder: Path | None,
        table: Table,
        queue: Queue,
        on_change: Callable[[], None],
    ) -> None:
        self.is_stopping = False
        """Nothing is started again."""
        self._command = tuple(command)
        self._settings = settings
        self._cache_folder = cache_folder
        self._table = table
        self._queue = queue
        self._on_change = on_change
        self._giving = Giving(table, self.evict_idle)
        self._crashes = CrashLog()
        self._suspects = Suspects()
        self._tasks: set[asyncio.Task[None]] = set()

    def resident(self, spec: ModelSpec, keep_alive: float) -> Resident:
        """A new one, which may have to wait because its process died lately."""
        resident = Resident(spec, keep_alive, self._new_line(spec))
        resident.not_before = self._crashes.not_before(resident.key)
        return resident

    def start(self, resident: Resident, plan: LoadPlan) -> None:
        """Load a model as planned."""
        options = load_options(plan.wishes, plan.memory, self._settings.worker.max_sequences)
        resident.phase = Phase.LOADING
        resident.room_from = None
        resident.wishes = plan.wishes
        resident.plan = plan.memory
        resident.options = options
        resident.holding = holding_of_plan(plan.memory, plan.room)
        for number, waiter in enumerate(resident.waiters):
            waiter.is_served = number == 0 or includes(plan.wishes, waiter.spec.wishes)
        logger.info("%s: loading with a window of %d tokens", resident.spec.name, plan.memory.context_length)
        worker = WorkerProcess(
            self._command,
            resident.spec.name,
            watchdog_seconds=self._settings.worker.watchdog_seconds,
            on_gone=lambda worker: self._gone(resident, worker),
            on_memory_report=lambda report: self._hear_of_memory(resident, report),
        )
        resident.worker = worker
        command = self._load_command(resident.spec, options, largest_at_first(plan.memory, plan.room))
        self._run(self._load(resident, worker, command))

    def let_go(self, resident: Resident) -> None:
        """End a model's process; who wants the model afterwards finds it as if it had never been there."""
        resident.dismiss()
        self.stop(resident)

    def stop(self, resident: Resident) -> None:
        """End a model's process so that it is loaded again for those who wait."""
        assert resident.worker is not None
        resident.phase = Phase.STOPPING
        self._run(resident.worker.stop())

    def evict_idle(self, keys: Sequence[str]) -> None:
        """End the processes of models that others need the memory of."""
        for key in keys:
            resident = self._table.residents[key]
            logger.info("%s: unloading to make room", resident.spec.name)
            self.let_go(resident)

    def end_requests(self, resident: Resident, error: RunnerError) -> None:
        """End all that holds the model; whoever gets it next begins anew."""
        resident.line.end(Failed(error.code, error.message, dict(error.facts)))
        resident.line = self._new_line(resident.spec)
        resident.leases.clear()

    def answer_wishes(self, resident: Resident) -> None:
        """Tell a loaded model whether it gets the memory it wants, as soon as that is known."""
        self._giving.answer(resident)

    async def stop_all(self) -> None:
        """End all processes; returns when none is left."""
        workers = [resident.worker for resident in self._table.residents.values() if resident.worker is not None]
        await asyncio.gather(*(worker.stop() for worker in workers), *self._tasks)

    def _new_line(self, spec: ModelSpec) -> Line:
        return Line(spec.name, self._suspects)

    async def _load(self, resident: Resident, worker: WorkerProcess, load: Load) -> None:
        await worker.start(load)
        try:
            loaded = await worker.ensure_ready()
        except RunnerError:
            return  # `_gone` tells those who wait
        if resident.worker is not worker or resident.phase is not Phase.LOADING:
            return
        assert resident.plan is not None
        table = self._table
        if not table.gpus.known and (load.options.num_gpu != 0 or loaded.gpu_layers):
            table.gpus = learn_gpus(loaded.devices)
        now = asyncio.get_running_loop().time()
        resident.phase = Phase.READY
        resident.loaded = loaded
        resident.holding = holding_of_model(resident.plan, loaded, table.gpus)
        if not resident.is_kept:
            resident.expires_at = resident.stays_until(now)
        resident.is_kept = False
        table.touch(resident)
        logger.info("%s: loaded, window %d; %s", resident.spec.name, loaded.context_length, loaded.placement)
        resident.line.found(worker.client)
        self._on_change()

    def _hear_of_memory(self, resident: Resident, report: MemoryReport) -> None:
        self._giving.hear(resident, report)
        self._on_change()

    def _load_command(self, spec: ModelSpec, options: LoadOptions, largest_context: int) -> Load:
        return Load(
            str(spec.path),
            options,
            tuple(str(shard) for shard in spec.shards),
            projector="" if spec.projector is None else str(spec.projector),
            cache=cache_options(
                self._settings.cache,
                self._cache_folder,
                machine_memory=self._table.machine.total(),
                weights_digest=spec.weights_digest,
            ),
            largest_context=largest_context,
            step_target_ms=self._settings.worker.step_target_ms,
        )

    def _gone(self, resident: Resident, worker: WorkerProcess) -> None:
        now = asyncio.get_running_loop().time()
        phase = resident.phase
        resident.lose_worker()
        if resident.leases:
            resident.expires_at = resident.stays_until(now)
        if not worker.was_stopped:
            lived = 0.0 if worker.ready_at is None else now - worker.ready_at
            self._crashes.note(resident.key, lived_seconds=lived, now=now)
            resident.not_before = self._crashes.not_before(resident.key)
        if phase is Phase.LOADING:
            assert worker.failure is not None
            if worker.failure.code != InsufficientMemory.code or not self._evict_one_for(resident):
                self._queue.fail_all(resident, worker.failure)
                self.end_requests(resident, worker.failure)
            resident.is_kept = False
        elif phase is Phase.READY and not self.is_stopping:
            resident.restarts += 1
            resident.is_kept = True
            resident.line.lost(worker.ending)
        else:
            was_unloaded = EngineCrashed("The model was unloaded in the middle of this answer.")
            self.end_requests(resident, ServerShutdown() if self.is_stopping else was_unloaded)
        self._on_change()

    def _evict_one_for(self, resident: Resident) -> bool:
        """When the engine found less memory than was planned with: let the next idle model go, if there is one."""
        idle = [
            other
            for other in self._table.residents.values()
            if other.phase is Phase.READY and not other.is_used and other is not resident
        ]
        if not idle or not resident.is_used:
            return False
        victim = min(idle, key=lambda other: other.last_used)
        logger.info("%s: unloading, because the engine had too little memory", victim.spec.name)
        resident.room_from = victim.worker
        self.let_go(victim)
        return True

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
