"""Ask a short-lived worker what devices the machine has, so that the daemon need not load the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import msgspec

from runner.supervisor.memory import Gpus, learn_gpus
from runner.supervisor.starting import surroundings

logger = logging.getLogger(__name__)

LISTING_SECONDS = 20.0


class ListedDevice(msgspec.Struct, frozen=True):
    """The part of a worker's listing that planning needs."""

    kind: str
    memory_total: int


async def probe_gpus(worker_command: Sequence[str]) -> Gpus:
    """What GPUs there are; unknown when the worker does not tell in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            *worker_command,
            "--devices",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            **surroundings(),
        )
    except OSError as error:
        logger.warning("the devices could not be listed: %s", error)
        return Gpus()
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LISTING_SECONDS)
        return learn_gpus(msgspec.json.decode(output, type=list[ListedDevice]))
    except (TimeoutError, msgspec.DecodeError) as error:
        logger.warning("the devices could not be listed: %s", str(error) or "no answer")
        return Gpus()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
