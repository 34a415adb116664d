"""python -P -m runner.worker: serve a model over standard input and output, or list devices."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from runner.engine import Engine
from runner.llamacpp.devices import list_devices
from runner.llamacpp.engine import LlamaEngine
from runner.llamacpp.library import Library
from runner.logs import set_up_worker_logging
from runner.messages import Load
from runner.worker.pipe import Pipe
from runner.worker.serve import serve


def main() -> None:
    # A Ctrl-C in the terminal is meant for the daemon, which drains its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ggml would start a debugger to print a backtrace of its abort.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    set_up_worker_logging()
    if sys.argv[1:] == ["--devices"]:
        Library()
        json.dump([asdict(device) for device in list_devices()], sys.stdout)
        return
    pipe = Pipe.take_over_standard_streams()
    serve(pipe, _load)


def _load(command: Load, on_progress: Callable[[float], None]) -> Engine:
    shards = tuple(Path(shard) for shard in command.shards)
    return LlamaEngine(Library(), Path(command.model_path), command.options, on_progress, shards)


main()
