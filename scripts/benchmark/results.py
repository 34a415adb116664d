"""What was measured: figures by weights, name and server, one value for each time it was measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping

Key = tuple[str, str]
"""The kind of the weights (empty where they do not matter) and the name of the figure."""


class Results:
    """Collects the figures of all rounds."""

    def __init__(self) -> None:
        self._values: defaultdict[Key, dict[str, list[float]]] = defaultdict(dict)

    def add(self, kind: str, server: str, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._values[kind, name].setdefault(server, []).append(value)

    def median(self, kind: str, name: str, server: str) -> float | None:
        values = self._values.get((kind, name), {}).get(server)
        return statistics.median(values) if values else None

    def values(self, kind: str, name: str) -> int:
        """How many values the scarcest server has; 0 without any."""
        return min((len(values) for values in self._values.get((kind, name), {}).values()), default=0)

    def as_json(self) -> list[dict[str, object]]:
        return [
            {"weights": kind, "figure": name, "server": server, "values": values, "median": statistics.median(values)}
            for (kind, name), servers in self._values.items()
            for server, values in servers.items()
        ]
