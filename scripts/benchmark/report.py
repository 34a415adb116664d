"""The table, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence

from benchmark.goals import LIMIT, Outcome
from benchmark.servers import THEIRS, THEIRS_BEST

_HEAD = ("", "puna", "llama-server", "tuned", "limit", "ratio", "goal", "", "values")
_WIDTHS = (34, 14, 13, 10, 10, 8, 10, 4, 6)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines for people: a block for each kind of weights."""
    kind: str | None = None
    for outcome in outcomes:
        if outcome.ours is None:
            continue
        if outcome.line.kind != kind:
            kind = outcome.line.kind
            yield ""
            yield _joined((kind or "commands", *_HEAD[1:]))
        yield _joined(_cells(outcome))


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


def _cells(outcome: Outcome) -> tuple[str, ...]:
    line, others = outcome.line, outcome.others
    beside = others.get(line.beside) if line.beside is not None else None
    verdict = {None: "", True: "ok", False: "NOT"}[outcome.is_reached]
    return (
        line.title,
        f"{_number(outcome.ours)} {line.unit:<5}",
        _number(others.get(THEIRS)) if beside is None else f"({_number(beside)})",
        _number(others.get(THEIRS_BEST)),
        _number(others.get(LIMIT)),
        "" if outcome.ratio is None or line.is_plain else f"{outcome.ratio:.2f}",
        outcome.goal_text,
        verdict,
        str(outcome.values),
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _joined(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _WIDTHS, strict=True)
    return (f"{first[0]:<{first[1]}}" + "".join(f" {cell:>{width}}" for cell, width in rest)).rstrip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - not a file's text
            names: Mapping[str, str] = dict(line.split(":", 1) for line in lines if line.startswith("model name"))
    except (OSError, ValueError):
        return platform.processor()
    return next((name.strip() for name in names.values()), platform.processor())
