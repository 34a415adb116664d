"""How many threads compute a step: as many as the machine carries, or fewer where that is measured to be as quick."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from runner.worker.headroom import Headroom

NARROW_ROWS = 4
"""Up to so many rows a step waits for memory, beyond for arithmetic: the two have counts of their own."""
_REMEMBERED = 16
"""Steps with the count in use that a trial is compared with."""
_TRIAL_STEPS = 15
_ALIKE = 1.5
"""Steps are compared whose rows are at most so many times those of the first of them, or as many times fewer."""
_HOPELESS = 1.2
"""A trial whose steps take so many times as long ends early."""
_GAIN = 0.95
"""What a trial of more threads must come down to; fewer are taken when they are no slower, for the sake of others."""
_CLIP = 4.0
"""A step counts for at most so many times the median: stalls count, a single one does not decide."""
_DRIFT = 1.25
"""Steps that take so many times as long, or as little, as they did: the machine is not what it was."""
_SHARE = 0.01
"""Of all time, what trials may lose."""
_FIRST_PAUSE_NS = 2_000_000_000
_LONGEST_PAUSE_NS = 60_000_000_000


class ThreadControl:
    """Thread counts for narrow and for wide steps, each looked for on its own below the machine's headroom.

    `idle` tells how many processors were at rest since it was last asked, or None when that is not
    known. Times are compared as parts of what steps of their shape are expected to take.
    """

    def __init__(self, most: int, *, is_fixed: bool = False, idle: Callable[[], float | None] | None = None) -> None:
        ladder = [most] if is_fixed else thread_ladder(most)
        self._headroom = Headroom(ladder, idle or (lambda: None))
        self._narrow = _Search(ladder)
        self._wide = _Search(ladder)
        self._is_settled = len(ladder) < 2

    @property
    def narrow(self) -> int:
        """The count that answers are computed with."""
        return self._narrow.count

    @property
    def wide(self) -> int:
        """The count that prompts, and many answers at a time, are computed with."""
        return self._wide.count

    def choose(self, rows: int, now: int) -> int:
        """The count for a step of so many rows that begins at `now`."""
        if self._is_settled:
            return self._narrow.count
        self._headroom.begin(now)
        return self._search(rows).choose(rows, now)

    def observe(self, rows: int, expected_ns: float, ns: int, now: int, *, processor_ns: int | None = None) -> bool:
        """The step that `choose` was last asked for took `ns` and ended at `now`.

        `processor_ns` is what this process took of all processors meanwhile; None where that does
        not tell what threads waited for. False when the step was a trial, whose time says nothing
        of those to come.
        """
        if self._is_settled:
            return True
        search = self._search(rows)
        was_trying = search.is_trying
        if processor_ns is not None and self._headroom.observe(search.current, ns, processor_ns, now):
            self._narrow.set_limit(self._headroom.place, now)
            self._wide.set_limit(self._headroom.place, now)
        elif expected_ns > 0 and search.observe(ns / expected_ns, ns, now):
            # What changed the machine for one kind of steps changed it for the other.
            (self._wide if search is self._narrow else self._narrow).doubt()
        return not was_trying

    def _search(self, rows: int) -> _Search:
        return self._narrow if rows <= NARROW_ROWS else self._wide


class _Search:
    """One count, and the trials of its neighbours on the ladder, up to a limit.

    After a trial that gained nothing the pause before the next one doubles; and it is never so short
    that trials would lose more than their share of the time.
    """

    def __init__(self, ladder: Sequence[int]) -> None:
        self._ladder = ladder
        self._place = self._limit = len(ladder) - 1
        self._trial: int | None = None
        """Place on the ladder of the count that is tried."""
        self._step = -1
        """Where the next trial goes: down or up the ladder."""
        self._rows = 0
        """Of the first of the steps that are compared at the moment."""
        self._known: deque[float] = deque(maxlen=_REMEMBERED)
        self._tried: list[float] = []
        self._lost_ns = 0.0
        self._usual: float | None = None
        """What steps took when the count was last judged."""
        self._judged_ns = 0
        self._next_trial_ns: int | None = None
        """None until the first step."""
        self._earliest_ns = 0
        """Before this there is no trial: the last one cost too much."""
        self._pause_ns = _FIRST_PAUSE_NS

    @property
    def count(self) -> int:
        return self._ladder[self._place]

    @property
    def current(self) -> int:
        """The count of the step that is being computed: the one that is tried, or the one in use."""
        return self._ladder[self._place if self._trial is None else self._trial]

    @property
    def is_trying(self) -> bool:
        return self._trial is not None

    def choose(self, rows: int, now: int) -> int:
        if self._next_trial_ns is None:
            self._next_trial_ns = now + self._pause_ns
        if not self._rows / _ALIKE <= rows <= self._rows * _ALIKE:
            self._begin_anew(rows, now)
        if self._trial is None and self._limit > 0 and now >= self._next_trial_ns and len(self._known) == _REMEMBERED:
            self._begin_trial()
        return self.current

    def _begin_anew(self, rows: int, now: int) -> None:
        """What follows are steps of another shape: what is expected of them is less certain than threads make out."""
        if self._trial is not None:
            self._next_trial_ns = now + self._pause_ns
        self._rows = rows
        self._known.clear()
        self._usual = self._trial = None

    def set_limit(self, place: int, now: int) -> None:
        """No count above this place is to be used; it is what the next steps are computed with."""
        self._place = self._limit = place
        self._trial = self._usual = None
        self._step = -1
        self._judged_ns = now
        self.doubt()

    def doubt(self) -> None:
        """The machine is not what it was."""
        self._known.clear()
        self._pause_ns = _FIRST_PAUSE_NS
        self._next_trial_ns = max(self._judged_ns + _FIRST_PAUSE_NS, self._earliest_ns)

    def observe(self, taken: float, ns: int, now: int) -> bool:
        """How a step went, as a part of what was expected; True when it shows that the machine has changed."""
        if self._trial is not None:
            self._tried.append(taken)
            self._lost_ns += ns * (1 - min(1.0, _typical(self._known) / taken))
            if len(self._tried) > _TRIAL_STEPS or self._is_hopeless():
                self._judge(now)
            return False
        self._known.append(taken)
        if len(self._known) < _REMEMBERED:
            return False
        recent = _typical(self._known)
        if self._usual is None:
            self._usual = recent
        elif not self._usual / _DRIFT <= recent <= self._usual * _DRIFT:
            self._usual = recent
            self._step = -1
            self.doubt()
            return True
        return False

    def _begin_trial(self) -> None:
        place = self._place + self._step
        if not 0 <= place <= self._limit:
            self._step = -self._step
            place = self._place + self._step
        self._trial = place
        self._tried = []
        self._lost_ns = 0.0

    def _is_hopeless(self) -> bool:
        return min(self._tried) > _HOPELESS * _typical(self._known)

    def _judge(self, now: int) -> None:
        assert self._trial is not None
        # The first step wakes threads that slept.
        found, tried = _typical(self._known), _typical(self._tried[1:] or self._tried)
        trial, self._trial = self._trial, None
        self._usual = None
        self._judged_ns = now
        if tried < found * (_GAIN if trial > self._place else 1.0):
            self._place = trial
            self._known = deque(self._tried[1:], maxlen=_REMEMBERED)
            self._pause_ns = _FIRST_PAUSE_NS
        else:
            self._step = -self._step
            self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
        self._earliest_ns = now + int(self._lost_ns / _SHARE)
        self._next_trial_ns = max(now + self._pause_ns, self._earliest_ns)


def thread_ladder(most: int) -> list[int]:
    """The counts worth trying, rising: all threads, and ever fewer by a quarter or a third."""
    ladder = [most]
    while ladder[-1] > 1:
        count = ladder[-1]
        power = 1 << (count.bit_length() - 1)
        # Powers of two and what lies half-way between them: 1, 2, 3, 4, 6, 8, 12, 16, …
        ladder.append(next(step for step in (power * 3 // 2, power, power * 3 // 4, power // 2) if 0 < step < count))
    return ladder[::-1]


def _typical(times: Sequence[float] | deque[float]) -> float:
    """The mean, in which no step counts for more than a few times the median."""
    if not times:
        return math.inf
    ordered = sorted(times)
    limit = _CLIP * ordered[len(ordered) // 2]
    return sum(min(time, limit) for time in ordered) / len(ordered)
