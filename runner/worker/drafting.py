"""Guesses at the tokens to come, taken from the text so far, and when computing them ahead pays.

An answer that quotes, edits or summarises repeats long stretches of its prompt. A step that computes
the next tokens of such a stretch together with the last one gives as many tokens as were guessed
right. How many rows that is worth depends on how often guesses after so long a match were right in
this answer, and on what rows cost on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.worker.step_cost import StepCost

MAX_DRAFT = 24
"""Most tokens guessed for one sequence in one step."""
_KEY = 3
"""Tokens that have to match before anything is guessed."""
_CANDIDATES = 8
"""Earlier places that are compared, the latest first."""
_LONGEST_MATCH = 32
_CLASSES = (4, 8, 16)
"""Lengths of matches that end a class; guesses of one class are judged together."""
_FIRST_CHANCES = (0.4, 0.6, 0.8, 0.9)
_TRUST = 4.0
"""So many guesses the first chances are worth."""
_REMEMBERED = 0.95
_BELIEF_KEPT = 0.998
"""Of a price, with each step that has no guesses because of it."""
_FIRST_GUESSES = 4
"""Tokens guessed at a place of which nothing has come again yet; twice as many as have, later on."""
SURE_GAIN = 1.1
"""What guesses have to gain at least: costs are not known exactly."""


class Drafter:
    """Finds where the end of one sequence stood before, and counts how often what followed came again.

    Guesses are judged whether they are computed ahead or not, so a text that begins to repeat itself
    is noticed without cost. Microseconds a token.
    """

    __slots__ = ("_earlier", "_latest", "_match", "_repeated", "_right", "_source", "_tokens", "_tried")

    def __init__(self, tokens: Sequence[int]) -> None:
        """`tokens` is all there is so far; `push` tells of each that follows."""
        self._tokens: list[int] = []
        self._latest: dict[tuple[int, ...], int] = {}
        """After which place the latest of equal keys ends."""
        self._earlier: list[int] = []
        """For each place: where a key like the one that ends before it ended earlier; -1 for nowhere."""
        self._source = -1
        self._match = 0
        """Tokens before `_source` that are like those at the end."""
        self._repeated = 0
        """Guesses from there that were right, one after another."""
        self._right = [chance * _TRUST for chance in _FIRST_CHANCES]
        self._tried = [_TRUST] * len(_FIRST_CHANCES)
        for token in tokens:
            self._index(token)
        self._search()

    def push(self, token: int) -> None:
        """The sequence goes on with `token`."""
        if self._source >= 0:
            place, is_right = _class_of(self._match), self._tokens[self._source] == token
            self._right[place] = _REMEMBERED * self._right[place] + is_right
            self._tried[place] = _REMEMBERED * self._tried[place] + 1
            if is_right:
                self._source += 1
                self._match += 1
                self._repeated += 1
            else:
                self._source = -1
                self._repeated = 0
        self._index(token)
        if self._source < 0 or self._match <= _CLASSES[-1]:
            self._search()

    def guesses(self, most: int) -> list[int]:
        """The tokens that may come next; none when the end was never seen before."""
        if self._source < 0 or most <= 0:
            return []
        most = min(most, max(2 * self._repeated, _FIRST_GUESSES))
        return self._tokens[self._source : self._source + most]

    def chances(self, count: int) -> list[float]:
        """How likely each of the next `count` guesses is right, if those before it are."""
        places = [_class_of(self._match + ahead) for ahead in range(count)]
        return [self._right[place] / self._tried[place] for place in places]

    def _index(self, token: int) -> None:
        tokens = self._tokens
        tokens.append(token)
        if len(tokens) < _KEY:
            self._earlier.append(-1)
            return
        key = tuple(tokens[-_KEY:])
        self._earlier.append(self._latest.get(key, -1))
        self._latest[key] = len(tokens)

    def _search(self) -> None:
        """Find the earlier place with the longest match; of equal ones the latest."""
        best, source = 0, -1
        place = self._earlier[-1] if self._earlier else -1
        for _ in range(_CANDIDATES):
            if place < 0:
                break
            length = self._match_at(place)
            if length > best:
                best, source = length, place
            place = self._earlier[place - 1]
        if source >= 0 and (self._source < 0 or best > self._match):
            self._source, self._match = source, best

    def _match_at(self, place: int) -> int:
        tokens, end, length = self._tokens, len(self._tokens), 0
        while length < min(place, _LONGEST_MATCH) and tokens[place - 1 - length] == tokens[end - 1 - length]:
            length += 1
        return length


class DraftCost:
    """What guesses add to a step, learned from steps that had some.

    A line, for the second row often costs far more than those after it. While its price keeps guesses
    from being computed it is slowly believed less, so that one stalled step is not the last word.
    """

    def __init__(self) -> None:
        self._line = StepCost()
        self._is_known = False
        self._belief = 1.0

    def extra_ns(self, count: int, row_ns: float) -> float:
        """Nanoseconds that `count` guesses take; `row_ns` is what a row takes as long as no step had any."""
        return self._belief * self._line.expected(count, 0) if self._is_known else count * row_ns

    def observe(self, count: int, ns: int, without_ns: float) -> None:
        """A step with `count` guesses took `ns`, and would have taken `without_ns` without them."""
        self._line.observe(count, 0, max(int(ns - without_ns), 1))
        self._is_known = True
        self._belief = 1.0

    def doubt(self) -> None:
        """There were guesses, and they did not seem to be worth their price."""
        self._belief *= _BELIEF_KEPT


def worthwhile(
    chances: Sequence[float],
    *,
    tokens: float,
    step_ns: float,
    extra_ns: Callable[[int], float],
    gain: float = SURE_GAIN,
) -> int:
    """How many guesses give the most tokens in the time, beside `tokens` in a step of `step_ns`; 0 when none pays.

    The time that they take has to give `gain` times as many tokens as other time.
    """
    best, usual = 0, tokens / step_ns
    rate, expected, likely = usual, tokens, 1.0
    for count, chance in enumerate(chances, 1):
        likely *= chance
        expected += likely
        extra = extra_ns(count)
        found = expected / (step_ns + extra)
        if found > rate and expected - tokens > gain * usual * extra:
            best, rate = count, found
    return best


def _class_of(match: int) -> int:
    return sum(match > end for end in _CLASSES)
