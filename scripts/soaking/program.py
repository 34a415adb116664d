"""The program: starts a daemon of its own, soaks it, and says what came of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from benchmark.servers import puna, running
from benchmark.weights import create, model_file

from soaking.clients import Tally, run_clients
from soaking.memory import Samples, growth, sample
from soaking.requests import Request, make_requests

MODEL = "smollm2:135m"
EMBEDDER = "all-minilm"
QUIET_SECONDS = 30
MOST_GROWTH = 10.0
"""Megabytes for each thousand requests that memory may grow by, once caches are full."""
CACHE = {"PUNA_CACHE_MEMORY_BYTES": "32MiB", "PUNA_CACHE_DISK_BYTES": "256MiB"}
"""Small, so that they are full early and the rest shows what grows."""


@dataclass
class Verdict:
    """What came of a soak."""

    tally: Tally = field(default_factory=Tally)
    samples: Samples = field(default_factory=Samples)
    seconds: float = 0.0
    left: int = 0
    """Sequences that run or wait although nobody asks any more."""
    restarts: int = 0
    log_errors: list[str] = field(default_factory=list)

    def faults(self, count: int) -> list[str]:
        """All that is not as it should be."""
        found = list(self.tally.failures[:20])
        if self.tally.total != count:
            found.append(f"{count - self.tally.total} requests were lost, or not begun in time")
        found += [f"{kind}: {len(texts)} texts" for kind, texts in self.tally.same.items() if len(texts) > 1]
        if self.left:
            found.append(f"{self.left} sequences are left in the queue")
        if self.restarts:
            found.append(f"workers were started again {self.restarts} times")
        for name, points in (("the daemon", self.samples.daemon), ("the workers", self.samples.workers)):
            slope = growth(points)
            if slope is not None and slope > MOST_GROWTH and count >= 1000:
                found.append(f"the memory of {name} grows by {slope:.1f} MB for each thousand requests")
        return found + [f"log: {line}" for line in self.log_errors[:10]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print a summary; 1 when something is not as it should be."""
    wanted = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the daemon ends as well
    with tempfile.TemporaryDirectory(prefix="puna-soak-") as folder:
        verdict = _soak(wanted, Path(folder))
    faults = verdict.faults(wanted.count)
    for line in _summary(verdict, wanted):
        print(line)
    for fault in faults:
        print(f"FAULT: {fault}")
    print("not sound" if faults else "sound: no error, no lost request, an empty queue, stable memory")
    return 1 if faults else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("soak", description="Send many mixed requests to a daemon, and see that all end.")
    parser.add_argument("--model", default=MODEL, help="a model of the store, pulled when missing, or a GGUF file")
    parser.add_argument("--embedder", default=EMBEDDER, help="likewise, for vectors; none: no vectors are asked for")
    parser.add_argument("--count", type=int, default=2000, help="how many requests")
    parser.add_argument("--clients", type=int, default=12, help="how many at a time")
    parser.add_argument("--minutes", type=float, default=60, help="no request is begun later than that")
    parser.add_argument("--seed", type=int, default=1, help="decides which requests, and in which order")
    return parser.parse_args(arguments)


def _soak(wanted: argparse.Namespace, folder: Path) -> Verdict:
    models, home = folder / "models", folder / "home"
    models.mkdir()
    home.mkdir()
    create(model_file(wanted.model), models, "writer")
    embedder = None if wanted.embedder == "none" else "embedder"
    if embedder is not None:
        create(model_file(wanted.embedder), models, embedder)
    requests = make_requests(wanted.seed, wanted.count, "writer", embedder)
    server = puna(home, models, "writer")
    server.environment |= CACHE
    log = home / "soak.log"
    server.command += ["--log-file", str(log)]
    verdict = Verdict()
    with running(server) as daemon:
        assert daemon.process is not None
        started = time.monotonic()
        asyncio.run(_run(daemon.url, daemon.process.pid, requests, wanted, verdict))
        verdict.seconds = time.monotonic() - started
        _look_after(daemon.url, verdict)
    verdict.log_errors = [line for line in log.read_text("utf-8", "replace").splitlines() if " ERROR " in line]
    return verdict


async def _run(url: str, pid: int, requests: list[Request], wanted: argparse.Namespace, verdict: Verdict) -> None:
    tally = verdict.tally
    watching = asyncio.create_task(sample(pid, lambda: tally.total, verdict.samples))
    try:
        await run_clients(url, requests, wanted.clients, tally, time.monotonic() + wanted.minutes * 60)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _look_after(url: str, verdict: Verdict) -> None:
    """Wait until workers say that nothing runs, and note what they say of themselves."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        loaded = httpx.get(f"{url}/api/ps", timeout=30, trust_env=False).json()["models"]
        verdict.restarts = sum(model["restarts"] for model in loaded)
        states = [model["sequences"] for model in loaded if "sequences" in model]
        verdict.left = sum(one["running"] + one["waiting"] for one in states)
        if not verdict.left or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _summary(verdict: Verdict, wanted: argparse.Namespace) -> Iterator[str]:
    tally = verdict.tally
    yield f"{tally.total} requests of {wanted.clients} clients in {verdict.seconds:.0f} s, seed {wanted.seed}"
    for kind in sorted(tally.ended):
        yield f"  {kind:<28}{tally.ended[kind]:>6}{tally.seconds[kind] / tally.ended[kind]:>9.2f} s each"
    for name, points in (("daemon", verdict.samples.daemon), ("workers", verdict.samples.workers)):
        if points:
            slope = growth(points)
            told = "too few samples" if slope is None else f"{slope:+.2f} MB for each thousand requests, second half"
            yield f"memory of the {name}: {points[0][1]:.0f} MB at first, {points[-1][1]:.0f} MB in the end; {told}"
    errors = len(verdict.log_errors)
    yield f"left in the queue: {verdict.left}; restarts: {verdict.restarts}; errors in the log: {errors}"
