"""Supervisor: which models are loaded, who uses them, and how long they stay.

One table of residents, changed only here and only between awaits. Every call and every end of a
process changes a row and then calls `_settle`, which compares the whole table with what should be
and does the next step of each row: grant a lease, load, unload, give up. It never waits, so no
two decisions can interleave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from runner.errors import DeadlineExceeded, RunnerError, ServerShutdown
from runner.settings import Settings
from runner.supervisor.devices import probe_gpus
from runner.supervisor.lease import Lease
from runner.supervisor.likely_fit import LikelyFit, likely_fit
from runner.supervisor.memory import Machine, ThisMachine
from runner.supervisor.planning import LoadPlan, largest_windows, plan_load, shortage_of
from runner.supervisor.policy import Evict, Fits, Wait, reload_reason
from runner.supervisor.process import WorkerState
from runner.supervisor.queue import Queue
from runner.supervisor.residents import Phase, Resident, Waiter
from runner.supervisor.starting import WORKER_COMMAND
from runner.supervisor.status import status_of
from runner.supervisor.table import Table
from runner.supervisor.types import LoadWishes, ModelSpec, ModelStatus
from runner.supervisor.workers import Workers

logger = logging.getLogger(__name__)


class Supervisor:
    """Owns every worker process. All methods belong to the event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        worker_command: Sequence[str] = WORKER_COMMAND,
        machine: Machine | None = None,
        *,
        cache_folder: Path | None = None,
    ) -> None:
        """`cache_folder` is where workers keep what outlives them, unless a setting names another place."""
        self._settings = settings
        self._worker_command = tuple(worker_command)
        self._table = Table(machine or ThisMachine())
        self._residents = self._table.residents
        self._barriers: dict[str, float] = {}
        """Models that a load waits for: waiters with later tickets than this get no lease there."""
        self._queue = Queue(settings.queue)
        self._workers = Workers(worker_command, settings, cache_folder, self._table, self._queue, self._note_change)
        self._probe: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        """Set whenever a lease or a resident goes; `stop` waits for it."""

    # --- what others call -------------------------------------------------------------------------

    async def start(self) -> None:
        """Look for GPUs in the background; the first load waits for the result."""
        if self._table.machine.may_have_gpu_memory():
            self._probe = asyncio.create_task(self._learn_gpus())

    async def lease(self, spec: ModelSpec, *, keep_alive: float | None = None) -> Lease:
        """A hold on the model, loaded as `spec.wishes` ask; waits for memory, loading and its turn.

        `keep_alive` in seconds is how long the model stays after its last lease: 0 not at all,
        infinite for ever, None as before. Raises RunnerError: what loading failed with, QueueFull,
        DeadlineExceeded, InsufficientMemory, EngineCrashed, ServerShutdown. Cancelling gives up.
        """
        if self._workers.is_stopping:
            raise ServerShutdown
        resident = self._residents.get(spec.weights_digest)
        if resident is None or not self._can_serve_now(resident, spec.wishes):
            self._queue.refuse_when_full(spec, resident)
        if resident is None:
            resident = self._add_resident(spec)
        waiter = self._queue.add(resident, spec, keep_alive)
        self._settle()
        deadline = self._settings.queue.deadline_seconds or None
        try:
            if not waiter.answer.done():
                await asyncio.wait((waiter.answer,), timeout=deadline)
        except asyncio.CancelledError:
            self._give_up(resident, waiter)
            raise
        if not waiter.answer.done():
            self._give_up(resident, waiter)
            raise DeadlineExceeded(
                f"{spec.name} was not free within {deadline:g} seconds; try again later, or raise "
                "[queue] deadline_seconds.",
                model=spec.name,
                deadline_seconds=deadline,
            )
        return waiter.answer.result()

    async def unload(self, weights_digest: str) -> bool:
        """Let the model go as soon as nobody uses it; False when it is not loaded.

        An idle model's process is gone when this returns. Otherwise it returns at once.
        """
        resident = self._residents.get(weights_digest)
        if resident is None:
            return False
        resident.dismiss()
        worker = resident.worker
        self._settle()
        if worker is not None and not resident.is_used:
            await worker.wait_gone()
        return True

    async def evict(self, weights_digest: str, error: RunnerError) -> bool:
        """End everything that uses the model or waits for it with `error`; False when it is not loaded.

        Its process is gone when this returns.
        """
        resident = self._residents.get(weights_digest)
        if resident is None:
            return False
        resident.dismiss()
        worker = resident.worker
        self._queue.fail_all(resident, error)
        self._workers.end_requests(resident, error)
        if worker is not None and resident.phase is Phase.READY:
            self._workers.let_go(resident)
        self._settle()
        if worker is not None:
            await worker.wait_gone()
        return True

    def status(self) -> list[ModelStatus]:
        """All models that are loaded or on the way, the one that stays longest first."""
        residents = self._residents.values()
        largest = largest_windows(residents, self._table.machine, self._table.gpus)
        return status_of(residents, asyncio.get_running_loop().time(), largest)

    def is_answering(self, weights_digest: str) -> bool:
        """Whether somebody uses the model or waits for it."""
        resident = self._residents.get(weights_digest)
        return resident is not None and resident.is_used

    def likely_fit(self, size: int) -> LikelyFit:
        """Whether a model of that many bytes would run here, as far as its size tells."""
        return likely_fit(size, self._table.machine, self._table.gpus)

    async def stop(self) -> None:
        """Refuse new leases, let running ones end for a while, then end them; returns when no process is left."""
        self._workers.is_stopping = True
        for resident in self._residents.values():
            resident.is_kept = False
            self._queue.fail_all(resident, ServerShutdown())
        self._settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.worker.drain_seconds):
                while any(resident.leases for resident in self._residents.values()):
                    self._changed.clear()
                    await self._changed.wait()
        for resident in list(self._residents.values()):
            self._workers.end_requests(resident, ServerShutdown())
        await self._workers.stop_all()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.cancel()

    def kill(self) -> None:
        """End every worker process without waiting for anything; for a daemon that must end at once."""
        self._workers.is_stopping = True
        for resident in self._residents.values():
            if resident.worker is not None:
                resident.worker.kill()

    # --- rows and waiters -------------------------------------------------------------------------

    def _add_resident(self, spec: ModelSpec) -> Resident:
        configured = self._settings.model(spec.name).keep_alive
        keep_alive = self._settings.worker.keep_alive if configured is None else configured
        resident = self._residents[spec.weights_digest] = self._workers.resident(spec, keep_alive)
        return resident

    def _can_serve_now(self, resident: Resident, wishes: LoadWishes) -> bool:
        return (
            resident.phase is Phase.READY
            and not resident.waiters
            and len(resident.leases) < resident.places
            and self._reload_reason(resident, wishes) is None
        )

    def _give_up(self, resident: Resident, waiter: Waiter) -> None:
        if waiter in resident.waiters:
            self._queue.take(resident, waiter)
            self._settle()
        elif not waiter.answer.cancelled() and waiter.answer.exception() is None:
            waiter.answer.result().release()  # granted in the same moment

    def _release(self, resident: Resident, lease: Lease) -> None:
        if lease not in resident.leases:
            return  # its worker died before
        resident.leases.remove(lease)
        self._table.touch(resident)
        resident.expires_at = resident.stays_until(asyncio.get_running_loop().time())
        self._changed.set()
        self._settle()

    def _note_change(self) -> None:
        self._changed.set()
        self._settle()

    # --- one step towards what should be ----------------------------------------------------------

    def _settle(self) -> None:
        now = asyncio.get_running_loop().time()
        while True:
            for resident in list(self._residents.values()):
                if resident.phase is Phase.READY:
                    self._workers.answer_wishes(resident)
                    self._serve(resident, now)
                elif not resident.is_used:
                    self._abandon(resident, now)
            barriers = self._load_wanted(now)
            if barriers == self._barriers:
                break
            self._barriers = barriers  # whom a new barrier holds back, or a gone one lets through
        self._set_alarm(now)

    def _serve(self, resident: Resident, now: float) -> None:
        """Grant leases to waiters in order; stop the worker for a reload, or when its time is over."""
        assert resident.worker is not None
        if resident.worker.state is not WorkerState.READY:
            return  # it is dying, and when it is gone this is settled anew
        barrier = self._barriers.get(resident.key, math.inf)
        while resident.waiters and len(resident.leases) < resident.places:
            waiter = resident.waiters[0]
            if waiter.ticket > barrier:
                return
            reason = None if waiter.is_served else self._reload_reason(resident, waiter.spec.wishes)
            if reason is None:
                self._grant(resident, waiter)
            elif not waiter.is_feasible and (error := shortage_of(self._plan(resident), resident)) is not None:
                # What is loaded stays.
                self._queue.fail(resident, waiter, error)
            else:
                # Those behind wait too: otherwise the model might never become idle.
                waiter.is_feasible = True
                if not resident.leases:
                    logger.info("%s: loading again: %s", resident.spec.name, reason)
                    resident.last_reload_reason = reason
                    self._workers.stop(resident)
                return
        if not resident.is_used and resident.expires_at <= now:
            logger.info("%s: unloading", resident.spec.name)
            self._workers.let_go(resident)

    def _abandon(self, resident: Resident, now: float) -> None:
        """Give a load up that nobody waits for; a model that crashed is wanted back until its time is over."""
        if resident.is_kept and resident.expires_at > now:
            return
        if resident.phase is Phase.LOADING and resident.worker is not None:
            logger.info("%s: nobody waits for it any more, loading is given up", resident.spec.name)
            resident.phase = Phase.STOPPING
            resident.worker.kill()
        elif resident.phase is Phase.WANTED:
            self._forget(resident)

    def _load_wanted(self, now: float) -> dict[str, float]:
        """Start the loads that can start, first come first; returns the barriers of those that cannot."""
        wanted = [resident for resident in self._residents.values() if resident.phase is Phase.WANTED]
        wanted.sort(key=lambda resident: resident.ticket)
        barriers: dict[str, float] = {}
        if self._probe is not None and not self._probe.done():
            return barriers
        for resident in wanted:
            if resident.not_before > now:
                continue
            if resident.room_from is not None and resident.room_from.state is not WorkerState.GONE:
                continue
            plan = self._feasible_plan(resident)
            if plan is None:
                continue
            if isinstance(plan.decision, Fits):
                self._workers.start(resident, plan)
            elif not resident.is_used:
                self._forget(resident)  # nobody else has to go for a model that nobody waits for
            elif isinstance(plan.decision, Evict):
                self._workers.evict_idle(plan.decision.keys)
            elif isinstance(plan.decision, Wait):
                for key in plan.decision.keys:
                    barriers[key] = min(resident.ticket, barriers.get(key, math.inf))
        return barriers

    def _feasible_plan(self, resident: Resident) -> LoadPlan | None:
        """How to load a model for all whom it can be loaded for; the others are told why not. None: nobody is left."""
        while (error := shortage_of(plan := self._plan(resident), resident)) is not None:
            if resident.leases:
                self._workers.end_requests(resident, error)
            elif resident.waiters:
                self._queue.fail(resident, resident.waiters[0], error)
            if not resident.is_used:
                self._forget(resident)
                return None
        return plan

    def _set_alarm(self, now: float) -> None:
        """Settle again when the next keep-alive ends or the next pause after a crash is over."""
        due = math.inf
        for resident in self._residents.values():
            if not resident.waiters and not resident.leases and resident.phase is not Phase.STOPPING:
                due = min(due, resident.expires_at)
            if resident.phase is Phase.WANTED and resident.not_before > now:
                due = min(due, resident.not_before)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due < math.inf:
            self._alarm = asyncio.get_running_loop().call_at(due, self._settle)

    # --- actions ----------------------------------------------------------------------------------

    def _grant(self, resident: Resident, waiter: Waiter) -> None:
        self._queue.take(resident, waiter)
        if waiter.answer.done():
            return
        assert resident.loaded is not None
        resident.spec = waiter.spec
        self._table.touch(resident)
        if waiter.keep_alive is not None:
            resident.keep_alive, resident.is_dismissed = waiter.keep_alive, False
        lease = Lease(
            resident.line,
            resident.loaded,
            time.monotonic_ns() - waiter.since_ns,
            lambda lease: self._release(resident, lease),
        )
        resident.leases.add(lease)
        waiter.answer.set_result(lease)

    def _plan(self, resident: Resident) -> LoadPlan:
        return plan_load(resident, self._residents.values(), self._table.machine, self._table.gpus)

    def _reload_reason(self, resident: Resident, wishes: LoadWishes) -> str | None:
        assert resident.options is not None
        assert resident.loaded is not None
        return reload_reason(resident.options, resident.loaded, wishes)

    def _forget(self, resident: Resident) -> None:
        del self._residents[resident.key]
        self._changed.set()

    async def _learn_gpus(self) -> None:
        self._table.gpus = await probe_gpus(self._worker_command)
        self._probe = None
        self._settle()
