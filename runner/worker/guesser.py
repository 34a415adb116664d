"""How well a draft model guesses, by how sure it is: in one sequence, and in all of them."""

from __future__ import annotations

from collections.abc import Sequence

from runner.draft_model import Guess

_SURE = (0.3, 0.6, 0.85)
"""Chances, in the draft model's opinion, that end a class; guesses of one class are judged together."""
_FIRST_CHANCES = (0.3, 0.5, 0.75, 0.9, 0.7)
"""Of the classes, and of all guesses together."""
_TRUST = 4.0
"""So many guesses what was seen in other sequences is worth, or the first chances."""
_REMEMBERED = 0.95
_FIRST_REST = 32
"""Tokens for which nothing is guessed where it did not seem to pay."""
_LONGEST_REST = 1024


class Record:
    """Counts of guesses and of right ones, by class; what was long ago counts less."""

    __slots__ = ("_right", "_tried")

    def __init__(self, chances: Sequence[float] = _FIRST_CHANCES) -> None:
        """`chances` are those of the classes, and of a guess of which nobody knows the class."""
        self._right = [chance * _TRUST for chance in chances]
        self._tried = [_TRUST] * len(_FIRST_CHANCES)

    @property
    def chances(self) -> list[float]:
        return [right / tried for right, tried in zip(self._right, self._tried, strict=True)]

    @property
    def overall(self) -> float:
        """How likely a guess is right that has not been made yet."""
        return self._right[-1] / self._tried[-1]

    def chance(self, guess: Guess) -> float:
        """How likely a guess is right, if those before it are."""
        place = _class_of(guess)
        return self._right[place] / self._tried[place]

    def note(self, guess: Guess, *, is_right: bool) -> None:
        for place in (_class_of(guess), -1):
            self._right[place] = _REMEMBERED * self._right[place] + is_right
            self._tried[place] = _REMEMBERED * self._tried[place] + 1


class Guesser:
    """Judges the guesses for one sequence, whether they were computed ahead or not, and rests where none pays."""

    __slots__ = ("_common", "_expected", "_pause", "_place", "_rest", "is_trial", "record")

    def __init__(self, common: Record) -> None:
        """`common` is what is known from all sequences, and learns from this one."""
        self._common = common
        self.record = Record(common.chances)
        self._expected: Sequence[Guess] = ()
        self._place = 0
        self._pause = _FIRST_REST
        self._rest = 0
        self.is_trial = False
        """It has rested: a few guesses show whether it is otherwise now."""

    @property
    def is_resting(self) -> bool:
        return self._rest > 0

    def expect(self, guesses: Sequence[Guess]) -> None:
        """These were guessed to come next."""
        self._expected, self._place = guesses, 0
        self.is_trial = False

    def push(self, token: int) -> None:
        """The sequence goes on with `token`."""
        if self._rest:
            self._rest -= 1
            self.is_trial = not self._rest
        if self._place < len(self._expected):
            guess = self._expected[self._place]
            is_right = guess.token == token
            self.record.note(guess, is_right=is_right)
            self._common.note(guess, is_right=is_right)
            self._place = self._place + 1 if is_right else len(self._expected)

    def rest(self) -> None:
        """It does not seem to pay: longer each time."""
        self._rest, self._pause = self._pause, min(2 * self._pause, _LONGEST_REST)
        self.is_trial = False

    def has_paid(self) -> None:
        """It seems to pay: the next rest is a short one."""
        self._pause = _FIRST_REST


def _class_of(guess: Guess) -> int:
    return sum(guess.chance >= end for end in _SURE)
