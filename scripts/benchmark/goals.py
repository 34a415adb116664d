"""The lines of the table: what stands beside what, the ratio of the two, and what the ratio is to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.results import Results
from benchmark.servers import GIVEN, PUNA, SHARED_CACHE, SLOT_CACHES, THEIRS
from benchmark.sizes import Sizes
from benchmark.weights import REPACKED

LIMIT = "llama-batched-bench"
SETTINGS = (THEIRS, SHARED_CACHE, SLOT_CACHES, GIVEN)
"""Of llama-server."""


@dataclass(frozen=True)
class Line:
    """One figure of Puna, what it is compared with, and the goal."""

    title: str
    kind: str
    figure: str
    unit: str
    beside: str | None = None
    """Another figure of Puna that takes the place of other servers."""
    against: tuple[str, ...] = SETTINGS
    """The best of these counts."""
    less_is_better: bool = False
    goal: float | None = None
    """What the ratio has to reach; None: there is no goal."""
    is_limit: bool = False
    """The ratio is Puna's figure over the other one and may not exceed the goal."""
    is_plain: bool = False
    """The figure is itself what may not exceed the goal."""


@dataclass(frozen=True)
class Outcome:
    """A line with its numbers; None where nothing was measured."""

    line: Line
    ours: float | None
    others: dict[str, float]
    ratio: float | None
    values: int
    """Of which each number is the median, at least."""

    @property
    def is_reached(self) -> bool | None:
        """None without a goal, or without the numbers."""
        if self.line.goal is None or self.ratio is None:
            return None
        if self.line.is_limit or self.line.is_plain:
            return self.ratio <= self.line.goal
        return self.ratio >= self.line.goal

    @property
    def goal_text(self) -> str:
        if self.line.goal is None:
            return ""
        if self.line.is_plain:
            return f"<= {self.line.goal:g} {self.line.unit}"
        return f"{'<=' if self.line.is_limit else '>='} {self.line.goal:g}"


def lines(kinds: list[str], sizes: Sizes) -> Iterator[Line]:
    """All lines, in the order of the table."""
    for kind in kinds:
        # On weights without a fast kernel the shared prompt is less of the whole.
        prefix = 4.0 if kind == REPACKED else 2.5
        yield Line("one stream", kind, "one_stream", "tok/s", goal=1.0)
        yield Line("one stream, of the raw limit", kind, "one_stream", "tok/s", against=(LIMIT,), goal=0.97)
        for count in sizes.streams:
            yield Line(f"{count} streams", kind, f"streams_{count}", "tok/s", goal=1.15)
        yield Line(
            f"{sizes.prefix_clients} clients, one prefix", kind, "prefix_total", "s", less_is_better=True, goal=prefix
        )
        yield Line("  their first tokens", kind, "prefix_first", "s", less_is_better=True, goal=prefix)
        yield Line("one stream, busy machine", kind, "busy", "tok/s", goal=2.0)
        yield Line("gaps (p99) beside a long prompt", kind, "long_prompt_gap", "ms", less_is_better=True, goal=5.0)
        yield Line("  first token of that prompt", kind, "long_prompt_first", "s", less_is_better=True)
        yield Line(
            "resumed after a restart, of cold",
            kind,
            "resume_known",
            "ms",
            beside="resume_cold",
            goal=0.1,
            is_limit=True,
        )
        yield Line("repeated text, drafting on", kind, "drafting_on", "tok/s", beside="drafting_off", goal=1.5)
        yield Line("  share of the same text", kind, "drafting_same", "", beside="drafting_same", goal=1.0)
        yield Line(f"Python in a step of {sizes.share_rows} rows", kind, "python_share", "%", goal=3.0, is_plain=True)
        yield Line("cold start to the first token", kind, "cold_start", "s", less_is_better=True)
        yield Line("peak memory", kind, "peak_memory", "MB", less_is_better=True)
    yield Line(
        "puna --version, of python", "", "command_version", "ms", beside="command_python", goal=2.5, is_limit=True
    )
    yield Line("puna list, of python", "", "command_list", "ms", beside="command_python", goal=5.0, is_limit=True)


def outcome(line: Line, results: Results) -> Outcome:
    ours = results.median(line.kind, line.figure, PUNA)
    others = {name: results.median(line.kind, line.figure, name) for name in (*SETTINGS, LIMIT)}
    if line.beside is not None:
        others = {line.beside: results.median(line.kind, line.beside, PUNA)}
    known = {name: value for name, value in others.items() if value is not None}
    values = results.values(line.kind, line.figure)
    return Outcome(line, ours, known, _ratio(line, ours, known), values)


def _ratio(line: Line, ours: float | None, others: dict[str, float]) -> float | None:
    """Above 1 when Puna is better, unless the goal is a limit."""
    if ours is None or line.is_plain:
        return ours
    counting = [value for name, value in others.items() if name in (line.beside, *line.against)]
    if not counting:
        return None
    theirs = min(counting) if line.less_is_better else max(counting)
    over, under = (theirs, ours) if line.less_is_better else (ours, theirs)
    return over / under if under else None
