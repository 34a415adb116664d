"""The rounds: in each, every server answers every row, one right after the other, so that a slow minute of the
machine hits all of them. Rows that are over in a second are asked several times in turn."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmark import prompts, servers
from benchmark.client import ask
from benchmark.commands import command_times
from benchmark.goals import LIMIT
from benchmark.limit import raw_limit
from benchmark.own_rows import OWN_ROWS, resume
from benchmark.results import Results
from benchmark.rows import ROWS, Figures, Row, streams
from benchmark.servers import GIVEN, PUNA, Server, running
from benchmark.sizes import FULL, QUICK, Sizes
from benchmark.weights import Weights

NAMES = ("one", "streams", "prefix", "busy", "long", "resume", "drafting", "python", "cold", "memory", "commands")


class OutOfTime(Exception):
    """The run has taken as long as it may."""


@dataclass
class Bench:
    """One whole run."""

    wanted: argparse.Namespace
    weights: list[Weights]
    folder: Path
    deadline: float
    results: Results = field(default_factory=Results)
    commands: dict[str, list[str]] = field(default_factory=dict)
    """How each server was started last."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What each row took, of all servers and rounds together."""

    def __post_init__(self) -> None:
        self.sizes: Sizes = QUICK if self.wanted.quick else FULL
        self.rounds = 1 if self.wanted.quick else self.wanted.runs
        alone = self.wanted.alone
        self.llama_server = None if alone else self.wanted.llama_server or servers.find_program("llama-server")
        self.batched_bench = None if alone else self.wanted.batched_bench or servers.find_program("llama-batched-bench")
        self.programs = [path for path in (self.llama_server, self.batched_bench) if path is not None]

    def run(self) -> None:
        """Raises OutOfTime and Refused; what was measured until then stays."""
        for number in range(self.rounds):
            for weights in self.weights:
                self._round(number, weights)
        if sys.stderr.isatty():
            print(f"\r{'':<78}\r", end="", file=sys.stderr)

    def _round(self, number: int, weights: Weights) -> None:
        self._check_time()
        home = self.folder / f"home-{weights.kind}-{number}"
        home.mkdir()
        kind = weights.kind
        with ExitStack() as stack:
            started = [self._start(stack, server, number, kind) for server in self._servers(weights, home)]
            # Whoever goes first in one round goes last in another.
            turn = number % len(started)
            for name, row in self._rows():
                for server in (*started[turn:], *started[:turn]) * self.sizes.repeats.get(name, 1):
                    self._measure(name, number, kind, server.name, partial(_asked, row, server, self.sizes))
            [ours] = [server for server in started if server.name == PUNA]
            for name, own in OWN_ROWS.items():
                if self._wants(name):
                    self._measure(name, number, kind, PUNA, partial(own, ours, self.sizes))
            if self._wants("memory"):
                for server in started:
                    self.results.add(kind, server.name, {"peak_memory": server.peak_memory()})
            if self._wants("commands") and weights is self.weights[0]:
                self._measure("commands", number, "", PUNA, lambda: command_times(ours, self.sizes.command_runs))
        program = self.batched_bench
        if program is not None and (self._wants("one") or self._wants("streams")):
            sizes = self.sizes
            for _ in range(sizes.repeats.get("streams", 1)):
                self._measure(
                    "one",
                    number,
                    kind,
                    LIMIT,
                    lambda: raw_limit(program, weights.file, sizes.streams, sizes.limit_tokens),
                )
        if self._wants("resume"):
            models = self.folder / "models"
            self._measure("resume", number, kind, PUNA, lambda: resume(home, models, weights.name, self.sizes))

    def _servers(self, weights: Weights, home: Path) -> list[Server]:
        found = [servers.puna(home, self.folder / "models", weights.name)]
        if self.llama_server is not None:
            sizes = self.sizes
            settings = servers.llama_settings(max(sizes.streams), sizes.cells, sizes.slot_cells)
            if self.wanted.tuned is not None:
                settings[GIVEN] = self.wanted.tuned.split()
            for name, options in settings.items():
                found.append(servers.llama_server(self.llama_server, weights.file, options, name))
        self.commands = {server.name: server.command for server in found}
        return found

    def _start(self, stack: ExitStack, server: Server, number: int, kind: str) -> Server:
        """Start it, and have its model loaded; how long that took is a figure."""
        self._say(number, kind, server.name, "cold start")
        begun = time.perf_counter()
        stack.enter_context(running(server))
        if server.name == PUNA:  # its model is loaded by the first request, and the daemon stays for all models
            begun = time.perf_counter()
        answer = asyncio.run(ask(server, prompts.story(0, 2)))
        if self._wants("cold"):
            self.results.add(kind, server.name, {"cold_start": answer.sent - begun + answer.first_token})
        asyncio.run(ask(server, prompts.story(1, 8)))
        return server

    def _rows(self) -> list[tuple[str, Row]]:
        """The wanted rows that every server answers."""
        rows = dict[str, list[Row]]({name: [row] for name, row in ROWS.items()})
        rows["streams"] = [streams(count) for count in self.sizes.streams]
        return [(name, row) for name in NAMES if self._wants(name) for row in rows.get(name, ())]

    def _measure(self, name: str, number: int, kind: str, server: str, row: Callable[[], Figures]) -> None:
        self._check_time()
        self._say(number, kind, server, name)
        begun = time.monotonic()
        self.results.add(kind, server, row())
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def _wants(self, name: str) -> bool:
        return name in self.wanted.only

    def _say(self, number: int, kind: str, server: str, what: str) -> None:
        doing = f"round {number + 1}/{self.rounds}: {kind}: {server}: {what}"
        if sys.stderr.isatty():
            print(f"\r{doing:<78}", end="", flush=True, file=sys.stderr)


def _asked(row: Row, server: Server, sizes: Sizes) -> Figures:
    return asyncio.run(row(server, sizes))
