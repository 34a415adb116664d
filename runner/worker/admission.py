"""Who may start, and who gives way when the KV cells run out."""

from __future__ import annotations

import math

from runner.worker.growth import Growth
from runner.worker.keeper import Keeper
from runner.worker.scheduler import Scheduler
from runner.worker.sequence import Sequence

AHEAD_PART = 64
"""A larger window is asked for when every answer may go on for one part in so many of this one, and no longer."""


class Admission:
    """Moves sequences between waiting and running, as the cells allow.

    Counts the tokens that exist, never those a request might still generate; so the cells can run
    out. Then what only rests in them goes first, and after that one sequence is parked: it waits,
    begins again where it was, and nobody sees more than a pause.
    """

    def __init__(self, scheduler: Scheduler, keeper: Keeper, growth: Growth) -> None:
        self._scheduler = scheduler
        self._keeper = keeper
        self._growth = growth
        self.parked = 0
        """How often a sequence had to give way."""
        self._is_full = False
        """The engine ran out of cells although the count allowed it: nobody starts until a sequence ends."""

    def add(self, sequence: Sequence) -> None:
        """A sequence waits to be admitted."""
        self._scheduler.add(sequence)

    def outgrown(self) -> list[Sequence]:
        """Those that have filled the window, and no larger one will come: their own was only a wish."""
        room = self._keeper.engine.info.context_length
        full = [
            sequence
            for sequence in (*self._scheduler.running, *self._scheduler.waiting)
            if len(sequence.tokens) > room and not self._growth.may_give(len(sequence.tokens))
        ]
        for sequence in full:
            sequence.window = room
        return full

    def make_room(self) -> bool:
        """See that the pending tokens of all running sequences fit; False while a larger window may come for them."""
        while not self._keeper.free_cells(pending := self._scheduler.pending):
            if self._growth.may_give(self._keeper.ledger.used + pending):
                return False
            victim = self._scheduler.victim()
            if victim is None:
                break
            self._park(victim)
        self._look_ahead(pending)
        return True

    def admit(self, now: int) -> int | None:
        """Start those that wait, the most urgent first, while there is room; when to ask again, if time decides."""
        ask_again: float = math.inf
        for sequence in self._scheduler.candidates():
            if self._is_full:
                break
            if wait := self._keeper.wait_for(sequence, now):
                ask_again = min(ask_again, math.inf if wait.until_ns is None else wait.until_ns)
            elif self._has_room(sequence):
                self._scheduler.start(sequence)
                self._keeper.begin(sequence)
            else:
                break  # the next one may be smaller, but this one has waited longer
        return None if ask_again == math.inf else int(ask_again)

    def give_way(self) -> bool:
        """The engine has fewer cells than it said: one sequence waits until another has ended. False when one runs."""
        if self._keeper.let_one_go():
            return True
        victim = self._scheduler.victim()
        if victim is None:
            return False
        self._is_full = True
        self._park(victim)
        return True

    def end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """A sequence is over; with `keep` its cells may serve others."""
        self._scheduler.remove(sequence)
        if sequence.sequence_id is None:
            return
        self._is_full = False
        if not keep:
            self._keeper.forget(sequence)
        self._keeper.release(sequence)

    def _look_ahead(self, pending: int) -> None:
        """Ask for a larger window before the answers in progress need it: by then it may be there."""
        window, running = self._keeper.engine.info.context_length, self._scheduler.running
        used, ahead = self._keeper.ledger.used + pending, window // AHEAD_PART
        if used + ahead * len(running) > window:
            coming = sum(min(sequence.most_coming, ahead) for sequence in running)
            if used + coming > window:
                self._growth.may_give(used + coming)

    def _has_room(self, sequence: Sequence) -> bool:
        while True:
            needed = len(sequence.tokens) + 1 - self._keeper.shared_cells(sequence)
            promised = self._scheduler.pending + len(self._scheduler.running)
            # What rests goes before anybody waits; going, it takes what it shared along, hence the second look.
            if self._scheduler.has_place and (
                self._keeper.free_cells(needed + promised) or not self._scheduler.running
            ):
                if needed == len(sequence.tokens) + 1 - self._keeper.shared_cells(sequence):
                    return True
                continue
            if self._scheduler.has_place and self._growth.may_give(self._keeper.ledger.used + needed + promised):
                return False
            victim = self._scheduler.gives_way_to(sequence)
            if victim is None:
                return False
            self._park(victim)

    def _park(self, sequence: Sequence) -> None:
        self._scheduler.put_back(sequence)
        self._keeper.park(sequence)
        self.parked += 1
