"""Which guesses go into a step, and what they cost there."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence as ReadOnlySequence

from runner.engine import MAX_DRAFTED_ROWS, LoadedModel, MemoryKind
from runner.worker.drafting import MAX_DRAFT, DraftCost, Drafter, worthwhile
from runner.worker.scheduler import PlannedChunk
from runner.worker.sequence import Sequence
from runner.worker.step_cost import StepCost

_PATIENCE = 1.5
"""A step shared with others may take so many times as long for the guesses of one, or the target if that is more."""


class DraftPlan:
    """Chooses guesses for answers in progress where they pay; none where wrong ones could not be forgotten."""

    def __init__(self, model: LoadedModel, cost: StepCost, step_target_ns: int) -> None:
        self._can_forget = model.memory is MemoryKind.CELLS
        self._max_rows = model.max_rows
        self._cost = cost
        self._step_target_ns = step_target_ns
        self._draft_cost = DraftCost()
        self._has_paused = False

    def guesses(self, planned: ReadOnlySequence[PlannedChunk], *, cells: int, free: int) -> list[list[int]]:
        """For each of a step's chunks what to compute ahead, with `cells` in use and `free` beside what is pending."""
        chosen: list[list[int]] = [[] for _ in planned]
        if self._has_paused or not self._can_draft(planned):
            self._has_paused = False
            return chosen
        rows, tokens = len(planned), float(len(planned))
        step_ns = self._cost.expected(rows, cells)
        row_ns = self._cost.expected(rows + 1, cells) - step_ns
        room, drafted = min(MAX_DRAFTED_ROWS, self._max_rows - rows, free), 0
        for place, item in enumerate(planned):
            drafter = _drafter_of(item.sequence)
            found = _known(drafter.guesses(min(room - drafted, _most(item.sequence))))
            chances = drafter.chances(len(found))
            count = self._worthwhile(chances, tokens, step_ns, row_ns, drafted, is_shared=rows > 1)
            chosen[place] = found[:count]
            drafted += count
            tokens += sum(itertools.accumulate(chances[:count], operator.mul))
            if found and not count:
                self._draft_cost.doubt()
        return chosen

    def _worthwhile(
        self, chances: list[float], tokens: float, step_ns: float, row_ns: float, drafted: int, *, is_shared: bool
    ) -> int:
        def extra_ns(count: int) -> float:
            return self._draft_cost.extra_ns(drafted + count, row_ns)

        spent_ns = extra_ns(0) if drafted else 0.0
        patience = max(_PATIENCE * step_ns, self._step_target_ns) if is_shared else math.inf
        while chances and step_ns + extra_ns(len(chances)) > patience:
            chances = chances[:-1]
        return worthwhile(
            chances, tokens=tokens, step_ns=step_ns + spent_ns, extra_ns=lambda count: extra_ns(count) - spent_ns
        )

    def observe(self, rows: int, drafted: int, cells: int, ns: int) -> None:
        """A step of `rows` rows, `drafted` of them guesses, took `ns`."""
        if drafted:
            self._draft_cost.observe(drafted, ns, self._cost.expected(rows - drafted, cells))

    def pause(self) -> None:
        """There was no room for the step: the next one is to be without guesses."""
        self._has_paused = True

    def _can_draft(self, planned: ReadOnlySequence[PlannedChunk]) -> bool:
        if not self._can_forget or not self._cost.is_known:
            return False
        return all(item.sequence.is_decoding and not item.sequence.faults for item in planned)


def _drafter_of(sequence: Sequence) -> Drafter:
    if sequence.drafter is None:
        sequence.drafter = Drafter(sequence.tokens)
    return sequence.drafter


def _most(sequence: Sequence) -> int:
    """No more than were asked for, and one fewer than the answer or its window has room for."""
    wanted = sequence.request.limits.num_draft
    most = MAX_DRAFT if wanted is None else min(wanted, MAX_DRAFTED_ROWS)
    answer = sequence.answer
    if answer.max_generated is not None:
        most = min(most, answer.max_generated - answer.generated - 1)
    return max(min(most, sequence.window - len(sequence.tokens) - 1), 0)


def _known(guesses: list[int]) -> list[int]:
    """Up to the first place that is no text."""
    return guesses[: next((place for place, token in enumerate(guesses) if token < 0), len(guesses))]
