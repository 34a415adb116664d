"""Queue: those who wait for a lease, how many may, and how each is answered."""

from __future__ import annotations

import asyncio
import time

from runner.errors import QueueFull, RunnerError
from runner.settings import QueueSettings
from runner.supervisor.lease import Lease
from runner.supervisor.residents import Resident, Waiter
from runner.supervisor.types import ModelSpec

RETRY_AFTER_SECONDS = 5


class Queue:
    """Counts the waiters of all models; they themselves stand in their residents, first come first."""

    def __init__(self, limits: QueueSettings) -> None:
        self._limits = limits
        self._tickets = 0
        self._waiting = 0

    def refuse_when_full(self, spec: ModelSpec, resident: Resident | None) -> None:
        """Raises QueueFull when one more would be too many for the model, or for all together."""
        limits = self._limits
        here = 0 if resident is None else len(resident.waiters)
        if here >= limits.max_waiting_per_model:
            waiting, limit, whom = here, limits.max_waiting_per_model, spec.name
        elif self._waiting >= limits.max_waiting:
            waiting, limit, whom = self._waiting, limits.max_waiting, "a model"
        else:
            return
        raise QueueFull(
            f"{waiting} requests wait for {whom} already, and no more than {limit} may; try again in a moment.",
            model=spec.name,
            waiting=waiting,
            limit=limit,
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )

    def add(self, resident: Resident, spec: ModelSpec, keep_alive: float | None) -> Waiter:
        """Put one more at the end."""
        self._tickets += 1
        answer: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = Waiter(self._tickets, spec, keep_alive, answer, time.monotonic_ns())
        resident.waiters.append(waiter)
        self._waiting += 1
        return waiter

    def take(self, resident: Resident, waiter: Waiter) -> None:
        """Take one out, who is answered by the caller or has gone."""
        resident.waiters.remove(waiter)
        self._waiting -= 1

    def fail(self, resident: Resident, waiter: Waiter, error: RunnerError) -> None:
        """Answer one with an error."""
        self.take(resident, waiter)
        if not waiter.answer.done():
            # One exception object each: it gathers a traceback where it is raised.
            waiter.answer.set_exception(_copy_of(error))
            waiter.answer.exception()

    def fail_all(self, resident: Resident, error: RunnerError) -> None:
        """Answer all who wait for a model with an error."""
        while resident.waiters:
            self.fail(resident, resident.waiters[0], error)


def _copy_of(error: RunnerError) -> RunnerError:
    # Not by its constructor: each class has one of its own.
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied
