"""Counting cells that sequences share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.ledger import CellLedger

_kinds = st.sampled_from(["grow", "copy", "cut", "remove", "shift"])
_actions = st.lists(st.tuples(_kinds, st.integers(0, 4), st.integers(0, 4), st.integers(0, 9)), max_size=60)


@given(_actions)
def test_a_shared_cell_counts_once(actions: list[tuple[str, int, int, int]]) -> None:
    ledger = CellLedger()
    model: dict[int, list[object]] = {}
    for action, first, second, number in actions:
        held = model.get(first, [])
        match action:
            case "grow":
                model[first] = held + [object() for _ in range(number)]
                ledger.grow(first, number)
            case "copy" if held and first != second:
                model[second] = held[: number % (len(held) + 1)]
                ledger.remove(second)
                ledger.copy(first, second, len(model[second]))
            case "cut" if held:
                model[first] = held[: number % (len(held) + 1)]
                ledger.cut(first, len(model[first]))
            case "remove":
                model.pop(first, None)
                ledger.remove(first)
            case "shift" if len(held) > ledger.own_from(first):
                own = len(held) - ledger.own_from(first)
                discard = number % (own + 1)
                model[first] = held[: len(held) - discard]
                ledger.shift(first, discard)
        assert ledger.used == len({id(cell) for cells in model.values() for cell in cells})
        for name, cells in model.items():
            assert ledger.length(name) == len(cells)
            others = {id(cell) for other, held in model.items() if other != name for cell in held}
            assert not any(id(cell) in others for cell in cells[ledger.own_from(name) :])
