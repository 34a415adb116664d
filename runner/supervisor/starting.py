"""What every process that the daemon starts is given: a clean environment, and a session of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

WORKER_COMMAND = (sys.executable, "-P", "-m", "runner.worker")

_ENVIRONMENT_NAMES = frozenset({
    "PATH", "HOME", "USERPROFILE", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME",
    "SYSTEMROOT", "WINDIR", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA",
    "PROGRAMFILES", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE", "LD_LIBRARY_PATH", "GPU_DEVICE_ORDINAL",
})  # fmt: skip
_ENVIRONMENT_PREFIXES = (
    "LC_", "DYLD_", "CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "ROCM_",
    "GGML_", "VK_", "MTL_", "METAL_", "OMP_", "KMP_", "GOMP_", "MALLOC_",
)  # fmt: skip
_HEAP = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""For glibc, which else keeps a heap for each thread, and in them what saved prefixes took: a worker would grow by
tens of megabytes for each thousand requests."""
_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


def surroundings() -> dict[str, Any]:
    """Options to start a process with. A Ctrl-C in the daemon's terminal is not for it: the daemon ends it in time."""
    options: dict[str, Any] = {"env": clean_environment(os.environ)}
    if sys.platform == "win32":
        return options | {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return options | {"start_new_session": True}


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The few variables a worker needs to find libraries, devices and temporary files; no keys, no tokens."""
    kept = {
        name: value
        for name, value in environ.items()
        if (name.upper() in _ENVIRONMENT_NAMES or name.upper().startswith(_ENVIRONMENT_PREFIXES))
        and not name.upper().endswith(_SECRET_ENDINGS)
    }
    # A crash is handled here, by starting again; ggml's own handler would attach a debugger first.
    kept["GGML_NO_BACKTRACE"] = "1"
    if not any(name.startswith("MALLOC_") for name in kept):
        kept |= _HEAP
    return kept
