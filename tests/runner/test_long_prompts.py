"""What people are told to do about a prompt that is too long: only what would help."""

from __future__ import annotations

from typing import Any

import pytest

from runner.calls import Call, Conversation
from runner.chat.media import Media, MediaKind
from runner.chat.types import ChatPrompt, ChatRequest, InsertPrompt, Limits, Message, TextPrompt
from runner.errors import ContextLengthExceeded, Fact, ReportedError
from runner.long_prompts import with_ways_out

CHAT = ChatPrompt((Message("user", "hi"),))


def told(
    tokens: int,
    *,
    window: int = 512,
    largest: int = 8192,
    reach: int = 8192,
    prompt: Any = CHAT,
    limits: Limits | None = None,
    facts: dict[str, Fact] | None = None,
    **call: Any,
) -> ContextLengthExceeded:
    limits = limits or Limits(num_ctx=window)
    error = ReportedError(
        "context_length_exceeded", "Too long.", {"prompt_tokens": tokens, "context_length": window, **(facts or {})}
    )
    asked = Call(request_id="r", model="m", prompt=Conversation(messages=()), **call)
    return with_ways_out(error, asked, ChatRequest(prompt, limits=limits), reach, largest)


def test_a_larger_window_is_advised_where_there_is_one_and_how_large_it_has_to_be() -> None:
    error = told(600, options={"num_ctx": 512})
    assert error.message == (
        "The prompt has 600 tokens and the window holds 512, one of which the answer needs; shorten the prompt, "
        'pass "truncate": true, or raise options.num_ctx to 601 or more.'
    )
    assert error.facts == {"prompt_tokens": 600, "context_length": 512, "largest_context_length": 8192}
    assert told(8191).message.endswith("raise num_ctx, which the model or its configuration sets, to 8192 or more.")


@pytest.mark.parametrize(
    ("tokens", "largest", "advice"),
    [
        (8192, 8192, "take a model that reads more: this one takes 8192 tokens at most."),
        (8192, 2048, "take a model that reads more: this one takes 8192 tokens at most."),
        (3000, 2048, "make room for a larger window: there is memory for 2048 tokens now."),
        (9000, 0, "take a model that reads more: this one takes 8192 tokens at most."),
    ],
)
def test_a_larger_window_is_not_advised_where_there_is_none(tokens: int, largest: int, advice: str) -> None:
    error = told(tokens, largest=largest)
    assert error.message.endswith(f', pass "truncate": true, or {advice}')
    assert "num_ctx" not in error.message
    assert error.facts["largest_context_length"] == (largest or 8192)


def test_where_nobody_asked_for_a_small_window_trying_again_may_help() -> None:
    assert told(600, limits=Limits()).message.endswith("or try again: there is more memory now.")


@pytest.mark.parametrize(
    ("prompt", "limits"),
    [
        (CHAT, Limits(truncate=True, num_ctx=512)),
        (InsertPrompt("a", "b"), Limits(num_ctx=512)),
        (TextPrompt("a", (Media(MediaKind.IMAGE, b"", 0, "images[0]"),)), Limits(num_ctx=512)),
    ],
)
def test_what_cannot_be_cut_is_not_advised_to_be(prompt: Any, limits: Limits) -> None:
    assert "truncate" not in told(600, prompt=prompt, limits=limits).message


def test_shortening_is_advised_in_the_words_of_the_dialect() -> None:
    assert 'pass "truncation": "auto", or' in told(600, truncate_wish='"truncation": "auto"').message


def test_what_the_worker_knew_is_told_as_well() -> None:
    least = told(100_000, facts={"at_least": True})
    assert "has at least 100000 tokens and" in least.message
    cut = told(600, facts={"is_shortened": True}, limits=Limits(truncate=True, num_ctx=512))
    assert "even without its oldest turns" in cut.message
