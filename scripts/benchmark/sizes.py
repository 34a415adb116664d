"""How much is asked for in each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sizes:
    tokens: int = 96
    """Of an answer."""
    streams: tuple[int, ...] = (8, 16)
    cells: int = 16384
    """Of llama-server's cache, where it is one for many slots."""
    slot_cells: int = 8192
    """Of each slot's cache, where each has its own: enough for the longest row."""
    prefix_words: int = 700
    prefix_clients: int = 8
    prefix_tokens: int = 24
    busy_tokens: int = 400
    busy_seconds: float = 4.0
    running_streams: int = 3
    """While a long prompt arrives; with that prompt as many as llama-server takes by default."""
    running_tokens: int = 1000
    running_seconds: float = 1.0
    """Before it arrives."""
    long_words: int = 4000
    history_words: int = 1500
    history_turns: int = 5
    passages: int = 3
    repeat_tokens: int = 120
    share_rows: int = 16
    share_tokens: int = 64
    command_runs: int = 5
    limit_tokens: int = 96
    repeats: Mapping[str, int] = field(default_factory=lambda: {"one": 5, "streams": 2})
    """How often rows are asked in each round, by what `--only` calls them; once where they are not named."""


FULL = Sizes()
QUICK = Sizes(
    tokens=6,
    streams=(2,),
    cells=4096,
    slot_cells=2048,
    prefix_words=30,
    prefix_clients=3,
    prefix_tokens=4,
    busy_tokens=8,
    busy_seconds=1.0,
    running_streams=2,
    running_tokens=60,
    running_seconds=0.05,
    long_words=100,
    history_words=60,
    history_turns=2,
    passages=1,
    repeat_tokens=12,
    share_rows=2,
    share_tokens=6,
    command_runs=1,
    limit_tokens=4,
    repeats={"one": 2},
)
"""Enough to see that every row works; its figures mean nothing."""
