"""How a model fits this machine: what it needs, measured without loading it, and where it would go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.stored_model import StoredModel
from runner.errors import EngineCrashed, ReportedError
from runner.jobs import MEASURE_FLAG, DeviceFacts, Measure, Measured
from runner.supervisor.growing import largest_at_first
from runner.supervisor.jobs import Jobs
from runner.supervisor.kernels import has_fast_kernel, kernel_sentence, main_type
from runner.supervisor.likely_fit import COMFORT, LikelyFit
from runner.supervisor.memory import Machine, MemoryPlan, Room, ThisMachine, gigabytes, plan_memory
from runner.supervisor.types import LoadWishes, MemoryFacts

logger = logging.getLogger(__name__)

_WINDOWS = (4096, 8192)
"""Beyond what sliding windows keep, so that the difference is what every further token costs."""
_SECONDS = 30.0
_KEPT = 256
_NO_WISHES = LoadWishes()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes; sizes in bytes."""

    weights: int
    cache_per_token: int
    cache_fixed: int
    """Cache that does not grow with the window: sliding windows, recurrent states."""
    compute: int
    layers: int

    def cache(self, window: int) -> int:
        return self.cache_fixed + self.cache_per_token * window


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on this machine, with nothing else loaded."""

    needs: Needs
    is_measured: bool
    """False when the engine could not tell and the figures are estimates."""
    plan: MemoryPlan
    """How it would be loaded, as its own parameters and the configuration wish it."""
    largest: int
    """How far its window would grow."""
    verdict: LikelyFit
    devices: tuple[DeviceFacts, ...]
    fast_kernel: bool | None
    """Of the CPU, for the type of most weights; None when they are not quantized, or nobody knows."""
    kernel: str
    """One sentence on it."""
    projector: int
    """Bytes of projectors, which are loaded beside the model."""
    adapters: int
    """Bytes of LoRA adapters, which are read when a request first wants them."""

    @property
    def window(self) -> int:
        """That it is loaded with."""
        return self.plan.context_length

    @property
    def needed(self) -> int:
        return self.plan.needed

    @property
    def gpu_layers(self) -> int:
        """All or none, unless num_gpu asks for some."""
        return self.needs.layers if self.verdict is LikelyFit.GPU else 0

    @property
    def placement(self) -> str:
        """One sentence: where the layers go, and why."""
        gpus = [device for device in self.devices if device.kind in ("gpu", "igpu")]
        names = ", ".join(f"{gpu.name} ({gpu.description})" for gpu in gpus)
        if self.verdict is LikelyFit.GPU:
            return f"All {self.needs.layers} layers on {names}."
        if self.verdict is LikelyFit.NO:
            return f"It needs {gigabytes(self.needed)}, more than this machine has."
        where = f"All {self.needs.layers} layers on the CPU"
        if gpus:
            return f"{where}: {gigabytes(self.needed)} are more than {names} can give; set num_gpu for a part."
        return f"{where}: the engine has no GPU to use." if self.is_measured else f"{where}."


def needs_of(measured: Measured, weights: int) -> Needs:
    """From two windows, what a token costs and what stays."""
    first, second = measured.needs[0], measured.needs[-1]
    per_token = max(0, second.cache - first.cache) // (second.window - first.window)
    fixed = max(0, first.cache - per_token * first.window)
    return Needs(weights, per_token, fixed, first.compute, measured.layers)


def decide(
    needs: Needs, training_context: int, room: Room, more_weights: int = 0, wishes: LoadWishes = _NO_WISHES
) -> tuple[MemoryPlan, LikelyFit]:
    """How the model would be loaded into the room of an empty machine, and how well it fits there.

    `more_weights` are those of its projectors and adapters.
    """
    buffers = needs.compute + needs.cache_fixed
    facts = MemoryFacts(needs.weights + more_weights, needs.cache_per_token, training_context, buffers)
    plan = plan_memory(facts, wishes, room)
    if room.vram and plan.needed <= room.vram and wishes.num_gpu != 0:
        return plan, LikelyFit.GPU
    if plan.needed <= room.ram * COMFORT:
        return plan, LikelyFit.MEMORY
    return plan, LikelyFit.TIGHT if plan.needed <= room.ram + (room.vram or 0) else LikelyFit.NO


class FitMeter:
    """Measures models, one at a time, and remembers what they need. Belongs to the event loop's thread."""

    def __init__(
        self,
        jobs: Jobs | None = None,
        machine: Machine | None = None,
        max_sequences: int | None = None,
        wishes_of: Callable[[StoredModel], LoadWishes] = lambda _: LoadWishes(),
    ) -> None:
        """`wishes_of` tells what is wished of a model's loading when a request wishes nothing; it may block."""
        self._jobs = jobs or Jobs()
        self._machine = machine or ThisMachine()
        self._max_sequences = max_sequences or 16
        self._wishes_of = wishes_of
        self._measured: dict[str, Measured | None] = {}
        """By the digest of the weights; None for those that the engine refuses."""
        self._turn = asyncio.Lock()

    async def fit(self, model: StoredModel) -> Fit:
        """How the model fits; takes half a second the first time.

        Raises ModelInvalid or ModelCorrupt, and ServerShutdown.
        """
        metadata = await asyncio.to_thread(model.metadata)
        measured = await self._measure(str(model.model_digest), model.model_paths)
        projector, adapters = (sum(one.size for one in layers) for layers in (model.projectors, model.adapters))
        kind = main_type(metadata.tensors)
        if measured is None:
            weights = metadata.weights_size
            compute = (128 << 20) + weights // 16
            needs = Needs(weights, metadata.kv_bytes_per_token(), 0, compute, metadata.block_count + 1)
            features: tuple[str, ...] = ()
            devices: tuple[DeviceFacts, ...] = ()
        else:
            needs = needs_of(measured, metadata.weights_size)
            features, devices = measured.features, measured.devices
        vram = sum(device.memory_total for device in devices if device.kind == "gpu") * 95 // 100
        room = Room(self._machine.total(), vram)
        wishes = await asyncio.to_thread(self._wishes_of, model)
        plan, verdict = decide(needs, metadata.context_length, room, projector + adapters, wishes)
        return Fit(
            needs=needs,
            is_measured=measured is not None,
            plan=plan,
            largest=largest_at_first(plan, room),
            verdict=verdict,
            devices=devices,
            fast_kernel=has_fast_kernel(kind, features) if measured else None,
            kernel=kernel_sentence(kind, features) if measured else "",
            projector=projector,
            adapters=adapters,
        )

    async def _measure(self, digest: str, files: Sequence[Path]) -> Measured | None:
        async with self._turn:
            if digest not in self._measured:
                try:
                    measured = await self._ask(files)
                except ReportedError as error:
                    logger.info("the engine does not measure a model: %s", error.message)
                    measured = None
                except (EngineCrashed, TimeoutError) as error:
                    logger.warning("a model could not be measured: %s", str(error) or "it took too long")
                    return None  # the next one who asks may have more luck
                while len(self._measured) >= _KEPT:
                    del self._measured[next(iter(self._measured))]
                self._measured[digest] = measured
            return self._measured[digest]

    async def _ask(self, files: Sequence[Path]) -> Measured:
        job = Measure(tuple(str(file) for file in files), _WINDOWS, self._max_sequences)
        async with (
            asyncio.timeout(_SECONDS),
            contextlib.aclosing(self._jobs.follow(MEASURE_FLAG, job)) as reports,
        ):
            async for report in reports:
                if isinstance(report, Measured):
                    return report
        raise EngineCrashed("The process that measures ended without a word.")
