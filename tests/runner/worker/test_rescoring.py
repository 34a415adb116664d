"""Log-probabilities of tokens that another worker took are asked for when the tokens before them are computed."""

from __future__ import annotations

from runner.engine import PromptScoring, TokenScore
from runner.worker.rescoring import Rescoring

IMAGE = -1_000_000


def test_only_the_last_tokens_are_scored_whatever_stands_before_them() -> None:
    tokens = [1, 2, IMAGE, IMAGE, 3, 4, 5, 6]
    rescoring = Rescoring(tokens, 2, 0)
    for start, count in ((0, 2), (4, 1), (5, 3)):
        asked = rescoring.scoring(start, count)
        for number, target in enumerate(asked.targets if isinstance(asked, PromptScoring) else ()):
            assert target >= 0
            assert asked is not None
            asked.scores[start + number + 1] = TokenScore(target, -1.0, ())
    assert [score.token for score in rescoring.scores] == [5, 6]
