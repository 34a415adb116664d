"""The daemon: builds every part, hands each what it needs, runs uvicorn, and stops in order.

Stopping, after the first signal: new requests are refused with `server_shutdown`, and so ends at once
what nobody reads along; running answers may end, then those left are ended with that error, the workers
go, and at last the socket. A second signal ends everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib.metadata
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn

from registry.errors import RegistryError
from registry.paths import Paths
from registry.store import ModelStore
from runner.api.app import AppParts, create_app
from runner.api_keys import KeyFile, KeyFileError, KeyRing
from runner.calls import Call, Conversation
from runner.config_file import SettingsError
from runner.errors import RunnerError
from runner.generate import Generator
from runner.listening import CannotListen, address_text, listen
from runner.logs import set_up_daemon_logging
from runner.model_spec import usual_wishes
from runner.runtime_file import RuntimeFile, remove_runtime_file, write_runtime_file
from runner.settings import Settings
from runner.sources import make_sources
from runner.supervisor.fit import FitMeter
from runner.supervisor.jobs import Jobs
from runner.supervisor.speed import SpeedMeter
from runner.supervisor.starting import WORKER_COMMAND
from runner.supervisor.supervisor import Supervisor
from runner.supervisor.workshop import ProcessWorkshop
from runner.tidying import is_own_store, tidy_in_background

logger = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_DISK_FULL = 28
EXIT_ADDRESS_IN_USE = 48
EXIT_NOT_ALLOWED = 77
EXIT_BAD_SETTINGS = 78
EXIT_INTERRUPTED = 130

LAST_RECORDS_SECONDS = 5
"""For writing the last records to clients when all answers have ended."""
IDLE_CONNECTION_SECONDS = 120
"""Longer than clients keep an idle connection in their pools, so that none is closed under a request."""


def serve(
    settings: Settings,
    paths: Paths,
    *,
    log_file: Path | None = None,
    worker_command: tuple[str, ...] = WORKER_COMMAND,
) -> int:
    """Run the daemon until it is told to stop; returns the exit code of the program.

    What keeps it from starting is told on standard error in one sentence.
    """
    address = settings.server.address
    if address.scheme != "http":
        return _refuse(EXIT_BAD_SETTINGS, "The daemon speaks plain http; take the https:// off its address.")
    try:
        keys = KeyFile.beside(paths.config_file).read()
    except KeyFileError as error:
        return _refuse(EXIT_BAD_SETTINGS, str(error))
    if settings.needs_keys and not keys:
        return _refuse(
            EXIT_NOT_ALLOWED,
            f"{address.host} can be reached from other machines, and there is no API key by which to know who may "
            "come: make one with `puna key create NAME`. Or listen on 127.0.0.1, or let everyone there use and delete "
            "your models with --insecure (PUNA_INSECURE=1, [access] insecure = true).",
        )
    try:
        listener = listen(address.host, address.port, paths.state)
    except CannotListen as error:
        code = EXIT_ADDRESS_IN_USE if error.is_in_use else EXIT_NOT_ALLOWED if error.is_forbidden else EXIT_FAILED
        return _refuse(code, str(error))
    _raise_file_limit()
    try:
        set_up_daemon_logging(log_file)
        with listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(settings, paths, listener, worker_command))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = EXIT_DISK_FULL if error.errno == errno.ENOSPC else EXIT_FAILED
        return _refuse(code, f"The daemon cannot run: {place}{error.strerror or error}.")
    except RegistryError as error:
        return _refuse(EXIT_FAILED, f"The daemon cannot run: {error.message}")


async def _run(settings: Settings, paths: Paths, listener: socket.socket, worker_command: tuple[str, ...]) -> int:
    return await _Daemon(settings, paths, listener, worker_command).run()


class _Daemon:
    """One run of the daemon, from a bound socket to the exit code."""

    def __init__(
        self, settings: Settings, paths: Paths, listener: socket.socket, worker_command: tuple[str, ...]
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._listener = listener
        self._version = importlib.metadata.version("puna")
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._store = store = ModelStore(paths.models, settings.store.layers)
        sources = make_sources(settings, paths.config_file, store, os.environ, Path.home())
        self._supervisor = Supervisor(settings, worker_command, cache_folder=paths.cache / "prefixes")
        self._generator = Generator(store, self._supervisor, settings)
        self._jobs = Jobs(worker_command)
        fit_meter = FitMeter(
            self._jobs,
            max_sequences=settings.worker.max_sequences,
            wishes_of=lambda model: usual_wishes(model, settings),
        )
        self._app = create_app(
            AppParts(
                settings,
                store,
                sources,
                self._supervisor,
                self._generator,
                KeyRing(KeyFile.beside(paths.config_file)),
                self._version,
                ProcessWorkshop(settings.pull.keep_free_bytes, self._jobs),
                fit_meter,
                SpeedMeter(self._jobs),
            )
        )
        self._server = _Server(_server_config(self._app))

    async def run(self) -> int:
        host, port = self._listener.getsockname()[:2]
        started_at = datetime.now().astimezone()
        write_runtime_file(
            self._paths.state,
            RuntimeFile(os.getpid(), host, port, self._version, started_at, str(self._paths.models)),
        )
        try:
            with _signals_into(self._signals):
                await self._supervisor.start()
                serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
                await _first(serving, self._server.ready.wait())
                if not serving.done():
                    # What is there by now stays; to go through it again and again would hold up answers for 75 ms.
                    gc.freeze()
                    logger.info("Puna %s listens on http://%s", self._version, address_text(host, port))
                    if self._settings.needs_keys:
                        logger.info("other machines can reach it: every request needs an API key")
                    tidy_in_background(self._store, is_own=is_own_store(self._paths, os.environ))
                    preloading = asyncio.create_task(self._preload())
                    await _first(serving, self._signals.get())
                    preloading.cancel()
                return await self._stop(serving)
        finally:
            remove_runtime_file(self._paths.state, os.getpid())

    async def _stop(self, serving: asyncio.Task[None]) -> int:
        logger.info("stopping: running answers may still end")
        impatient = asyncio.create_task(self._signals.get())
        self._jobs.stop()
        self._app.stop()
        await _first(self._supervisor.stop(), impatient)
        self._server.should_exit = True
        if not impatient.done():
            await _first(serving, impatient)
        if impatient.done():
            logger.warning("ending at once")
            self._supervisor.kill()
            self._server.force_exit = True
            return EXIT_INTERRUPTED
        impatient.cancel()
        serving.result()
        logger.info("stopped")
        return EXIT_DONE

    async def _preload(self) -> None:
        for name, model in self._settings.models.items():
            if model.preload:
                try:
                    call = Call(request_id="preload", model=name, prompt=Conversation(messages=()))
                    await self._generator.load(call)
                except (RunnerError, RegistryError, SettingsError, OSError) as error:
                    logger.warning("%s was not loaded in advance: %s", name, error)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, and with a word when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server_config(app: Any) -> uvicorn.Config:
    protocol: Any = "h11"
    with contextlib.suppress(ImportError):
        from runner.http_protocol import BoundedHttpToolsProtocol as protocol
    return uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_CONNECTION_SECONDS,
        timeout_graceful_shutdown=LAST_RECORDS_SECONDS,
        h11_max_incomplete_event_size=64 << 10,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def _signals_into(queue: asyncio.Queue[int]) -> Iterator[None]:
    """Put the signals that ask the daemon to stop into `queue`."""
    loop = asyncio.get_running_loop()
    names = ("SIGINT", "SIGTERM", "SIGBREAK" if sys.platform == "win32" else "SIGHUP")
    # A hang-up that is ignored from the start (nohup) stays ignored.
    wanted = [number for name in names if signal.getsignal(number := getattr(signal, name)) is not signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in wanted}
    for number in wanted:
        if sys.platform == "win32":
            signal.signal(number, lambda number, _: loop.call_soon_threadsafe(queue.put_nowait, number))
        else:
            loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield
    finally:
        for number in wanted:
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])


async def _first(*waits: Awaitable[object]) -> None:
    """Wait until one is done; coroutines that are not are cancelled, tasks go on."""
    own = [asyncio.ensure_future(wait) for wait in waits if not isinstance(wait, asyncio.Future)]
    others = [wait for wait in waits if isinstance(wait, asyncio.Future)]
    await asyncio.wait((*own, *others), return_when=asyncio.FIRST_COMPLETED)
    for task in own:
        if task.done():
            task.result()
        else:
            task.cancel()


def _raise_file_limit() -> None:
    """Connections, pipes and model files are all descriptors, and common soft limits are low."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refuse(code: int, message: str) -> int:
    with contextlib.suppress(OSError):  # on a full disk the exit code alone must tell it
        print(f"puna: {message}", file=sys.stderr, flush=True)
    return code
