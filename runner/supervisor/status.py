"""What `ps` is told of the supervisor's table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from runner.supervisor.residents import Phase, Resident
from runner.supervisor.types import ModelState, ModelStatus

_STATES = {
    Phase.WANTED: ModelState.LOADING,
    Phase.LOADING: ModelState.LOADING,
    Phase.READY: ModelState.READY,
    Phase.STOPPING: ModelState.STOPPING,
}


def status_of(residents: Iterable[Resident], now: float, largest: Mapping[str, int]) -> list[ModelStatus]:
    """All models that are loaded or on the way, the one that stays longest first; `now` on the loop's clock.

    `largest` has the windows that there is memory for, by key.
    """
    rows = []
    for resident in residents:
        expires = resident.stays_until(now) if resident.is_used else resident.expires_at
        rows.append((expires, _row(resident, max(0.0, expires - now), largest.get(resident.key, 0))))
    rows.sort(key=lambda row: row[0], reverse=True)
    return [status for _, status in rows]


def _row(resident: Resident, expires_in: float, largest_context: int) -> ModelStatus:
    worker = resident.worker
    return ModelStatus(
        spec=resident.spec,
        state=_STATES[resident.phase],
        loaded=resident.loaded,
        expires_at=None if expires_in == math.inf else _local_time(expires_in),
        leases=len(resident.leases),
        restarts=resident.restarts,
        last_reload_reason=resident.last_reload_reason,
        stats=None if worker is None else worker.client.stats,
        load_fraction=1.0 if resident.loaded is not None else 0.0 if worker is None else worker.load_fraction,
        largest_context=largest_context,
        planned=resident.holding.ram + resident.holding.vram,
        planned_vram=resident.holding.vram,
        memory=_memory(resident),
        growths=resident.growths,
        grown_at=resident.grown_at,
    )


def _memory(resident: Resident) -> dict[str, int]:
    """What the model is counted with; the rest of what is planned is room to compute."""
    if resident.plan is None or resident.worker is None:
        return {}
    parts = {"weights": resident.plan.weights, "kv_cache": resident.plan.kv}
    return parts | {purpose.value: size for purpose, size in resident.beside.items()}


def _local_time(seconds_from_now: float) -> datetime | None:
    try:
        return datetime.now().astimezone() + timedelta(seconds=seconds_from_now)
    except OverflowError:
        return None  # beyond the calendar is as good as never
