"""How much of prompts may stand in a step beside running answers."""

from __future__ import annotations

from runner.worker.step_cost import StepCost

UNMEASURED_ROWS = 32
"""Prompt tokens beside running answers while nobody knows what they cost."""
PROMPTS_PART = 4
"""Prompts get at least one part in so many of the step target, however long the answers' own rows take."""
MIN_ROWS = 8
"""Prompt tokens beside running answers even when those fill the step alone: everybody gets on."""


def prompt_rows(cost: StepCost, step_target_ns: int, *, cells: int, decoding: int) -> int:
    """How many tokens of prompts may stand beside `decoding` answers, with `cells` cells in use."""
    if not cost.is_known:
        return UNMEASURED_ROWS
    rows = cost.rows_within(step_target_ns, cells, beside=decoding)
    # Where the answers alone fill a step, as on a machine with other work, prompts would never end.
    share = cost.rows_for(step_target_ns / PROMPTS_PART, cells)
    return max(rows, share, MIN_ROWS)
