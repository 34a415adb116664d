"""What a model needs of this machine, measured without loading it."""

from __future__ import annotations

import re
from pathlib import Path

from llama_cpp import llama_cpp as lib

from runner.jobs import DeviceFacts, Measure, Measured, WindowNeeds
from runner.llamacpp.devices import list_devices
from runner.llamacpp.library import Library
from runner.llamacpp.model import measure_contexts
from runner.loaded_model import LoadOptions

_FEATURE = re.compile(r"([A-Z0-9_]+) = ([1-9][0-9]*)")


def measure_job(job: Measure, library: Library) -> Measured:
    """Do a `Measure`, in a fraction of a second. Raises as `measure_contexts` does."""
    wanted = [LoadOptions(window, max_sequences=job.max_sequences, num_batch=job.num_batch) for window in job.windows]
    layers, needs = measure_contexts([Path(file) for file in job.files], wanted, library.log)
    return Measured(
        layers=layers,
        needs=tuple(
            WindowNeeds(window, one.cache, one.compute) for window, one in zip(job.windows, needs, strict=True)
        ),
        devices=tuple(
            DeviceFacts(one.name, one.kind, one.description, one.memory_free, one.memory_total)
            for one in list_devices()
            if one.kind in ("cpu", "gpu", "igpu")
        ),
        features=cpu_features(),
    )


def cpu_features() -> tuple[str, ...]:
    """What the engine's CPU code was built for, in the engine's words."""
    text = lib.llama_print_system_info().decode("utf-8", "replace")
    _, _, cpu = text.partition("CPU :")
    return tuple(match[1] for match in _FEATURE.finditer(cpu))
