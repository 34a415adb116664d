"""A worker's life: load one model, serve it, end with the pipe."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from typing import NoReturn

from runner.engine import Engine
from runner.errors import RunnerError
from runner.messages import Load, Loaded, LoadFailed, LoadProgress
from runner.worker.control import Control
from runner.worker.loop import Loop
from runner.worker.pipe import Pipe

logger = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_LOAD_FAILED = 1
EXIT_BROKEN = 70

LAST_SAVES_SECONDS = 2.0
"""How long the end may take for what is to be found again after it; the daemon waits a little longer than that."""

STACK_BYTES = 64 << 20
"""For every thread: grammars compile by recursion, and a stack that ends takes the process with it."""

EngineLoader = Callable[[Load, Callable[[float], None]], Engine]
"""Loads the model of a `Load` on the calling thread, telling its progress as fractions."""


def serve(pipe: Pipe, load_engine: EngineLoader) -> NoReturn:
    """Serve until the daemon closes the pipe; ends the process.

    The calling thread reads commands; a second one, the engine thread, loads the model and runs
    the loop. In the end the loop has a moment to save its caches; a step in progress is not waited for
    any longer than that.
    """
    threading.stack_size(STACK_BYTES)
    try:
        _obey(pipe, load_engine)
    except Exception:
        logger.exception("the daemon sent something unreadable")
        os._exit(EXIT_BROKEN)
    os._exit(EXIT_DONE)


def _obey(pipe: Pipe, load_engine: EngineLoader) -> None:
    command = pipe.receive()
    if command is None:
        return
    if not isinstance(command, Load):
        raise TypeError(f"the first command is a {type(command).__name__}, not a Load")
    ready: list[Control] = []
    arguments = (pipe, load_engine, command, ready)
    engine_thread = threading.Thread(target=_run_engine, args=arguments, name="engine", daemon=True)
    engine_thread.start()
    while (command := pipe.receive()) is not None:
        if ready:
            ready[0].handle(command)
    if ready:
        ready[0].stop()
        engine_thread.join(LAST_SAVES_SECONDS)


def _run_engine(pipe: Pipe, load_engine: EngineLoader, command: Load, ready: list[Control]) -> None:
    try:
        engine = load_engine(command, _ProgressReport(pipe))
        loop = Loop(
            engine,
            pipe.send,
            cache=command.cache,
            largest_context=command.largest_context,
            step_target_ns=int(command.step_target_ms * 1_000_000),
        )
        ready.append(Control(engine, loop.post, pipe.send, lambda: loop.largest_context))
        gc.freeze()  # what is there by now stays: nobody has to look whether it is garbage
        pipe.send(Loaded(engine.info))
        loop.run()
        loop.save(LAST_SAVES_SECONDS)
    except BrokenPipeError:
        os._exit(EXIT_DONE)
    except RunnerError as error:
        pipe.send(LoadFailed(error.code, error.message, dict(error.facts)))
        os._exit(EXIT_LOAD_FAILED)
    except Exception:
        logger.exception("the worker's engine thread ended")
        os._exit(EXIT_BROKEN)


class _ProgressReport:
    """Sends whole percents only, so that loading is not slowed by telling of it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._percent = -1

    def __call__(self, fraction: float) -> None:
        percent = int(fraction * 100)
        if percent > self._percent:
            self._percent = percent
            self._pipe.send(LoadProgress(percent / 100))
