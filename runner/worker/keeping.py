"""How a model's memory is kept: with which keeper, and in which files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.engine import Engine
from runner.loaded_model import MemoryKind
from runner.messages import CacheOptions
from runner.worker.cell_keeper import CellKeeper
from runner.worker.keeper import Keeper
from runner.worker.prefix_cache import PrefixCache
from runner.worker.prefix_files import FileEvent, PrefixFiles
from runner.worker.state_cache import StateCache
from runner.worker.state_keeper import StateKeeper
from runner.worker.step_cost import StepCost


def open_files(engine: Engine, cache: CacheOptions, post: Callable[[FileEvent], None]) -> PrefixFiles | None:
    """The files of a model, if any are wanted; `post` hears what became of each."""
    if not (cache.memory_bytes and cache.disk_bytes and cache.directory and cache.weights_digest):
        return None
    fingerprint = f"{cache.weights_digest} {engine.state_format}"
    return PrefixFiles(Path(cache.directory), fingerprint, cache.disk_bytes, post)


def make_keeper(
    engine: Engine, cache: CacheOptions, cost: StepCost, files: PrefixFiles | None, clock: Callable[[], int]
) -> Keeper:
    """The keeper for the kind of memory that the model has. Blocks while the list of files is read."""
    if engine.info.memory is MemoryKind.CELLS:
        return CellKeeper(engine, PrefixCache(cache.memory_bytes), cost, files=files, clock=clock)
    return StateKeeper(engine, StateCache(cache.memory_bytes), cost, files=files)
