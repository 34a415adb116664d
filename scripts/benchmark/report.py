"""The table, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence

from benchmark.goals import LIMIT, Outcome
from benchmark.servers import GIVEN, SHARED_CACHE, SLOT_CACHES, THEIRS

_BESIDE = "beside"
"""The column of Puna's other figure, where one stands in the place of other programs."""
_COLUMNS = {
    "puna": 14,
    _BESIDE: 9,
    THEIRS: 13,
    SHARED_CACHE: 10,
    SLOT_CACHES: 12,
    GIVEN: 10,
    LIMIT: 20,
    "ratio": 6,
    "goal": 10,
    "": 4,
    "values": 6,
}
"""The width of each column behind the title, by what it holds."""
_TITLE_WIDTH = 34


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines for people: a block for each kind of weights."""
    kind: str | None = None
    rows = [(outcome.line, _cells(outcome, ours)) for outcome in outcomes if (ours := outcome.ours) is not None]
    shown = [name for name in _COLUMNS if any(cells.get(name) for _, cells in rows)]
    for line, cells in rows:
        if line.kind != kind:
            kind = line.kind
            yield ""
            # Settings of llama-server stand beside it, by what sets them apart.
            yield _joined(kind or "commands", {name: name.removeprefix(f"{THEIRS}, ") for name in shown})
        yield _joined(line.title, {name: cells.get(name, "") for name in shown})


def missed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.is_reached is False]


def machine() -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "row": outcome.line.title.strip(),
        "weights": outcome.line.kind,
        "unit": outcome.line.unit,
        "puna": outcome.ours,
        "others": outcome.others,
        "ratio": outcome.ratio,
        "goal": outcome.goal_text,
        "reached": outcome.is_reached,
        "values": outcome.values,
    }


def _cells(outcome: Outcome, ours: float) -> dict[str, str]:
    line = outcome.line
    others = {_BESIDE if name == line.beside else name: _number(value) for name, value in outcome.others.items()}
    return {
        "puna": f"{_number(ours)} {line.unit:<5}",
        **others,
        "ratio": "" if outcome.ratio is None or line.is_plain else f"{outcome.ratio:.2f}",
        "goal": outcome.goal_text,
        "": {None: "", True: "ok", False: "NOT"}[outcome.is_reached],
        "values": str(outcome.values),
    }


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _joined(title: str, cells: Mapping[str, str]) -> str:
    return (f"{title:<{_TITLE_WIDTH}}" + "".join(f" {cell:>{_COLUMNS[name]}}" for name, cell in cells.items())).rstrip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - not a file's text
            names: Mapping[str, str] = dict(line.split(":", 1) for line in lines if line.startswith("model name"))
    except (OSError, ValueError):
        return platform.processor()
    return next((name.strip() for name in names.values()), platform.processor())
