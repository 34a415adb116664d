"""Which guesses go into a step, and what they cost there."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from collections.abc import Sequence as ReadOnlySequence

from runner.draft_model import Guess
from runner.engine import MAX_DRAFTED_ROWS, Engine
from runner.loaded_model import MemoryKind
from runner.worker.draft_cells import DraftCells
from runner.worker.drafting import MAX_DRAFT, SURE_GAIN, DraftCost, Drafter, worthwhile
from runner.worker.guesser import Guesser, Record
from runner.worker.scheduler import PlannedChunk
from runner.worker.sequence import Sequence
from runner.worker.step_cost import StepCost

_PATIENCE = 1.5
"""A step shared with others may take so many times as long for the guesses of one, or the target if that is more."""
_SHARED_GAIN = 1.5
"""What the guesses of one answer have to gain where others wait for the step, and have nothing of them."""
_MOST_GUESSED = 8
"""Tokens that a draft model guesses at a time, unless more are asked for."""
_TRIAL = 3
_BEST = 0.95
"""What a trial may hope for: where not even that would pay, there is none."""
_UNLIKELY = 0.15
"""Guessing ends where all guesses so far being right is no likelier than this."""
_BELIEF_KEPT = 0.9
"""Of the draft model's price, with each time that it keeps guesses from being tried."""
_CATCH_UP_PART = 4
"""Reading what was said so far takes the draft model one part in so many of the step target while others wait."""
_UNMEASURED_ROWS = 64
_USUAL_ANSWER = 256
"""Tokens still to come in an answer without a limit, when it is asked whether catching up is worth it."""


class DraftPlan:
    """Chooses guesses for answers in progress where they pay; none where wrong ones could not be forgotten.

    What follows an earlier place like this one in the text itself costs nothing to find and goes
    first; the draft model, where there is one, is asked for the others. One judgement decides on both.
    """

    def __init__(self, engine: Engine, cost: StepCost, step_target_ns: int, clock: Callable[[], int]) -> None:
        info = engine.info
        self._can_forget = info.memory is MemoryKind.CELLS
        self._max_rows = info.max_rows
        self._cost = cost
        self._step_target_ns = step_target_ns
        self._draft_cost = DraftCost()
        self._has_paused = False
        self._model = DraftCells(engine.draft, info.max_sequences, clock) if engine.draft is not None else None
        self._ends_generation = engine.ends_generation
        self._record = Record()
        self._belief = 1.0

    def guesses(self, planned: ReadOnlySequence[PlannedChunk], *, cells: int, free: int) -> list[list[int]]:
        """For each of a step's chunks what to compute ahead, with `cells` in use and `free` beside what is pending."""
        chosen: list[list[int]] = [[] for _ in planned]
        if self._has_paused or not self._can_draft(planned):
            self._has_paused = False
            return chosen
        room = min(MAX_DRAFTED_ROWS, self._max_rows - len(planned), free)
        candidates = [_known(_drafter_of(item.sequence).guesses(min(room, _most(item.sequence)))) for item in planned]
        if self._model is None and not any(candidates):
            return chosen
        step = _Step(self._cost, self._draft_cost, len(planned), cells, self._step_target_ns)
        step.room = room
        for place, item in enumerate(planned):
            found = candidates[place][: step.room]
            chances = _drafter_of(item.sequence).chances(len(found))
            count = step.worthwhile(chances)
            chosen[place] = found[:count]
            step.add(chances[:count])
            if count:
                item.sequence.drafts = item.sequence.found
            elif found:
                self._draft_cost.doubt()
        if self._model is not None and step.room > 0:
            self._ask_model(self._model, step, [item.sequence for item in planned], chosen)
        return chosen

    def observe(self, rows: int, drafted: int, cells: int, ns: int) -> None:
        """A step of `rows` rows, `drafted` of them guesses, took `ns`."""
        if drafted:
            self._draft_cost.observe(drafted, ns, self._cost.expected(rows - drafted, cells))

    def pause(self) -> None:
        """There was no room for the step: the next one is to be without guesses."""
        self._has_paused = True

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended, or its tokens are not those that they were."""
        if self._model is not None:
            self._model.let_go([sequence])

    def restart(self, window: int) -> None:
        """The window is another one."""
        if self._model is not None:
            self._model.restart(window)

    def _can_draft(self, planned: ReadOnlySequence[PlannedChunk]) -> bool:
        if not self._can_forget or not self._cost.is_known:
            return False
        return all(item.sequence.is_decoding and not item.sequence.faults for item in planned)

    # --- the draft model --------------------------------------------------------------------------

    def _ask_model(self, model: DraftCells, step: _Step, sequences: list[Sequence], chosen: list[list[int]]) -> None:
        asking = [one for one, guesses in zip(sequences, chosen, strict=True) if not guesses]
        wanted = self._wanted(model, step, [one for one in asking if self._may_ask(model, one)])
        if not wanted:
            return
        likely = dict.fromkeys(wanted, 1.0)

        def goes_on(sequence: Sequence, guess: Guess) -> bool:
            likely[sequence] *= _guesser_of(sequence, self._record).record.chance(guess)
            return likely[sequence] > _UNLIKELY and not self._ends_generation(guess.token)

        found = model.guess(wanted, self._rows_to_catch_up(model, step), goes_on)
        if found:
            self._belief = 1.0
        for sequence, guesses in found.items():
            guesser = _guesser_of(sequence, self._record)
            guesser.expect(guesses)
            chances = [guesser.record.chance(guess) for guess in guesses[: step.room]]
            count = step.worthwhile(chances)
            chosen[sequences.index(sequence)] = [guess.token for guess in guesses[:count]]
            step.add(chances[:count])
            sequence.drafts = sequence.guessed

    def _may_ask(self, model: DraftCells, sequence: Sequence) -> bool:
        if not sequence.request.limits.uses_draft_model or _guesser_of(sequence, self._record).is_resting:
            return False
        most = _most_of_model(sequence)
        return most > 0 and model.can_guess(sequence, most) and self._is_catching_up_worth_it(model, sequence)

    def _wanted(self, model: DraftCells, step: _Step, asking: list[Sequence]) -> dict[Sequence, int]:
        """How many guesses to ask for, for each sequence for which some seem to pay, or may be tried."""
        each_ns = model.cost.expected(len(asking), model.used) / len(asking) if asking else 0.0
        wanted = {}
        for sequence in asking:
            guesser = _guesser_of(sequence, self._record)
            most = min(_most_of_model(sequence), step.room)
            count = step.worthwhile([guesser.record.overall] * most, lambda count: self._belief * count * each_ns)
            if count:
                guesser.has_paid()
            elif step.worthwhile([_BEST] * most, lambda count: self._belief * count * each_ns):
                count = min(_TRIAL, most) if guesser.is_trial else 0
            else:
                self._belief *= _BELIEF_KEPT
            if count:
                wanted[sequence] = count
            else:
                guesser.rest()
        return wanted

    def _rows_to_catch_up(self, model: DraftCells, step: _Step) -> int:
        if not model.cost.is_known:
            return _UNMEASURED_ROWS
        patience = self._step_target_ns / (_CATCH_UP_PART if step.is_shared else 1)
        return model.cost.rows_within(patience, model.used, beside=0)

    def _is_catching_up_worth_it(self, model: DraftCells, sequence: Sequence) -> bool:
        """Whether the answer may be long enough for it."""
        answer = sequence.answer
        left = _USUAL_ANSWER if answer.max_generated is None else answer.max_generated - answer.generated
        reading = model.cost.prefill(model.behind(sequence), model.used, step_rows=_UNMEASURED_ROWS)
        return 2 * reading <= left * self._cost.expected(1, model.used)


class _Step:
    """A step that is being planned: what it gives and takes with the guesses that were chosen so far."""

    def __init__(self, cost: StepCost, draft_cost: DraftCost, rows: int, cells: int, target_ns: int) -> None:
        self.is_shared = rows > 1
        self.room = 0
        """Guesses that there is still room for."""
        self._draft_cost = draft_cost
        self._tokens = float(rows)
        self._drafted = 0
        self._step_ns = cost.expected(rows, cells)
        self._row_ns = cost.expected(rows + 1, cells) - self._step_ns
        self._patience = max(_PATIENCE * self._step_ns, target_ns) if self.is_shared else math.inf

    def worthwhile(self, chances: list[float], finding_ns: Callable[[int], float] = lambda _count: 0.0) -> int:
        """How many more guesses pay, when finding so many takes `finding_ns`."""
        spent_ns = self._verifying_ns(0) if self._drafted else 0.0

        def extra_ns(count: int) -> float:
            return self._verifying_ns(count) + finding_ns(count)

        while chances and self._step_ns + max(extra_ns(len(chances)), self._rows_ns(len(chances))) > self._patience:
            chances = chances[:-1]
        return worthwhile(
            chances,
            tokens=self._tokens,
            step_ns=self._step_ns + spent_ns,
            extra_ns=lambda count: extra_ns(count) - spent_ns,
            gain=_SHARED_GAIN if self.is_shared else SURE_GAIN,
        )

    def add(self, chances: list[float]) -> None:
        """These were chosen."""
        self.room -= len(chances)
        self._drafted += len(chances)
        self._tokens += sum(itertools.accumulate(chances, operator.mul))

    def _rows_ns(self, more: int) -> float:
        """What rows of any kind would take, whatever is believed of guesses."""
        return (self._drafted + more) * self._row_ns

    def _verifying_ns(self, more: int) -> float:
        return self._draft_cost.extra_ns(self._drafted + more, self._row_ns)


def _drafter_of(sequence: Sequence) -> Drafter:
    if sequence.drafter is None:
        sequence.drafter = Drafter(sequence.tokens)
    return sequence.drafter


def _guesser_of(sequence: Sequence, common: Record) -> Guesser:
    if sequence.guesser is None:
        sequence.guesser = Guesser(common)
    return sequence.guesser


def _most(sequence: Sequence) -> int:
    """No more than were asked for, and one fewer than the answer or its window has room for."""
    wanted = sequence.request.limits.num_draft
    most = MAX_DRAFT if wanted is None else min(wanted, MAX_DRAFTED_ROWS)
    answer = sequence.answer
    if answer.max_generated is not None:
        most = min(most, answer.max_generated - answer.generated - 1)
    return max(min(most, sequence.window - len(sequence.tokens) - 1), 0)


def _most_of_model(sequence: Sequence) -> int:
    most = _most(sequence)
    return min(most, _MOST_GUESSED) if sequence.request.limits.num_draft is None else most


def _known(guesses: list[int]) -> list[int]:
    """Up to the first place that is no text."""
    return guesses[: next((place for place, token in enumerate(guesses) if token < 0), len(guesses))]
