"""What a step costs, learned while running: nanoseconds as a function of its rows and of the cells they look at."""

from __future__ import annotations

import math

_REMEMBERED = 0.97
"""Weight of a step once the next one was seen: about the last hundred steps count, so the model follows the machine."""
_OUTLIER = 4.0
"""A step that took so many times the expected time counts as if it had taken that: a neighbour woke up, or it slept."""
_FEW = 4
"""Steps to see before anything is believed."""
_FIT_ALWAYS, _FIT_EVERY = 16, 8
"""The line is fitted after each of the first steps, then after every so many: that takes as long as all else here."""
_STRETCH = 4
"""No more rows are planned than this many times the most that were seen lately: beyond, a line is a guess."""


class StepCost:
    """A line through recent steps: a fixed cost, one for each row, and one for each row and cell it attends to.

    Fitted by weighted least squares in proportion to the steps' own times, so that short steps
    count as much as long ones. No cost is negative.
    """

    def __init__(self) -> None:
        self._products = (0.0,) * 6
        """Of a constant, the rows, and the rows by cells: each with itself and with those after it."""
        self._targets = (0.0,) * 3
        self._costs = (0.0, 0.0, 0.0)
        self._seen = 0
        self._most_rows = 0.0

    @property
    def is_known(self) -> bool:
        return self._seen >= _FEW

    def observe(self, rows: int, cells: int, ns: int) -> None:
        """Learn from a step of `rows` rows with `cells` cells in use."""
        if rows <= 0 or ns <= 0:
            return
        taken = float(ns)
        if self.is_known:
            taken = min(taken, _OUTLIER * max(self.expected(rows, cells), 1.0))
        # Written out, since this is done after each step.
        one, each, attended = 1 / taken, rows / taken, rows * cells / 1000 / taken
        aa, ab, ac, bb, bc, cc = self._products
        self._products = (
            _REMEMBERED * aa + one * one,
            _REMEMBERED * ab + one * each,
            _REMEMBERED * ac + one * attended,
            _REMEMBERED * bb + each * each,
            _REMEMBERED * bc + each * attended,
            _REMEMBERED * cc + attended * attended,
        )
        a, b, c = self._targets
        self._targets = (_REMEMBERED * a + one, _REMEMBERED * b + each, _REMEMBERED * c + attended)
        self._seen += 1
        self._most_rows = max(rows, _REMEMBERED * self._most_rows)
        if self._seen <= _FIT_ALWAYS or self._seen % _FIT_EVERY == 0:
            aa, ab, ac, bb, bc, cc = self._products
            self._costs = _fit([[aa, ab, ac], [ab, bb, bc], [ac, bc, cc]], list(self._targets))

    def expected(self, rows: int, cells: int) -> float:
        """Nanoseconds of a step; 0 while nothing is known."""
        fixed, each, per_cell = self._costs
        return fixed + rows * (each + per_cell * cells / 1000)

    def rows_within(self, ns: float, cells: int, *, beside: int) -> int:
        """How many more rows than `beside` fit into a step of `ns`; 0 or less when those alone fill it."""
        fixed, each, per_cell = self._costs
        row = each + per_cell * cells / 1000
        fitting = math.inf if row <= 0 else (ns - fixed) / row
        return int(min(fitting, max(_STRETCH * self._most_rows, 16))) - beside

    def rows_for(self, ns: float, cells: int) -> int:
        """How many rows make a step longer by `ns`."""
        _, each, per_cell = self._costs
        row = each + per_cell * cells / 1000
        return int(min(ns / row if row > 0 else math.inf, max(_STRETCH * self._most_rows, 16)))

    def prefill(self, tokens: int, cells: int, *, step_rows: int) -> float:
        """Nanoseconds to compute so many tokens of a prompt alone, in steps of `step_rows`."""
        whole, rest = divmod(tokens, step_rows)
        return whole * self.expected(step_rows, cells) + (self.expected(rest, cells) if rest else 0.0)


def _fit(products: list[list[float]], targets: list[float]) -> tuple[float, float, float]:
    """The costs that fit best; one that comes out negative is taken to be nothing, and the others fit again."""
    wanted = [0, 1, 2]
    while wanted:
        found = _solve([[products[i][j] for j in wanted] for i in wanted], [targets[i] for i in wanted])
        worst = min(range(len(wanted)), key=found.__getitem__)
        if found[worst] >= 0:
            costs = [0.0] * 3
            for place, index in enumerate(wanted):
                costs[index] = found[place]
            return costs[0], costs[1], costs[2]
        del wanted[worst]
    return 0.0, 0.0, 0.0


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gaussian elimination; a direction the steps say nothing about comes out as zero."""
    size = len(right)
    # Rows times cells is a thousand times rows: scaled to one size, a pivot shows what is known.
    scale = [math.sqrt(matrix[i][i]) or 1.0 for i in range(size)]
    rows = [[matrix[i][j] / (scale[i] * scale[j]) for j in range(size)] + [right[i] / scale[i]] for i in range(size)]
    known = []
    for i in range(size):
        if rows[i][i] < 1e-6:
            continue
        known.append(i)
        for other in range(size):
            if other != i:
                factor = rows[other][i] / rows[i][i]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[i], strict=True)]
    return [rows[i][size] / rows[i][i] / scale[i] if i in known else 0.0 for i in range(size)]
