"""Prompts that are too long: which ways out there are, where it is known how large a window could be."""

from __future__ import annotations

from runner.calls import Call
from runner.chat.types import ChatRequest, InsertPrompt, TextPrompt
from runner.errors import ContextLengthExceeded, ReportedError


def with_ways_out(
    error: ReportedError, call: Call, request: ChatRequest, reach: int, largest: int
) -> ContextLengthExceeded:
    """A worker's error, with the ways out that would work.

    `reach` is the longest window that the model can ever have, `largest` the longest that there is memory for;
    0: nobody knows.
    """
    tokens, window = int(error.facts["prompt_tokens"] or 0), int(error.facts["context_length"] or 0)
    largest = largest or reach
    needed = tokens + 1
    ways = ["shorten the prompt"]
    if _can_be_cut(request):
        ways.append(f"pass {call.truncate_wish}")
    if needed <= largest:
        is_asked = request.limits.num_ctx is not None
        ways.append(
            f"raise {_num_ctx(call)} to {needed} or more" if is_asked else "try again: there is more memory now"
        )
    elif needed <= reach:
        ways.append(f"make room for a larger window: there is memory for {largest} tokens now")
    else:
        ways.append(f"take a model that reads more: this one takes {reach} tokens at most")
    told = ContextLengthExceeded(
        tokens,
        window,
        at_least=bool(error.facts.get("at_least")),
        is_shortened=bool(error.facts.get("is_shortened")),
        ways_out=ways,
    )
    told.facts = {**told.facts, "largest_context_length": largest}
    return told


def _can_be_cut(request: ChatRequest) -> bool:
    """Whether passing `truncate` would help: it was not passed yet, and what is cut makes sense without the rest."""
    prompt = request.prompt
    is_whole = isinstance(prompt, InsertPrompt) or (isinstance(prompt, TextPrompt) and bool(prompt.media))
    return not request.limits.truncate and not is_whole


def _num_ctx(call: Call) -> str:
    if call.options.get("num_ctx") is not None:
        return f"{call.options_path}num_ctx"
    return "num_ctx, which the model or its configuration sets,"
