"""What a model needs of the machine's memory, and what there is."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from runner.errors import InsufficientMemory
from runner.loaded_model import LoadedModel
from runner.supervisor.types import LoadWishes, MemoryFacts

FIRST_WINDOW = 4096
"""What a model is loaded with at most; it grows when that is needed."""
SHORTEST_WINDOW = 2048
"""What it is loaded with at least, unless a smaller one was asked for."""
LONGEST_UNTOLD_WINDOW = 32768
"""How far a window may grow when the file does not say what the model was trained for."""
_KV_SHARE = {"q8_0": 34 / 64, "q4_0": 18 / 64}
"""What cache types take of the space of f16: blocks of 32 numbers, each with a scale."""
WINDOW_STEP = 256
"""The engine rounds windows up to this; planning with whole steps keeps plan and truth together."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What one model will take, in bytes, for a window in tokens."""

    weights: int
    kv: int
    buffers: int
    context_length: int
    kv_per_token: int = 0
    longest: int = 0
    """How far the window may grow."""

    @property
    def needed(self) -> int:
        return self.weights + self.kv + self.buffers


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that is free for models now, in bytes.

    `vram` is the GPUs' own memory, None while nobody knows of it. GPUs that share the machine's
    memory have none of their own.
    """

    ram: int
    vram: int | None


@dataclass(frozen=True, slots=True)
class Holding:
    """What a model that is loaded, or being loaded, holds; in bytes."""

    ram: int
    vram: int

    def plus(self, size: int, *, on_gpus: bool) -> Holding:
        """With so many bytes more."""
        return Holding(self.ram, self.vram + size) if on_gpus else Holding(self.ram + size, self.vram)


@dataclass(frozen=True, slots=True)
class Gpus:
    """What workers told of the machine's GPUs."""

    known: bool = False
    memory: int = 0
    """Of their own, in bytes; that of the machine, which some share, is not in it."""


class Device(Protocol):
    """What a worker tells of a device."""

    @property
    def kind(self) -> str: ...
    @property
    def memory_total(self) -> int: ...


class Machine(Protocol):
    """The machine's memory, in bytes."""

    def available(self) -> int: ...
    def total(self) -> int: ...
    def free_swap(self) -> int: ...
    def may_have_gpu_memory(self) -> bool:
        """False only when there certainly is no GPU with memory of its own."""
        ...


class ThisMachine:
    """The memory of the machine we run on."""

    def available(self) -> int:
        return int(psutil.virtual_memory().available)

    def total(self) -> int:
        return int(psutil.virtual_memory().total)

    def free_swap(self) -> int:
        return int(psutil.swap_memory().free)

    def may_have_gpu_memory(self) -> bool:
        if sys.platform == "darwin":
            return False
        if sys.platform != "linux":
            return True
        return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dri", "/dev/dxg"))


def plan_memory(facts: MemoryFacts, wishes: LoadWishes, room: Room) -> MemoryPlan:
    """The plan for loading a model as it is wished, in the room there is.

    The window is a small one, which grows when that is needed. Where less was wished for, that is kept even when it
    does not fit; without a wish it is smaller where memory is scarce.
    """
    if (draft := wishes.draft) is not None:
        facts = dataclasses.replace(
            facts, weights=facts.weights + draft.weights, kv_per_token=facts.kv_per_token + draft.kv_per_token
        )
    facts = dataclasses.replace(
        facts,
        kv_per_token=int(facts.kv_per_token * _KV_SHARE.get(wishes.kv_cache_type or "", 1)),
        training_context=wishes.longest_window(facts.training_context),
    )
    buffers = (128 << 20) + facts.weights // 16 if facts.buffers is None else facts.buffers
    window = _first_window(facts, wishes.num_ctx, buffers, room)
    longest = facts.training_context or max(wishes.num_ctx or 0, LONGEST_UNTOLD_WINDOW)
    return MemoryPlan(facts.weights, facts.kv_per_token * window, buffers, window, facts.kv_per_token, longest)


def clamp_window(num_ctx: int, training_context: int) -> int:
    """The window that a wish stands for: at least one token, at most what the model was trained for."""
    return max(1, min(num_ctx, training_context) if training_context > 0 else num_ctx)


def _first_window(facts: MemoryFacts, num_ctx: int | None, buffers: int, room: Room) -> int:
    window = clamp_window(min(num_ctx or FIRST_WINDOW, FIRST_WINDOW), facts.training_context)
    if num_ctx is not None or facts.kv_per_token <= 0:
        return window
    shortest = min(SHORTEST_WINDOW, window)
    fixed = facts.weights + buffers
    # When the whole model can be on a GPU, the GPU's memory counts; otherwise the machine's.
    is_on_gpu = room.vram is not None and room.vram >= fixed + shortest * facts.kv_per_token
    free = room.vram if is_on_gpu and room.vram is not None else room.ram
    fits = max(0, free - fixed) // facts.kv_per_token
    return max(shortest, min(window, fits - fits % WINDOW_STEP))


def holding_of_plan(plan: MemoryPlan, room: Room) -> Holding:
    """Where a model that is still loading will probably be: on the GPUs if they have the room."""
    if room.vram is not None and room.vram >= plan.needed:
        return Holding(ram=0, vram=plan.needed)
    return Holding(ram=plan.needed, vram=0)


def holding_of_model(plan: MemoryPlan, loaded: LoadedModel, gpus: Gpus, beside: int = 0) -> Holding:
    """Where a loaded model is, by its own account; the larger of account and plan counts.

    `beside` is what was given for contexts beside the main one.
    """
    size = max(loaded.size, plan.weights + plan.kv if loaded.generates else 0)
    on_gpus = loaded.size_vram if gpus.memory else 0
    return Holding(ram=max(0, size - on_gpus), vram=on_gpus).plus(beside, on_gpus=on_gpus > 0)


def free_room(machine: Machine, gpus: Gpus, holdings: list[Holding]) -> Room:
    """What is free: what the system says is available, and never more than is left of our own promises.

    The system's figure alone is too high, because a loaded model's file is counted as cache and
    its KV cells as unused until they are written.
    """
    promised = sum(holding.ram for holding in holdings)
    ram = max(0, min(machine.available(), machine.total() - promised)) + machine.free_swap() // 2
    if gpus.known:
        on_gpus = sum(holding.vram for holding in holdings)
        return Room(ram, max(0, gpus.memory * 95 // 100 - on_gpus))
    return Room(ram, None if machine.may_have_gpu_memory() else 0)


def learn_gpus(devices: Iterable[Device]) -> Gpus:
    """What a list of all devices tells."""
    if sys.platform == "darwin":
        return Gpus(known=True)  # every GPU there shares the machine's memory
    return Gpus(known=True, memory=sum(device.memory_total for device in devices if device.kind == "gpu"))


def shortage(name: str, facts: MemoryFacts, plan: MemoryPlan, room: Room) -> InsufficientMemory:
    """The error for a plan that will not fit even in an empty house; `room` is that of the empty house."""
    available = room.ram + (room.vram or 0)
    fitting = 0
    if facts.kv_per_token > 0:
        fitting = max(0, available - plan.weights - plan.buffers) // facts.kv_per_token
        fitting -= fitting % WINDOW_STEP
    if fitting >= WINDOW_STEP:
        smaller = f"ask for a smaller window (num_ctx {fitting} would fit)"
    else:
        smaller = "use a smaller model"
    return InsufficientMemory(
        f"{name} needs {gigabytes(plan.needed)} of memory ({gigabytes(plan.weights)} of weights, "
        f"{gigabytes(plan.kv)} for a window of {plan.context_length} tokens, {gigabytes(plan.buffers)} to compute) "
        f"and {gigabytes(available)} can be had. Either {smaller}, close programs that use much memory, "
        "or take a smaller quantization of the model.",
        needed=plan.needed,
        available=available,
        weights=plan.weights,
        kv=plan.kv,
        context_length=plan.context_length,
    )


def gigabytes(size: int) -> str:
    """A size as people read it: `7.1 GB`, `98 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
