"""What holds for every test: processors of its process' own, the same examples each time, nothing left running."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, settings

FOREIGN = ("PUNA_", "OLLAMA_", "OPENAI_", "ANTHROPIC_", "HF_")
OURS = ("PUNA_TEST_", "PUNA_WRITE_DOCS")
MARK = "TESTED_IN"
"""In the environment of everything that tests start."""
ENDING_SECONDS = 10

# The same examples each time, however slow the machine is; `--hypothesis-profile=default` looks for new ones.
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    for name in [name for name in os.environ if name.startswith(FOREIGN) and not name.startswith(OURS)]:
        del os.environ[name]
    if "PYTEST_XDIST_WORKER" in os.environ:
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        keep_to_own_processors(number, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what runs in the background; what tests start would ignore their interrupts as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_to_own_processors(number: int, count: int) -> None:
    """Share the processors out between so many processes side by side, where the system can.

    The threads of an engine wait for each other at every step: were one pushed aside by the tests
    next door, all would stand still. So an engine here has as many threads as there are processors
    that nobody else uses.
    """
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) >= count:
            os.sched_setaffinity(0, usable[number % count :: count])


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fails at the very end, and names the test that started what still runs."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    yield
    _, left = psutil.wait_procs(_started_under(mark), ENDING_SECONDS)
    assert not left, "\n".join(["still running:", *map(_described, left)])


def _started_under(mark: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environment_of(process).get(MARK) == mark
    ]


def _described(process: psutil.Process) -> str:
    test = _environment_of(process).get("PYTEST_CURRENT_TEST", "an unknown test")
    try:
        return f"{process.pid} {' '.join(process.cmdline())}, started in {test}"
    except psutil.Error:
        return f"{process.pid}, which has just ended, started in {test}"


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):  # another user's
        return {}
